"""The parts of a report about classes and probabilities: recall, confusions, calibration."""

import io
from base64 import b64encode
from html import escape

import numpy as np
from PIL import Image

from reports import charts, findings, pictures
from reports.elements import (
    attribute,
    details,
    facts,
    name,
    note,
    paragraph,
    percent,
    section,
    table,
)
from reports.material import Material

# Rows of the table; of more classes those of the lowest recall.
_MOST_CLASSES = 1000
_MATRIX_OPEN = 30
_MOST_CONFUSIONS = 18
_THUMBNAILS = 4
_FITTING = (
    "report.py --temperature fits it on the run's validation images, which --validation_fraction "
    "holds out."
)


def classes(material: Material, rows: list[findings.ClassRow]) -> str:
    """How many images of each class are recognised."""
    names = material.scores.class_names
    rows = sorted(rows, key=lambda row: (row.recall is None, row.recall, row.index))
    train = None
    if material.dataset is not None:
        train = np.bincount(material.dataset.train.labels, minlength=len(names))
    titles = ["class", *(["trained on"] if train is not None else []), "tested on", "recall"]
    titles += ["recognised, 95 % interval", "precision", "most often taken for"]
    cells = []
    for row in rows[:_MOST_CLASSES]:
        own = [(name(names[row.index]), names[row.index])]
        if train is not None:
            own.append((str(train[row.index]), train[row.index]))
        own.append((str(row.images), row.images))
        own.append((percent(row.recall), "" if row.recall is None else row.recall))
        bar = interval = ""
        if row.recall is not None:
            bar = charts.interval_bar(row.recall, row.low, row.high)
            interval = f" {100 * row.low:.0f}–{100 * row.high:.0f} %"
        own.append((bar + interval, "" if row.low is None else row.low))
        own.append((percent(row.precision), "" if row.precision is None else row.precision))
        other = ("", "")
        if row.mistaken_for:
            index, count = row.mistaken_for
            other = (f"{name(names[index])} ({count})", names[index])
        cells.append([*own, other])
    more = ""
    if len(rows) > _MOST_CLASSES:
        more = note(f"These are the {_MOST_CLASSES} classes of the lowest recall of {len(rows)}.")
    said = note(
        "Recall is the share of a class's test images that is recognised; precision is the share "
        "that is right of all images taken for the class. Intervals are Wilson's: with few images "
        "they are wide. Press a column's title to sort by it."
    )
    return section("classes", "Which classes?", said, more, table(titles, cells, "sortable"))


def confusions(material: Material, matrix: np.ndarray, made: pictures.Pictures) -> str:
    """Which classes are taken for which, with images, and how far off that is."""
    scores = material.scores
    names = scores.class_names
    found = findings.confusions(matrix, _MOST_CONFUSIONS)
    if not found:
        return section("confusions", "What is confused?", paragraph("Nothing: all are right."))
    predicted = scores.predicted
    shown = []
    for true, other, _ in found:
        rows = np.flatnonzero((scores.labels == true) & (predicted == other))
        shown.append(rows[np.argsort(-scores.values[rows, other], kind="stable")][:_THUMBNAILS])
    images = iter(())
    if material.dataset is not None:
        split = material.dataset.test
        images = iter(pictures.views(material.dataset, split, np.concatenate(shown)))
    parts = []
    for (true, other, count), rows in zip(found, shown, strict=True):
        of = int(matrix[true].sum())
        text = f"<b>{name(names[true])}</b> taken for <b>{name(names[other])}</b>: {count} of {of}"
        text += _apart(material, true, other)
        strip = "".join(
            made.image(pixels, scores.image_names[row])
            for row, pixels in zip(rows, images, strict=False)
        )
        parts.append(f'<div>{text}<div class="strip">{strip}</div></div>')
    wrong = int((~scores.hits).sum())
    covered = sum(count for *_, count in found)
    said = note(
        f"{covered} of {wrong} mistakes are among the {len(found)} most frequent confusions here, "
        f"each with up to {_THUMBNAILS} images of the first class that score highest as the other."
    )
    body = f'<div class="confusions">{"".join(parts)}</div>'
    return section(
        "confusions", "What is confused?", said, _severity(material), body, _matrix(matrix, names)
    )


def _apart(material: Material, true: int, other: int) -> str:
    if material.hierarchy is None:
        return ""
    dissimilarity, height = material.hierarchy
    levels = round(float(dissimilarity[true, other] * height))
    return f' <span class="file">({levels} of {height} levels apart)</span>'


def _severity(material: Material) -> str:
    """How far off mistakes are: levels of the hierarchy up to a common class."""
    if material.hierarchy is None:
        return ""
    from embeddings.evaluation import hierarchical_scores

    scores, (dissimilarity, height) = material.scores, material.hierarchy
    found = hierarchical_scores(scores.values, scores.labels, dissimilarity, height)
    guess = float(dissimilarity[~np.eye(len(dissimilarity), dtype=bool)].mean() * height)
    return facts(
        [
            ("mistakes are", f"{found['mistake_severity']:.2f} of {height} levels apart"),
            ("two classes by chance", f"{guess:.2f} of {height} levels apart"),
            ("hierarchical accuracy", percent(found["hierarchical_accuracy"])),
        ]
    )


def _matrix(matrix: np.ndarray, names) -> str:
    """The confusion matrix: a table of few classes, of many a picture that is folded away."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    note_text = note("Rows are the true classes, columns the predictions, in the same order.")
    if len(names) > _MATRIX_OPEN:
        return details(
            f"The whole matrix of {len(names)} classes", note_text + _matrix_picture(shares)
        )
    head = "".join(f"<th>{name(one)}</th>" for one in names)
    body = []
    for i, counts in enumerate(matrix):
        cells = []
        for j, count in enumerate(counts):
            colour = "var(--c2)" if i == j else "var(--c1)"
            strength = round(70 * float(shares[i, j]))
            style = f' style="background:color-mix(in srgb,{colour} {strength}%,transparent)"'
            title = attribute(f"{names[i]} taken for {names[j]}: {count}")
            cells.append(f'<td title="{title}"{style if count else ""}>{count or ""}</td>')
        body.append(f"<tr><th>{name(names[i])}</th>{''.join(cells)}</tr>")
    return (
        f"<h3>The whole matrix</h3>{note_text}"
        f'<div class="scroll"><table class="matrix"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _matrix_picture(shares: np.ndarray) -> str:
    """A pixel per pair of classes: the brighter, the more of a row."""
    levels = np.rint(255 * np.sqrt(shares)).astype(np.uint8)
    palette = np.linspace([255, 255, 255], [20, 60, 130], 256)
    image = Image.fromarray(levels)
    image.putpalette(palette.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    address = f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
    return f'<img class="matrix" src="{address}" alt="confusion matrix">'


def calibration(material: Material) -> tuple[str, dict]:
    """Whether confidences can be believed; the section and its numbers."""
    scores, model = material.scores, material.model
    title = "Can its confidence be believed?"
    temperature = None if model is None else model.temperature
    if not scores.probabilities:
        text = "The scores are similarities and no probabilities, into which a temperature turns "
        return section("calibration", title, paragraph(f"{text}them. {_FITTING}")), {}
    kinds = []
    calibrated = f"with temperature {temperature:.3g}" if temperature is not None else ""
    if scores.from_similarities:
        kinds.append((calibrated, scores.values))
    else:
        kinds.append(("as trained", scores.values))
        if calibrated and scores.whole:
            kinds.append((calibrated, model.probabilities(scores.values)))
    numbers = {"temperature": temperature}
    drawn, rows, parts = [], [], 0
    for kind, probabilities in kinds:
        found, values = _measured(probabilities, scores)
        parts = len(found.images)
        numbers[kind] = values
        drawn.append(charts.reliability_chart(found, kind))
        rows.append([(escape(kind), kind), *((f"{v:.3f}", v) for v in values.values())])
    titles = ["probabilities", *numbers[kinds[0][0]]]
    said = note(
        f"Each point is one of {parts} equal parts of the test images, by confidence. On the "
        "dashed line the model is "
        "right as often as it says. The grey bars hold 90 % of what a model that is always right "
        "about its confidence would show on so few images: a point within its bar says nothing "
        "against the model, one outside is drawn in the second colour. Below the line the model "
        "is too confident."
    )
    explained = note(
        "The calibration error is the mean distance of the points to the line; a perfect model "
        "stays below the value beside it in 95 % of test sets like this one. The negative "
        "log-likelihood and the Brier score (0 to 2) also count how many are right: less is better."
    )
    charts_drawn = f'<div class="charts">{"".join(drawn)}</div>'
    fitted = paragraph(material.temperature) if material.temperature else ""
    if temperature is None and scores.whole:
        fitted = note(f"The model has no temperature. {_FITTING}")
    return (
        section("calibration", title, fitted, said, charts_drawn, table(titles, rows), explained),
        numbers,
    )


def _measured(probabilities: np.ndarray, scores: findings.Scores):
    from models import calibration

    found = calibration.reliability(probabilities.max(axis=1), scores.hits)
    values = {"calibration error": found.error, "of perfect models": found.error_if_perfect}
    if scores.whole:
        values["negative log-likelihood"] = calibration.negative_log_likelihood(
            probabilities, scores.labels
        )
        values["Brier score"] = calibration.brier_score(probabilities, scores.labels)
    return found, values
