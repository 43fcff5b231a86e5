"""The flags of the scripts: names, defaults and help. `arguments` checks what was given.

Nothing here imports Keras: `--help` and a wrong argument answer at once.
"""

import argparse
import math
from collections.abc import Callable

import architectures
import datasets
import sgdr
from training.resuming import snapshots
from utils import UsageError

EMBEDDING_LOSS_NAMES = ("inv_corr", "mse", "unnorm_corr", "softmax_corr")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


class _HelpFormatter(argparse.HelpFormatter):
    """Adds the default to the help of flags that have one of their own."""

    def _get_help_string(self, action):
        text = action.help or ""
        if not action.option_strings or action.nargs == 0 or action.default in (None, []):
            return text
        return f"{text} (default: %(default)s)".strip()


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help shows the defaults."""

    def __init__(self, *, formatter_class: type = _HelpFormatter, **kwargs):
        super().__init__(formatter_class=formatter_class, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise UsageError(f"{message} (--help lists all flags)")


def number(
    kind: type = float,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> Callable[[str], float]:
    """An argparse `type`: a finite number of a kind within bounds (`above` and `below` exclusive).

    Args:
        kind: `int` or `float`.
        least: The smallest number allowed.
        above: Every number allowed is greater.
        most: The greatest number allowed.
        below: Every number allowed is smaller.
    """
    limits = [
        f"{words} {bound:g}"
        for words, bound in (
            ("at least", least),
            ("above", above),
            ("at most", most),
            ("below", below),
        )
        if math.isfinite(bound)
    ]
    expected = " ".join(
        ["expected a whole number" if kind is int else "expected a number", " and ".join(limits)]
    ).strip()

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{text!r}: {expected}") from None
        if not (abs(value) < 1e18 and least <= value <= most and above < value < below):
            raise argparse.ArgumentTypeError(f"{text}: {expected}")
        return value

    return parse


def fold(text: str) -> str:
    """An argparse `type`: `I/K`, the I-th of K folds."""
    part, slash, count = text.partition("/")
    if not (slash and part.isdecimal() and count.isdecimal()) or not (
        1 <= int(part) <= int(count) and 2 <= int(count) < 2**31
    ):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/K, the I-th of K parts, as in 1/5")
    return f"{int(part)}/{int(count)}"


def add_data_arguments(parser: argparse.ArgumentParser):
    """Declares the flags that say which images there are and how they are read; their group."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        default="digits",
        metavar="NAME",
        help="data set; -subN after its name trains on N images per class. "
        f"Known: {', '.join(datasets.dataset_names())}",
    )
    group.add_argument("--data_root", metavar="DIR", help="where its files are (digits has none)")
    group.add_argument(
        "--image_size",
        type=number(int, least=1),
        metavar="S",
        help="crop of S x S pixels from images whose smaller side is S*8/7 "
        "(default: the data set's own sizes)",
    )
    group.add_argument(
        "--class_list",
        metavar="FILE",
        help="use only the classes whose ids begin the lines of this file, in its order",
    )
    group.add_argument(
        "--test_fraction",
        type=number(above=0, below=1),
        metavar="SHARE",
        help="of each class to test on, for a folder of class folders; drawn with --split_seed",
    )
    group.add_argument(
        "--skip_bad_images",
        action="store_true",
        help="leave out images that cannot be read, instead of refusing to start",
    )
    group.add_argument(
        "--cache_dir",
        metavar="DIR",
        help="of --cache disk and computed statistics (default: the user's cache directory)",
    )
    group.add_argument(
        "--read_workers", type=number(int, least=1), default=8, metavar="N", help="reading threads"
    )
    group.add_argument(
        "--queue_size",
        type=number(int, least=1),
        default=100,
        metavar="N",
        help="batches read ahead at most; all together are bounded to 640 MiB too",
    )
    return group


def add_top_k_argument(group) -> None:
    group.add_argument(
        "--top_k_acc",
        type=number(int, least=1),
        nargs="+",
        default=[],
        metavar="K",
        help="also report the share of images whose class is among the K best",
    )


def add_hierarchy_format_arguments(group) -> None:
    """Declares the flags that say how a class hierarchy's file is to be read."""
    group.add_argument(
        "--is_a",
        action="store_true",
        help="the lines of the hierarchy are `child parent`, not `parent child`",
    )
    group.add_argument("--str_ids", action="store_true", help="its class ids are text, not numbers")


def training_parser() -> Parser:
    """The parser of `learn_classifier.py`."""
    parser = Parser(
        description="Trains an image classifier from scratch, with the cosine loss, cross entropy "
        "or both.",
    )
    data = add_data_arguments(parser)
    data.add_argument(
        "--cache",
        choices=datasets.CACHE_MODES,
        default="auto",
        help="keep decoded images: auto is ram if they fit in half of the free memory, else none",
    )
    data.add_argument(
        "--validation_fraction",
        type=number(above=0, below=1),
        metavar="SHARE",
        help="hold out this share of each class's training images: what an epoch is judged by "
        "(val_…, --snapshot_best) is then of them, and the test images are used once, at the end "
        "(default: epochs are judged by the test images, as published)",
    )
    data.add_argument(
        "--fold",
        type=fold,
        metavar="I/K",
        help="as --validation_fraction, with the I-th of K equal parts of the training images",
    )
    data.add_argument(
        "--split_seed",
        type=number(int, least=0, below=2**31),
        default=0,
        metavar="N",
        help="draws the images of -subN, the test images of --test_fraction and the validation "
        "images, so that runs that differ in --seed see the same",
    )
    data.add_argument(
        "--check_data",
        action="store_true",
        help="only decode every image of the data set, and list those that cannot be read",
    )
    _add_model_arguments(parser)
    _add_optimisation_arguments(parser)
    _add_schedule_arguments(parser)
    _add_device_arguments(parser)
    _add_process_arguments(parser)
    _add_finetuning_arguments(parser)
    _add_snapshot_arguments(parser)
    _add_output_arguments(parser)
    return parser


def _add_model_arguments(parser):
    group = parser.add_argument_group("network and loss")
    group.add_argument(
        "--architecture",
        default="simple",
        metavar="NAME",
        help=f"network: {', '.join(architectures.ARCHITECTURES)}",
    )
    group.add_argument(
        "--embedding",
        metavar="onehot|FILE",
        help="learn class embeddings with --loss; without it, cross entropy",
    )
    group.add_argument(
        "--loss",
        choices=EMBEDDING_LOSS_NAMES,
        help="embedding loss: inv_corr is the cosine loss (default: inv_corr with --embedding)",
    )
    group.add_argument(
        "--cls_weight",
        type=number(least=0),
        default=0.0,
        metavar="W",
        help="adds a softmax classifier on top of the embedding, its cross entropy weighted by W",
    )
    group.add_argument(
        "--cls_base",
        metavar="NAME|INDEX",
        help="layer that classifier sits on (default: the embedding)",
    )
    group.add_argument(
        "--label_smoothing",
        type=number(least=0, below=1),
        default=0.0,
        metavar="E",
        help="cross entropy aims at 1-E for the true class and E/(C-1) for each of the C-1 others",
    )


def _add_optimisation_arguments(parser):
    group = parser.add_argument_group("optimisation")
    group.add_argument(
        "--epochs",
        type=number(int, least=1),
        metavar="N",
        help="epochs (default: the whole schedule)",
    )
    group.add_argument(
        "--batch_size", type=number(int, least=1), default=100, metavar="N", help="images per step"
    )
    group.add_argument(
        "--accumulate_steps",
        type=number(int, least=1),
        default=1,
        metavar="K",
        help="compute each batch in K parts, for devices with little memory: the same gradients, "
        "but batch normalisation takes its statistics from a part, and averages K times as often",
    )
    group.add_argument(
        "--val_batch_size",
        type=number(int, least=1),
        metavar="N",
        help="batch size of the evaluation (default: the batch size)",
    )
    group.add_argument(
        "--clipgrad",
        type=number(least=0),
        default=10.0,
        metavar="NORM",
        help="scales gradients down to this global norm; 0 does not clip",
    )
    group.add_argument(
        "--weight_decay",
        type=number(least=0),
        metavar="L",
        help="adds L * |w|^2 of every convolution and dense kernel to the loss, in place of the "
        "network's own: gradient 2*L*w. PyTorch's weight_decay is 2*L; Keras' SGD(weight_decay=) "
        "and AdamW are decoupled from the momentum and are not this "
        "(default: the network's own, none for resnet-50)",
    )
    group.add_argument(
        "--max_decay",
        type=number(least=0, most=1),
        default=0.0,
        metavar="D",
        help="1/t decay per step that ends at D times the scheduled rate; 0 does not decay",
    )
    group.add_argument("--nesterov", action="store_true", help="Nesterov momentum")
    group.add_argument(
        "--seed",
        type=number(int, least=0, below=2**31),
        default=0,
        metavar="N",
        help="everything random of a training follows from it: weights, order, augmentation",
    )


def _add_schedule_arguments(parser):
    group = parser.add_argument_group("learning-rate schedule")
    by_lower = {name.lower(): name for name in sgdr.SCHEDULES}
    group.add_argument(
        "--lr_schedule",
        type=lambda text: by_lower.get(text.lower(), text),
        choices=sgdr.SCHEDULES,
        default="SGDR",
        help="SGDR: cosine with warm restarts; SGD: falls on a plateau or by --sgd_schedule; "
        "CLR: triangular; ResNet-Schedule: 0.01, 0.1, 0.01, 0.001 over 164 epochs",
    )
    rate = {"type": number(above=0), "metavar": "RATE"}
    epochs = {"type": number(int, least=1), "metavar": "EPOCHS"}
    group.add_argument("--sgdr_max_lr", default=0.1, help="rate after a restart", **rate)
    group.add_argument("--sgdr_base_len", default=12, help="length of the first cycle", **epochs)
    group.add_argument(
        "--sgdr_mul",
        type=number(int, least=1),
        default=2,
        metavar="N",
        help="factor between the lengths of two cycles",
    )
    group.add_argument("--sgd_lr", default=0.1, help="first rate", **rate)
    group.add_argument(
        "--sgd_patience",
        default=10,
        help="epochs without a better val_loss before the rate falls to a tenth",
        **epochs,
    )
    group.add_argument("--sgd_min_lr", default=1e-4, help="rate that it never falls below", **rate)
    group.add_argument(
        "--sgd_schedule",
        metavar="LIST",
        help="fixed steps FIRST_EPOCH:RATE,…,LAST_EPOCH, as in 1:0.1,31:0.01,41:0.001,50",
    )
    group.add_argument("--clr_step_len", default=12, help="from lowest to highest rate", **epochs)
    group.add_argument("--clr_min_lr", default=1e-5, help="lowest rate", **rate)
    group.add_argument("--clr_max_lr", default=0.1, help="highest rate", **rate)


def _add_device_arguments(parser):
    group = parser.add_argument_group("device")
    group.add_argument(
        "--gpus",
        type=number(int, least=1),
        default=1,
        metavar="N",
        help="GPUs that share every batch, in equal parts",
    )
    group.add_argument(
        "--gpu_merge",
        action="store_true",
        help="merge gradients on the GPUs instead of on the CPU; on JAX it is always so",
    )
    group.add_argument(
        "--simulate_devices",
        action="store_true",
        help="in place of GPUs, make the CPU look like as many devices; to try it, it is no faster",
    )
    group.add_argument(
        "--bn_groups",
        type=number(int, least=1),
        metavar="G",
        help="batch normalisation takes its statistics from each of G equal parts of a batch: "
        "G on one GPU is what G GPUs do (default: one part per GPU)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="mixed: half-precision layers; normalisation, losses and weights stay float32",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="only operations that give the same in every run on the same machine, bit by bit; "
        "slower on GPUs",
    )


def _add_process_arguments(parser):
    group = parser.add_argument_group(
        "several machines (KERAS_BACKEND=jax)",
        "one process on each, all with the same flags but for --process_id; started by Slurm, Open "
        "MPI or Kubernetes as one step, they need none of these",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 runs, and a free port there; the processes exchange their results "
        "by further ports",
    )
    group.add_argument(
        "--num_processes",
        type=number(int, least=1),
        metavar="P",
        help="how many there are; 1: none but this one, whatever started it",
    )
    group.add_argument(
        "--process_id",
        type=number(int, least=0),
        metavar="I",
        help="which of them this is, from 0; only process 0 prints and writes",
    )


def _add_finetuning_arguments(parser):
    group = parser.add_argument_group("fine-tuning")
    group.add_argument(
        "--finetune",
        metavar="FILE",
        help="begin with the weights of this file, by layer name: a --model_dump, a --weight_dump "
        "or an HDF5 file of Keras 2",
    )
    group.add_argument(
        "--finetune_init",
        type=number(int, least=0),
        metavar="N",
        help="first train the new layers alone for N epochs, at --sgd_lr (default: 8 with "
        "--embedding, otherwise 3)",
    )


def _add_snapshot_arguments(parser):
    group = parser.add_argument_group("interrupting and resuming")
    group.add_argument(
        "--snapshot",
        metavar="PATH",
        help="written after every epoch, the one before it kept as PATH.previous; when it exists, "
        "the training resumes from it",
    )
    group.add_argument(
        "--snapshot_every",
        type=number(above=0),
        metavar="SECONDS",
        help="also write it within an epoch, whenever the last one is that old",
    )
    group.add_argument(
        "--snapshot_best",
        nargs="?",
        const="",
        metavar="METRIC",
        help="also keep the model of the best epoch, as PATH.best.keras; METRIC is a column of "
        "history.csv (default: val_acc, with --cls_weight val_prob_acc)",
    )
    group.add_argument(
        "--initial_epoch",
        type=number(int, least=0),
        metavar="N",
        help="begin the schedule and the data order after N epochs; with an existing snapshot it "
        "must agree and can be left out",
    )
    group.add_argument(
        "--snapshot_allow",
        nargs="+",
        choices=snapshots.CHANGEABLE,
        default=[],
        metavar="FLAG",
        help="resume although these were changed, as in --snapshot_allow sgdr_max_lr; any of "
        f"{', '.join(snapshots.CHANGEABLE)}",
    )


def _add_output_arguments(parser):
    group = parser.add_argument_group("output")
    group.add_argument(
        "--log_dir",
        metavar="DIR",
        help="history.csv, result.json and TensorBoard events; must not hold another run's",
    )
    group.add_argument(
        "--model_dump", metavar="M.keras", help="the trained model, complete in itself"
    )
    group.add_argument("--weight_dump", metavar="W.weights.h5", help="its weights alone")
    group.add_argument(
        "--feature_dump",
        metavar="F.npz",
        help="features, labels and class names of the test images",
    )
    group.add_argument(
        "--no_progress", action="store_true", help="one line per epoch on a terminal too"
    )
    add_top_k_argument(group)
