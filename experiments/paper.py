"""The paper's experiments: which trainings its tables and figures consist of, and its numbers.

Björn Barz and Joachim Denzler, Deep Learning on Small Datasets without Pre-Training using Cosine
Loss, WACV 2020, arXiv 1901.09054.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments.space import PAPER_GRID

# The learning rates of the paper's search.
GRID = PAPER_GRID[2:]

# Classes, training and test images, and images per class of table 1.
TABLE_1 = {
    "CUB": (200, 5994, 5794, "29-30"),
    "NAB-large": (555, 23929, 24633, "4-60"),
    "Cars": (196, 8144, 8041, "24-68"),
    "Flowers": (102, 2040, 6149, "20"),
    "MIT67Scenes": (67, 5360, 1340, "77-83"),
    "CIFAR-100": (100, 50000, 10000, "500"),
}
DATASETS = tuple(TABLE_1)

_ONE_HOT = ("--embedding", "onehot")
_BOTH = ("--cls_weight", "0.1")
# How each loss is asked for; a semantic embedding is added by the cell.
LOSSES = {
    "cross_entropy": ("cross entropy", ()),
    "label_smoothing": ("cross entropy + label smoothing", ("--label_smoothing", "0.1")),
    "cosine": ("cosine", _ONE_HOT),
    "cosine_cross_entropy": ("cosine + cross entropy", (*_ONE_HOT, *_BOTH)),
    "cosine_semantic": ("cosine (semantic)", ()),
    "cosine_cross_entropy_semantic": ("cosine + cross entropy (semantic)", _BOTH),
}
# In the order of `DATASETS`; accuracy in percent.
_TABLE_2 = {
    "cross_entropy": (51.9, 59.4, 78.2, 67.3, 44.3, 77.0),
    "label_smoothing": (55.9, 68.3, 78.1, 66.8, 38.7, 77.5),
    "cosine": (67.6, 71.7, 84.3, 71.1, 51.5, 75.3),
    "cosine_cross_entropy": (68.0, 71.9, 85.0, 70.6, 52.7, 76.4),
    "cosine_semantic": (59.6, 72.1, None, None, None, 74.6),
    "cosine_cross_entropy_semantic": (70.4, 73.8, None, None, None, 76.7),
}
# The best `--sgdr_max_lr`. For semantic embeddings none is published: those of one-hot ones.
_RATES = {
    "cross_entropy": ("0.05", "0.05", "1", "1", "0.05", "0.1"),
    "label_smoothing": ("0.05", "0.1", "1", "0.1", "1", "0.1"),
    "cosine": ("0.5", "0.5", "1", "0.5", "2.5", "0.05"),
    "cosine_cross_entropy": ("0.5", "0.5", "0.5", "0.5", "2.5", "0.1"),
}
_SEMANTIC = {
    "CUB": "embeddings/taxonomies/cub_balanced.npz",
    "NAB-large": "NAB",  # computed from the data set's own hierarchy.txt
    "CIFAR-100": "embeddings/taxonomies/cifar100.npz",
}
# The taxonomies of CUB: name, levels, class embeddings, accuracy with cosine and with both losses.
TAXONOMIES = (
    ("one-hot", "1", None, 67.6, 68.0),
    ("flat", "4", "embeddings/taxonomies/cub_flat.npz", 66.6, 68.8),
    ("Wikispecies", "4-6", "embeddings/taxonomies/cub_wikispecies.npz", 61.6, 69.9),
    ("deep", "7", "embeddings/taxonomies/cub_balanced.npz", 59.9, 70.4),
)
# Training images per class of figure 3.
SIZES = {"CUB": (1, 5, 10, 15, 20, 25, 30), "CIFAR-100": (10, 25, 50, 100, 150, 200, 250)}
SMALL_SIZES = (2, 5, 10, 20, 50)
_FIGURE_LOSSES = ("cross_entropy", "cosine", "cosine_cross_entropy")


@dataclass(frozen=True)
class Cell:
    """One number of a table, or one point of a figure.

    Attributes:
        row: Its row in the table: the loss, or the taxonomy.
        column: Its column: the data set, the loss or the images per class.
        dataset: As `--dataset` names it, without `-subN`.
        loss: A key of `LOSSES`.
        size: Training images per class, or `None` for all.
        argv: Arguments of its trainings, without data root, learning rate and seed.
        rate: The published best learning rate, or of the nearest published experiment.
        published: Accuracy in percent, where the paper states it.
    """

    row: str
    column: str
    dataset: str
    loss: str
    argv: tuple[str, ...]
    rate: str | None
    size: int | None = None
    published: float | None = None
    name: str = field(default="", compare=False)


def _network(dataset: str) -> tuple[str, ...]:
    if dataset == "CIFAR-100":
        return ("--architecture", "resnet-110-wfc", "--batch_size", "100")
    # Four GPUs of 24 images each, which one GPU does in four groups.
    return ("--architecture", "resnet-50", "--batch_size", "96", "--bn_groups", "4")


def _cell(row, column, dataset, loss, *, embedding=None, size=None, published=None) -> Cell:
    name = dataset if size is None else f"{dataset}-sub{size}"
    argv = ("--dataset", name, *_network(dataset), *LOSSES[loss][1])
    stem = f"{name}/{loss}"
    if embedding:
        argv += ("--embedding", embedding)
        stem += f"_{embedding.rpartition('/')[2].removesuffix('.npz')}"
    rate = _RATES[loss.removesuffix("_semantic")][DATASETS.index(dataset)]
    return Cell(row, column, dataset, loss, argv, rate, size, published, stem)


def table_2() -> list[Cell]:
    """The cells of table 2 that need no pre-trained weights."""
    cells = []
    for loss, numbers in _TABLE_2.items():
        for dataset, published in zip(DATASETS, numbers, strict=True):
            if published is not None:
                semantic = _SEMANTIC[dataset] if loss.endswith("semantic") else None
                row = LOSSES[loss][0]
                cells.append(
                    _cell(row, dataset, dataset, loss, embedding=semantic, published=published)
                )
    return cells


def table_3() -> list[Cell]:
    """The cells of table 3: CUB with embeddings of one-hot vectors and of three taxonomies."""
    cells = []
    for name, levels, embedding, *published in TAXONOMIES:
        for loss, number in zip(("cosine", "cosine_cross_entropy"), published, strict=True):
            key = f"{loss}_semantic" if embedding else loss
            row = f"{name} ({levels})"
            title = LOSSES[loss][0]
            cells.append(_cell(row, title, "CUB", key, embedding=embedding, published=number))
    return cells


def figure_3() -> list[Cell]:
    """The points of figure 3: CUB and CIFAR-100 with fewer training images per class."""
    return [
        _cell(LOSSES[loss][0], f"{dataset} {size}", dataset, loss, size=size)
        for dataset, sizes in SIZES.items()
        for loss in _FIGURE_LOSSES
        for size in sizes
    ]


def figure_3_small() -> list[Cell]:
    """The same question on handwritten digits, for two CPU cores and an hour."""
    return [
        Cell(
            LOSSES[loss][0],
            f"digits {size}",
            "digits",
            loss,
            (
                *("--dataset", f"digits-sub{size}", "--architecture", "resnet-32-fc"),
                *("--batch_size", "50", "--epochs", "24", "--sgdr_base_len", "24"),
                *LOSSES[loss][1],
            ),
            None,
            size,
            name=f"digits-sub{size}/{loss}",
        )
        for size in SMALL_SIZES
        for loss in _FIGURE_LOSSES
    ]


@dataclass(frozen=True)
class Protocol:
    """How the trainings of a cell are chosen and judged.

    Attributes:
        rates: The learning rates to choose from; empty: the published one.
        seeds: Trainings of each cell with the chosen rate.
        validation: The share of the training images that choose the rate; `None`: the best epoch
            on the test images chooses it and is the score, as published.
        extra: Further arguments of all trainings.
    """

    rates: tuple[str, ...]
    seeds: int
    validation: str | None
    extra: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What was selected on what."""
        rate = "the published learning rate"
        if self.rates:
            on = "the validation images" if self.validation else "the test images"
            rate = f"the learning rate selected on {on}, of {', '.join(self.rates)}"
        if self.validation:
            return f"{rate}; score: last epoch, on test images that selected nothing"
        return f"{rate}; score: best epoch, selected on the test images (the paper's protocol)"


def choose(cells: Sequence[Cell], only: Sequence[str], losses: Sequence[str]) -> list[Cell]:
    """The cells of some data sets and losses; all of what is not restricted."""
    return [
        cell
        for cell in cells
        if (not only or cell.dataset in only)
        and (not losses or cell.loss in losses or cell.loss.removesuffix("_semantic") in losses)
    ]
