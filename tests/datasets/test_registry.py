import subprocess
import sys

import pytest

import datasets
from utils import UsageError


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("digits", "digits"),
        ("Digits-sub10", "digits-sub10"),
        ("cifar100", "CIFAR-100"),
        ("CIFAR_100", "CIFAR-100"),
        ("cifar-100-B", "CIFAR-100-b"),
        ("CIFAR-100-b-consec", "CIFAR-100-b-consec"),
        ("CIFAR-100-a-consec", "CIFAR-100-a"),
        ("cifar100-a-sub25", "CIFAR-100-a-sub25"),
        ("cifar10", "CIFAR-10"),
        ("flowers", "Flowers"),
        ("Flowers-102", "Flowers"),
        ("oxford_flowers", "Flowers"),
        ("flowers-LARGE", "Flowers-large"),
        ("flowers-102-sub5-caffe", "Flowers-caffe-sub5"),
        ("Flowers-ilsvrcmean-large", "Flowers-large-ilsvrcmean"),
    ],
)
def test_spellings(spelling, canonical, cifar_100, cifar_10, flowers):
    root = {"C": cifar_100.parent, "F": flowers}.get(canonical[0])
    assert datasets.check_dataset(spelling, root).name == canonical


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flwers", r"did you mean.* Flowers"),
        ("cifar-1000-sub5", "did you mean CIFAR-100"),
        ("NABB", "did you mean NAB"),
        ("", "known: digits"),
        ("digits-caffe", "digits takes -subN only, not -caffe"),
        ("Flowers-caffe-ilsvrcmean", "exclude each other"),
        ("digits-sub0", "leaves no training images"),
        ("digits-sub5-sub6", "given twice"),
        ("digits-sub", "unknown data set"),
    ],
)
def test_wrong_names_are_refused(name, message):
    with pytest.raises(UsageError, match=message) as caught:
        datasets.check_dataset(name)
    assert "--dataset" in str(caught.value)


def test_missing_root_says_what_to_pass():
    with pytest.raises(UsageError, match=r"--data_root is missing: CIFAR-100 needs .*train, test"):
        datasets.check_dataset("cifar-100")


def test_root_that_does_not_exist(tmp_path):
    with pytest.raises(UsageError, match="none: does not exist"):
        datasets.check_dataset("Flowers", tmp_path / "none")


def test_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: is a file"):
        datasets.check_dataset("Flowers", tmp_path / "file")


def test_first_missing_file_is_named(flowers, cifar_10):
    (flowers / "setid.mat").unlink()
    with pytest.raises(UsageError, match=r"flowers/setid\.mat is missing"):
        datasets.check_dataset("Flowers", flowers)
    (cifar_10 / "data_batch_3").unlink()
    with pytest.raises(UsageError, match="cifar-10-batches-py/data_batch_3 is missing"):
        datasets.check_dataset("CIFAR-10", cifar_10)
    with pytest.raises(UsageError, match="cifar-10-batches-py/data_batch_3 is missing"):
        datasets.check_dataset("CIFAR-10", cifar_10.parent)


def test_root_for_a_dataset_without_files_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"digits has no files.*--dataset"):
        datasets.check_dataset("digits", tmp_path)


@pytest.mark.parametrize("size", [0, -5])
def test_impossible_image_sizes(size):
    with pytest.raises(UsageError, match=f"--image_size {size}"):
        datasets.check_dataset("digits", image_size=size)


def test_sizes(flowers):
    spec = datasets.check_dataset("Flowers", flowers)
    assert (spec.image_size, spec.resize, spec.test_resize) == (448, (512, 512), 512)
    spec = datasets.check_dataset("Flowers", flowers, image_size=64)
    assert (spec.image_size, spec.resize, spec.test_resize) == (64, (73, 73), 73)
    assert spec.num_classes == 102
    spec = datasets.check_dataset("digits", image_size=16)
    assert (spec.image_size, spec.num_classes) == (16, 10)


def test_statistics_follow_the_suffix(flowers):
    spec = datasets.check_dataset("Flowers", flowers)
    assert spec.mean == (110.7799141, 97.65648664, 75.32889973)
    assert spec.std == (74.90387818, 62.70218863, 69.7656359)
    assert spec.channel_order == "rgb"
    spec = datasets.check_dataset("Flowers-ilsvrcmean", flowers)
    assert spec.mean == (122.65435242, 116.6545058, 103.99789959)
    assert spec.std == (71.40583196, 69.56888997, 73.0440314)
    spec = datasets.check_dataset("Flowers-caffe", flowers)
    # Red first, as everywhere: the model subtracts before it reverses the channels.
    assert (spec.mean, spec.std) == ((123.68, 116.779, 103.939), (1, 1, 1))
    assert spec.channel_order == "bgr"


def test_names_need_no_loading():
    code = (
        "import sys, datasets; datasets.check_dataset('digits-sub10'); datasets.dataset_names();"
        "print([m for m in ('numpy', 'PIL', 'keras', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_flowers_in_the_folder_that_torchvision_makes(flowers):
    flowers.rename(flowers.parent / "flowers-102")
    assert datasets.check_dataset("Flowers", flowers.parent).root.name == "flowers-102"
