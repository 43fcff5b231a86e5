"""The parts of a report that show images: the worst, the doubtful, duplicates, training images."""

import itertools
from collections.abc import Sequence
from html import escape

import numpy as np

import datasets
from reports import findings, pictures
from reports.elements import file_name, name, note, section
from reports.material import Material
from training import augmentation, data

_GRID = 24
_DOUBTED = 12
# A model that is right less often doubts labels for its own mistakes.
_DOUBTS_FROM = 0.5
_LOOKED_AT = 10
_PAIRS = 12
_AUGMENTED = 24


def worst(material: Material, made: pictures.Pictures) -> str:
    """The most wrong and the least certain images, and those whose label is doubted."""
    scores = material.scores
    doubts = scores.hits.mean() >= _DOUBTS_FROM
    doubted = findings.doubted_labels(scores) if doubts else []
    wrong = findings.most_wrong(scores, _GRID)
    others = [i for i in doubted if i not in set(wrong.tolist())][:_DOUBTED]
    unsure = findings.least_certain(scores, _GRID)
    marked = set(doubted)
    measure = "the least probability" if scores.probabilities else "the greatest lack of similarity"
    parts = [
        note(
            "Below an image: its true class; what it was taken for, in red, or, where the model is "
            "right, the next best class; and its file, or its number among the test images. Scores "
            "are in parentheses."
        )
    ]
    if len(wrong):
        parts += [
            f"<h3>The {len(wrong)} most wrong</h3>",
            note(f"Wrong, with {measure} for the true class; the worst first."),
            _grid(material, wrong, made, marked),
        ]
    parts += [
        f"<h3>The {len(unsure)} least certain</h3>",
        note(_apart(scores, unsure)),
        _grid(material, unsure, made, marked),
    ]
    if not doubts:
        parts.append(note("The model is wrong too often for its doubts of labels to be shown."))
    elif len(doubted):
        parts += [
            "<h3>Labels that the model doubts most</h3>",
            note(
                f"For {len(doubted)} test images (marked “label?”) another class than the label's "
                "scores as high as it does, on average, for its own images. Some of these labels "
                "may be wrong; most are hard images, or mistakes of the model: look at them."
                + (" Those that are not shown above:" if len(others) else "")
            ),
            _grid(material, others, made, marked),
        ]
    return section("images", "Which images?", *parts)


def _apart(scores: findings.Scores, chosen: np.ndarray) -> str:
    """How far apart the two best classes of the least certain images score."""
    two = np.sort(scores.values[chosen], axis=1)[:, -2:]
    apart = two[:, 1] - two[:, 0]
    return (
        "Those of which the two best classes score the closest, the closest first: "
        f"{apart[0]:.2g} to {apart[-1]:.2g} apart."
    )


def _grid(material: Material, chosen: Sequence[int], made: pictures.Pictures, marked: set) -> str:
    images = [None] * len(chosen)
    if material.dataset is not None:
        images = pictures.views(material.dataset, material.dataset.test, chosen)
    cards = [
        f'<div class="card">{_image(material, i, pixels, made)}'
        f"{_caption(material.scores, i, i in marked)}</div>"
        for i, pixels in zip(chosen, images, strict=True)
    ]
    return f'<div class="grid-of-images">{"".join(cards)}</div>' if cards else ""


def _image(material: Material, index: int, pixels, made: pictures.Pictures) -> str:
    if pixels is None:
        return ""
    return made.image(pixels, f"test image {material.scores.image_names[index]}")


def _caption(scores: findings.Scores, index: int, doubted: bool) -> str:
    """What an image is, what it is taken for, and its file."""
    row, label = scores.values[index], int(scores.labels[index])
    best = np.argsort(-row, kind="stable")[:2]
    names = scores.class_names
    first = int(best[0])
    is_right = first == label
    text = f"<b>{name(names[label])}</b>"
    if is_right:
        text += f" ({row[label]:.2f})<br>right; next {name(names[best[1]])} ({row[best[1]]:.2f})"
    else:
        own = f" ({row[label]:.2f})" if scores.whole else ""
        other = f'<span class="wrong">{name(names[first])}</span>'
        text += f"{own}<br>taken for {other} ({row[first]:.2f})"
    mark = ' <span class="mark">label?</span>' if doubted else ""
    return f'{text}{mark}<br><span class="file">{file_name(scores.image_names[index])}</span>'


def looked_at(material: Material, made: pictures.Pictures) -> str:
    """Grad-CAM of the most wrong, the least certain and the surest images."""
    if material.model is None or material.dataset is None:
        return ""
    from reports.attention import grad_cam

    scores = material.scores
    right = np.flatnonzero(scores.hits)
    sure = right[np.argsort(-scores.values[right].max(axis=1), kind="stable")][:_LOOKED_AT]
    groups = {
        "Of the most wrong": findings.most_wrong(scores, _LOOKED_AT),
        "Of the least certain": findings.least_certain(scores, _LOOKED_AT),
        "Of the surest that are right": sure,
    }
    chosen = np.concatenate(list(groups.values()))
    images = pictures.views(material.dataset, material.dataset.test, chosen)
    maps = grad_cam(material.model, images, scores.predicted[chosen])
    if min(maps.shape[1:]) < 2:
        text = "The network's last maps have one place for the whole of so small an image."
        return section("attention", "Where did it look?", note(text))
    parts = []
    rows = zip(chosen, images, maps, strict=True)
    for title, group in groups.items():
        cards = []
        for i, pixels, own in itertools.islice(rows, len(group)):
            pair = _image(material, i, pixels, made)
            pair += made.image(pictures.heat_map(pixels, own), "where the network looked")
            caption = _caption(scores, i, False)
            cards.append(f'<div class="card"><div class="pair">{pair}</div>{caption}</div>')
        if cards:
            grid = f'<div class="grid-of-images wide">{"".join(cards)}</div>'
            parts += [f"<h3>{escape(title)}</h3>", grid]
    said = note(
        "Grad-CAM: the brighter, the more a place speaks for the class that was predicted. All is "
        "dark where no place speaks for it more than against it. It shows where evidence comes "
        "from, not what it is."
    )
    return section("attention", "Where did it look?", said, *parts)


def duplicates(material: Material, pairs: Sequence | None, made: pictures.Pictures) -> str:
    """Test images beside the training images that they look like."""
    if not pairs:
        return ""
    dataset, shown = material.dataset, pairs[:_PAIRS]
    test = pictures.views(dataset, dataset.test, [pair[0] for pair in shown])
    train = pictures.views(dataset, dataset.train, [pair[1] for pair in shown])
    test_names, train_names = map(dataset.image_names, (dataset.test, dataset.train))
    cards = []
    for (i, j), first, second in zip(shown, test, train, strict=True):
        pair = made.image(first, "test image") + made.image(second, "training image")
        classes = [name(dataset.class_names[s.labels[k]]) for s, k in
                   ((dataset.test, i), (dataset.train, j))]  # fmt: skip
        other = "" if classes[0] == classes[1] else f' <span class="wrong">≠ {classes[1]}</span>'
        files = f"{file_name(test_names[i])} | {file_name(train_names[j])}"
        cards.append(
            f'<div class="card"><div class="pair">{pair}</div><b>{classes[0]}</b>{other}<br>'
            f'<span class="file">{files}</span></div>'
        )
    grid = f'<div class="grid-of-images wide">{"".join(cards)}</div>'
    said = note(
        f"{len(pairs)} test images (left) look like a training image (right), by a perceptual "
        f"hash and the difference of small views; the {len(shown)} closest are shown. The search "
        "misses crops and turned images, and takes some different objects of one kind for the same."
    )
    return section("duplicates", "Seen in training?", said, grid)


def augmented(material: Material, made: pictures.Pictures) -> str:
    """The first training images as the network saw them."""
    dataset, args = material.trained_on, material.args
    if dataset is None:
        return ""
    batches = dataset.train_batches(
        args.batch_size,
        seed=args.seed,
        mixing=augmentation.mixing(args),
        **{**data.reading_options(args), "queue_size": 1},
    )
    with datasets.reading_errors(batches):
        images, labels = batches[0][:2]
    labels = np.asarray(labels)
    labels = labels if labels.ndim == 1 else labels[:, 0].astype(int)
    cards = [
        f'<div class="card">{made.image(pixels, "training image")}'
        f"{name(dataset.class_names[label])}</div>"
        for pixels, label in zip(images[:_AUGMENTED], labels, strict=False)
    ]
    said = note(
        "The first images of the first epoch, cropped and changed as they were trained on. Wrong "
        "crops, colours or labels show here, and augmentation that hides what matters."
    )
    grid = f'<div class="grid-of-images">{"".join(cards)}</div>'
    return section("augmented", "What was it trained on?", said, grid)
