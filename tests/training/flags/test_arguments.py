import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from training import data
from training.flags import arguments
from training.reporting.flags import keeps_something
from utils import UsageError

ROOT = Path(__file__).parents[3]


def resolve(flags: str):
    args = arguments.training_parser().parse_args(shlex.split(flags))
    return arguments.check_training_arguments(args)


def test_defaults_are_those_of_the_original():
    args = resolve("")
    wanted = {
        "dataset": "digits",
        "architecture": "simple",
        "embedding": None,
        "loss": None,
        "cls_weight": 0,
        "cls_base": None,
        "label_smoothing": 0,
        "lr_schedule": "SGDR",
        "clipgrad": 10,
        "max_decay": 0,
        "nesterov": False,
        "epochs": 372,
        "batch_size": 100,
        "val_batch_size": 100,
        "gpus": 1,
        "read_workers": 8,
        "queue_size": 100,
        "gpu_merge": False,
        "sgd_lr": 0.1,
        "sgd_patience": 10,
        "sgd_min_lr": 1e-4,
        "sgd_schedule": None,
        "sgdr_base_len": 12,
        "sgdr_mul": 2,
        "sgdr_max_lr": 0.1,
        "clr_step_len": 12,
        "clr_min_lr": 1e-5,
        "clr_max_lr": 0.1,
        "top_k_acc": [],
        "precision": "float32",
        "weight_decay": None,
        "image_size": 8,
    }
    assert {name: getattr(args, name) for name in wanted} == wanted


def test_what_follows_from_other_arguments():
    assert resolve("--embedding onehot").loss == "inv_corr"
    assert resolve("--loss t-vmf").tvmf_kappa == 16
    assert resolve("--loss t-vmf --tvmf_kappa 0").tvmf_kappa == 0
    assert resolve("--batch_size 32").val_batch_size == 32
    assert resolve("--batch_size 32 --val_batch_size 7").val_batch_size == 7
    assert resolve("--lr_schedule clr").epochs == 240
    assert resolve("--epochs 3").epochs == 3
    assert resolve("--dataset DIGITS-sub10").dataset == "digits-sub10"
    assert resolve("--image_size 16").image_size == 16
    assert resolve("--snapshot s --snapshot_best").snapshot_best == "val_acc"
    combined = "--embedding onehot --cls_weight 1 --top_k_acc 5 --snapshot s --snapshot_best"
    assert resolve(combined).snapshot_best == "val_prob_acc"
    for name in "val_embedding_top5_acc", "prob_loss", "val_loss":
        assert resolve(f"{combined} {name}").snapshot_best == name


@pytest.mark.parametrize(
    ("flags", "epochs"), [("1", 1), ("1400", 1), ("2600", 3), ("2000 --train_repeats 2", 1)]
)
def test_images_seen_are_whole_epochs(flags, epochs):
    args = resolve(f"--images_seen {flags}")
    assert args.epochs is None
    data.load_dataset(args)
    assert args.epochs == epochs


def test_images_seen_leave_something_to_train():
    args = resolve("--images_seen 2600 --initial_epoch 3")
    with pytest.raises(UsageError, match="--initial_epoch 3: leaves nothing to do of --epochs 3"):
        data.load_dataset(args)


@pytest.mark.parametrize(
    ("flags", "free"),
    [
        ("--epochs 9", True),
        ("--epochs 9 --max_decay 0.1", False),
        ("--epochs 9 --lr_schedule cosine", False),
        ("--images_seen 9 --lr_schedule cosine", True),
    ],
)
def test_the_epochs_may_change_where_no_rate_depends_on_them(flags, free):
    freed = arguments.free_arguments(resolve(flags))
    assert ("epochs" in freed) == free
    assert "images_seen" not in freed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        # Unknown names are answered with the nearest.
        ("--dataset digitz", "--dataset digitz: unknown data set; did you mean digits?"),
        ("--dataset cifar-10x", "did you mean CIFAR-10"),
        # What is given empty is not left out.
        ("--output ''", "--output: nothing is given"),
        ("--top_k_acc=", "--top_k_acc: ''"),
        # Names that the file system has no room for, or not for the files beside them.
        (f"--model_dump {'a' * 250}.keras", "has 256 bytes, expected at most 255"),
        (f"--output new --snapshot {'é' * 123}", "has 246 bytes, expected at most 244"),
        ("--architecture resnet-32fc", "did you mean resnet-32-fc"),
        ("--lr_schedule SGDX", "--lr_schedule"),
        ("--loss cosine --embedding onehot", "--loss"),
        ("--embedding twohot", "--embedding twohot"),
        ("--nonsense", "--nonsense"),
        # Files of a data set.
        ("--dataset CIFAR-100", "--data_root"),
        ("--dataset CIFAR-100 --data_root nowhere", "--data_root nowhere"),
        # Numbers out of range.
        ("--epochs 0", "--epochs: 0: expected a whole number at least 1"),
        (f"--epochs {'9' * 400}", "expected a whole number"),
        ("--epochs 1.5", "--epochs: '1.5': expected a whole number at least 1"),
        ("--batch_size -1", "--batch_size"),
        ("--sgdr_max_lr nan", "--sgdr_max_lr: nan: expected a number above 0"),
        ("--sgdr_max_lr 0", "--sgdr_max_lr"),
        ("--label_smoothing 1", "--label_smoothing: 1: expected a number at least 0 and below 1"),
        ("--cls_weight -0.1", "--cls_weight"),
        ("--max_decay 2", "--max_decay"),
        ("--weight_decay -1", "--weight_decay"),
        ("--weight_decay_on all", "--weight_decay_on all: needs --weight_decay L"),
        ("--weight_decay_on all --weight_decay 0", "needs --weight_decay L, above 0"),
        ("--seed -1", "--seed"),
        ("--seed 2147483648", "expected a whole number at least 0 and below 2147483648"),
        (f"--epochs {10**18}", "expected a whole number at least 1, and below 1e+18"),
        ("--sgdr_max_lr inf", "--sgdr_max_lr: inf: expected a number above 0, and below 1e+18"),
        ("--fold 1/1", "expected I/K, the I-th of K parts, as in 1/5: K from 2 to 2147483647"),
        ("--fold 6/5", "I from 1 to K"),
        (f"--lr_schedule SGD --sgd_schedule 1:1,{10**18}", "expected less than 1e+18 epochs"),
        # Names that other programs have.
        ("--lr 0.1", "--lr: no such flag; write --sgdr_max_lr or --sgd_lr or --clr_max_lr"),
        ("--num-workers=3", "--num-workers: no such flag; write --read_workers"),
        ("--batch-size 3", "--batch-size: no such flag; did you mean --batch_size? (--help"),
        ("--resume x", "--resume: no such flag; write --snapshot (--help"),
        (
            "--label-smoothing 0.1",
            "did you mean --label_smoothing",
        ),
        ("stray", "stray: belongs to no flag"),
        ("--loss cosine --embedding onehot", "--loss: cosine: write inv_corr"),
        ("--loss Cross_Entropy", "--loss: Cross_Entropy: cross entropy is the loss without"),
        ("--model_dump old.x.h5", "must end in .keras; write old.x.keras"),
        ("--weight_dump a/w.h5", "must end in .weights.h5; write a/w.weights.h5"),
        ("--feature_dump w.pickle", "must end in .npz; write w.npz"),
        ("--feature_dump .npz", "must end in .npz; write feature_dump.npz"),
        ("--snapshot s --snapshot_best acc5", "write val_top5_acc, and give --top_k_acc 5"),
        ("--image_size 0", "--image_size: 0: expected a whole number at least 1 and at most 16384"),
        ("--read_workers 9999", "at least 1 and at most 1024"),
        # Sizes that a network cannot take.
        ("--image_size 10 --architecture resnet-32", "use 8 or 12"),
        ("--image_size 2 --architecture resnet-32", "use 4"),
        ("--image_size 7 --architecture simple", "at least 8 x 8"),
        # Combinations that mean nothing.
        ("--cls_weight 0.1", "--cls_weight needs class embeddings: add --embedding onehot"),
        ("--loss mse", "--loss needs class embeddings"),
        ("--loss t-vmf --embedding onehot", "--loss t-vmf learns the vectors of the classes"),
        ("--loss normface --cls_weight 1", "--cls_weight needs class embeddings"),
        ("--loss normface --tvmf_kappa 3", "--tvmf_kappa belongs to --loss t-vmf"),
        ("--loss t-vmf --tvmf_kappa -0.5", "expected a number above -0.5"),
        ("--label_smoothing 0.1 --embedding onehot", "--label_smoothing"),
        ("--cls_base avg_pool --embedding onehot", "--cls_base"),
        ("--cls_base avg_pool", "--cls_base"),
        ("--lr_schedule SGD --sgdr_max_lr 1", "--sgdr_max_lr belongs to --lr_schedule SGDR"),
        ("--sgd_lr 1", "--sgd_lr belongs to --lr_schedule SGD"),
        ("--finish_size 4 --architecture fast-cnn", "--finish_size 4: fast-cnn needs images"),
        ("--finish_size 8", "--finish_size 8: all images have this size"),
        ("--ema 9 --gpus 2", "--ema: works on one device only"),
        ("--optimizer adamw --nesterov", "--nesterov: does nothing with"),
        ("--max_lr 1", "--max_lr belongs to --lr_schedule cosine"),
        ("--warmup 0.1", "--warmup belongs to --lr_schedule cosine"),
        ("--images_seen 9 --epochs 9", "--images_seen: says how long to train, as --epochs does"),
        ("--cutout 3", "--cutout: does nothing with --augmentation paper; give light or strong"),
        ("--lr_schedule CLR --clr_min_lr 1", "--clr_min_lr 1 is above --clr_max_lr 0.1"),
        ("--lr_schedule SGD --sgd_schedule 1", "--sgd_schedule 1: the epochs must start at 1"),
        ("--lr_schedule SGD --sgd_schedule 1:x,5 --epochs 3", "--sgd_schedule 1:x,5: expected"),
        ("--lr_schedule SGD --sgd_min_lr 1", "--sgd_min_lr 1 is above --sgd_lr 0.1"),
        ("--lr_schedule SGD --sgd_schedule 1:0.1,5 --sgd_lr 5", "--sgd_lr does nothing beside"),
        ("--top_k_acc 3 3", "--top_k_acc 3 3: a number is given twice"),
        ("--top_k_acc 10", "--top_k_acc 10: there are 10 classes"),
        ("--architecture resnet-32 --embedding onehot", "use resnet-32-fc"),
        # Snapshots and fine-tuning.
        ("--snapshot_every 60", "--snapshot_every: needs --snapshot PATH"),
        ("--snapshot_best", "--snapshot_best: needs --snapshot PATH"),
        ("--snapshot s --snapshot_best val_accuracy", "no such metric; did you mean val_acc"),
        ("--snapshot_allow seed", "--snapshot_allow"),
        ("--initial_epoch 2 --epochs 2", "--initial_epoch 2: leaves nothing to do of --epochs 2"),
        ("--finetune w.bin", "expected a file whose name ends in .keras or .h5 or .hdf5"),
        ("--finetune w.h5", "--finetune w.h5: there is no such file"),
        ("--finetune_init 3", "--finetune_init: needs --finetune FILE"),
        ("--accumulate_steps 101", "--accumulate_steps 101: a batch has 100 images only"),
        # Output files.
        ("--model_dump m.h5", "--model_dump m.h5: the file's name must end in .keras"),
        ("--model_dump .keras", "must end in .keras"),
        ("--weight_dump w.h5", "must end in .weights.h5"),
        ("--plain_dump f.h5 --harmonic all", "--plain_dump f.h5: the file's name must end in"),
        ("--plain_dump f.keras", "--plain_dump is for networks with --harmonic first or all"),
        ("--plain_dump f.keras --model_dump f.keras --harmonic all", "is that of --model_dump"),
        ("--feature_dump f.pickle", "must end in .npz"),
        ("--model_dump nowhere/m.keras", "there is no directory"),
    ],
)
def test_usage_errors_are_one_line_that_says_what_to_do(flags, message):
    with pytest.raises(UsageError) as caught:
        resolve(flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_output_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "d.keras").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        resolve(f"--model_dump {tmp_path}/d.keras")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        resolve(f"--log_dir {tmp_path}/file")
    for flag in "log_dir", "snapshot", "output":
        with pytest.raises(UsageError, match="there is no directory"):
            resolve(f"--{flag} {tmp_path}/file/below/name")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        for flag in "weight_dump", "snapshot":
            with pytest.raises(UsageError, match="not writable"):
                resolve(f"--{flag} {tmp_path}/closed/w.weights.h5")


def test_dumps_may_go_to_the_log_directory_that_the_run_makes(tmp_path):
    resolve(f"--log_dir {tmp_path}/new --model_dump {tmp_path}/new/m.keras")
    with pytest.raises(UsageError, match="there is no directory"):
        resolve(f"--log_dir {tmp_path}/new --model_dump {tmp_path}/other/m.keras")


def test_one_flag_keeps_everything(tmp_path):
    out = tmp_path / "runs" / "first"
    args = resolve(f"--output {out}")
    assert (args.log_dir, args.snapshot) == (str(out), f"{out}/snapshot")
    assert args.model_dump == f"{out}/model.keras"
    args = resolve(f"--output {out} --snapshot {out}/new/s --model_dump {out}/new/m.keras")
    assert (args.log_dir, args.snapshot) == (str(out), f"{out}/new/s")
    assert resolve(f"--output {out} --snapshot_best").snapshot_best == "val_acc"
    assert not (tmp_path / "runs").exists()  # nothing is made before all is checked
    out.mkdir(parents=True)
    (out / "result.json").touch()
    with pytest.raises(UsageError, match=rf"^--output {out}: holds result\.json of an earlier run"):
        resolve(f"--output {out}")
    assert keeps_something(args)
    assert not keeps_something(resolve(""))


def test_every_flag_has_a_help():
    for action in arguments.training_parser()._actions:
        assert (action.help or "").strip(), action.option_strings


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "foo")
    with pytest.raises(UsageError, match="KERAS_BACKEND=foo: expected tensorflow or jax"):
        resolve("")


def test_a_log_directory_keeps_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("keep")
    resolve(f"--log_dir {tmp_path}")
    (tmp_path / "history.csv").write_text("epoch\n")
    with pytest.raises(UsageError, match=r"holds history\.csv of an earlier run"):
        resolve(f"--log_dir {tmp_path}")
    assert (tmp_path / "notes.txt").read_text() == "keep"


def test_published_flags_are_accepted():
    """As published."""
    args = resolve(
        "--sgdr_max_lr 0.5 --batch_size 96 --gpus 4 --read_workers 16 --queue_size 32 --gpu_merge"
    )
    assert (args.read_workers, args.queue_size, args.gpu_merge) == (16, 32, True)


@pytest.mark.parametrize("script", ["learn_classifier.py", "evaluate_classifier.py"])
def test_help_and_errors_do_not_load_keras(script):
    """TensorFlow takes seconds to import; an answer to a typing error must not."""
    for flags, status in (["--help"], 0), (["--nonsense"], 2), (["--dataset", "digitz"], 2):
        command = [sys.executable, "-X", "importtime", script, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status
        imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
        assert "argparse" in imported
        assert not imported & {"keras", "tensorflow", "jax", "sklearn", "scipy", "matplotlib"}
        assert "Traceback" not in done.stderr


def test_the_users_directory_in_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    args = arguments.training_parser().parse_args([
        "--data_root=~/images", "--cache_dir", "~", "--embedding", "hierarchy:~/a b.txt",
        "--log_dir=~other", "--class_list", "x~/y",
    ])  # fmt: skip
    assert args.data_root == f"{tmp_path}/images"
    assert args.cache_dir == str(tmp_path)
    assert args.embedding == f"hierarchy:{tmp_path}/a b.txt"
    assert (args.log_dir, args.class_list) == ("~other", "x~/y")
