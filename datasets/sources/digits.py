"""Handwritten digits that ship inside scikit-learn (UCI, 8 x 8 grey pixels, 1,797 images).

The split is ours and fixed: the first 1,000 images in the official order are for training, the
other 797 for testing. Ink is white; grey values 0 to 16 become 0 to 255.
"""

from __future__ import annotations

from datasets.info import Augmentation, Content, DatasetInfo, DatasetSpec, Samples

NUM_TRAIN = 1000


def load(spec: DatasetSpec) -> Content:
    """Reads the images from the installed package."""
    import numpy as np

    images, labels = read_package()
    grey = np.rint(images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=-1)
    return Content(
        Samples(images[:NUM_TRAIN], labels[:NUM_TRAIN]),
        Samples(images[NUM_TRAIN:], labels[NUM_TRAIN:]),
    )


def read_package():
    """What `sklearn.datasets.load_digits` gives, without the second that its import takes.

    Returns:
        Grey values `(1797, 8, 8)`, 0 to 16, and labels `(1797,)`.
    """
    import importlib.util
    from pathlib import Path

    import numpy as np

    package = importlib.util.find_spec("sklearn")  # does not import it
    if package is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)


DIGITS = DatasetInfo(
    name="digits",
    aliases=("sklearn-digits", "load_digits"),
    load=load,
    needs_root=False,
    num_classes=10,
    image_size=8,
    # A mirrored digit is another sign, so digits are only shifted.
    augmentation=Augmentation(flip=False, shift=0.15),
)
