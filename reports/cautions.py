"""What should make one careful with a run's numbers."""

from collections.abc import Sequence

import numpy as np

from experiments import sweep_plan
from reports.material import Material
from utils import UserError

# Fewer test images leave an interval of 7 points and more on both sides.
_FEW_IMAGES = 200
_FEW_PER_CLASS = 5
# Points of accuracy between training and judged images that say the training is learnt by heart.
_GAP = 0.3
_LAST = 5
# The share of the test images that one class gets from a network that has not learnt.
_ONE_CLASS = 0.9


def cautions(material: Material, duplicates: Sequence | None) -> list[str]:
    """One text for each caution, the gravest first.

    Args:
        material: What is known of the run.
        duplicates: Pairs of test and training images that look alike; `None` if not looked for.
    """
    little = _few_predicted(material)
    found = [
        *_other_model(material),
        *little,
        *_selection(material),
        *_duplicated(material, duplicates),
        *_test_set(material),
        *_learning(material, overfit=not little),
        *_edges(material),
    ]
    skipped = material.run.result.get("dataset", {}).get("skipped_images")
    if skipped:
        found.append(f"{skipped} images of the data set could not be read and were left out.")
    return found


def _other_model(material: Material) -> list[str]:
    if material.scores is None:
        return []
    hits, said = material.scores.hits, material.run.score("acc")
    # Rounding may change an image or two on another device.
    if abs(hits.mean() - said) * len(hits) < 3:
        return []
    return [
        f"The model is right about {100 * hits.mean():.1f} % of the test images, and not "
        f"{100 * said:.1f} % as at the end of the run: it is another model, or the images changed. "
        "Classes and images below are of this model."
    ]


def _few_predicted(material: Material) -> list[str]:
    """A network that names hardly any classes, whatever it sees."""
    scores = material.scores
    if scores is None:
        return []
    counts = np.bincount(scores.predicted, minlength=len(scores.class_names))
    labels = np.bincount(scores.labels, minlength=len(counts))
    most, images, named = int(counts.argmax()), len(scores.labels), int((counts > 0).sum())
    known = int((labels > 0).sum())
    if counts[most] >= _ONE_CLASS * images and labels[most] < counts[most] / 2:
        share = "All" if named == 1 else f"{100 * counts[most] / images:.0f} % of the"
        said = f"{share} test images are taken for one class, {scores.class_names[most]}"
    elif images >= _FEW_PER_CLASS * known and named < known / 2:
        said = f"Only {named} of {known} classes are ever predicted"
    else:
        return []
    return [
        f"{said}: the network has learnt little yet. Most often the training was too short (few "
        "images need many --epochs), or its learning rate too high. If the training loss is low "
        "all the same, the test images differ from the training images, or labels are wrong."
    ]


def _selection(material: Material) -> list[str]:
    if material.run.selected_on == "validation":
        return []
    return [
        "Epochs were judged by the test images, as in the published protocol. If settings or an "
        "epoch were chosen by them, the accuracy is too good: --validation_fraction keeps images "
        "apart to choose by."
    ]


def _duplicated(material: Material, duplicates) -> list[str]:
    if not duplicates:
        return []
    text = (
        f"{len(duplicates)} of {len(material.dataset.test):,} test images look nearly like a "
        "training image (shown below): what is learnt by heart counts as recognised."
    )
    others = np.delete(material.scores.hits, [pair[0] for pair in duplicates])
    if len(others):
        text += f" Without them the accuracy is {100 * others.mean():.1f} %."
    return [text]


def _test_set(material: Material) -> list[str]:
    found = []
    test = material.run.result.get("test", {})
    n, interval = test.get("n"), test.get("test_acc_interval")
    classes = material.run.result.get("dataset", {}).get("classes")
    if classes and interval and interval[0] <= 1 / classes:
        found.append("The accuracy may well be that of chance: see the interval.")
    if n and n < _FEW_IMAGES:
        found.append(
            f"There are only {n} test images: see the interval before believing a difference."
        )
    if material.scores is not None:
        scores = material.scores
        counts = np.bincount(scores.labels, minlength=len(scores.class_names))
        few = np.flatnonzero(counts < _FEW_PER_CLASS)
        if len(few):
            names = ", ".join(scores.class_names[i] for i in few[:8])
            more = ", …" if len(few) > 8 else ""
            found.append(
                f"{len(few)} of {len(counts)} classes have less than {_FEW_PER_CLASS} test images "
                f"({names}{more}): their recall says little."
            )
    return found


def _column(history, name: str) -> np.ndarray:
    values = np.array([row.get(name, np.nan) for row in history], float)
    return values[np.isfinite(values)]


def _learning(material: Material, *, overfit: bool = True) -> list[str]:
    """What the curves say; of a network that has learnt little no overfit is."""
    history, column = material.histories[0], material.run.accuracy_column
    judged, trained = _column(history, column), _column(history, column.removeprefix("val_"))
    loss = _column(history, "loss")
    found = []
    images = "validation" if material.args.validation_fraction or material.args.fold else "test"
    if len(loss) > 1 and loss[-1] > 1.5 * loss[:-1].min() > 0:
        found.append(
            f"The training loss ends at {loss[-1]:.3g}, but was at {loss[:-1].min():.3g} before: "
            "the run diverges at its end, or ends before its learning rate is low."
        )
    if overfit and len(trained) and len(judged) and trained[-1] - judged[-1] > _GAP:
        found.append(
            f"Overfit: {100 * trained[-1]:.0f} % of the training images, as they were augmented, "
            f"are right at the end, but {100 * judged[-1]:.0f} % of the {images} images. That is "
            "common with few images; more images, stronger augmentation or weight decay may help."
        )
    if len(judged) >= 3 * _LAST:
        means = np.convolve(judged, np.ones(_LAST) / _LAST, "valid")
        if means.max() - means[-1] > 0.02:
            found.append(
                f"The accuracy on {images} images was {100 * means.max():.1f} % and fell to "
                f"{100 * means[-1]:.1f} % (means of {_LAST} evaluations): the last epochs did harm."
            )
    return found


def _edges(material: Material) -> list[str]:
    """What a sweep that the run belongs to says about the ends of its ranges."""
    for directory in list(material.run.directory.resolve().parents)[:3]:
        try:
            plan = sweep_plan.load(directory)
            if plan is None:
                continue
            values = material.run.arguments
            said = [one.edge(values[one.name]) for one in plan.ranges if one.name in values]
            return [f"{text[0].upper()}{text[1:]}." for text in said if text]
        except (UserError, TypeError, ValueError):
            return []
    return []
