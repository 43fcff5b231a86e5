"""The parts of a report that runs make without their images: verdict, curves, how to repeat it."""

import json
from collections.abc import Sequence
from html import escape

import numpy as np

from experiments.statistics import summarize, t_interval
from reports import charts, results
from reports.elements import details, facts, note, paragraph, percent, section
from reports.material import Material
from training.reporting.progress import duration

_SELECTED = {
    "validation": "validation images, which were kept out of the training: by them epochs were "
    "judged; the test images were used once, at the end",
    "test": "the test images, as in the published protocol: by them epochs were judged",
}


def verdict(material: Material) -> str:
    """How good the runs are, and what that is worth."""
    result = material.run.result
    test = result.get("test", {})
    accuracies = [run.score("acc") for run in material.runs]
    averages = [run.score("average_acc") for run in material.runs]
    parts = [_headline(accuracies, test)]
    pairs = [("mean over the classes (average_acc)", _mean(averages))]
    classes = result.get("dataset", {}).get("classes")
    if classes:
        pairs.append(("by chance", f"{percent(1 / classes)} (1 of {classes} classes)"))
    if material.scores is not None:
        counts = np.bincount(material.scores.labels)
        pairs.append(("always the most frequent class", percent(counts.max() / counts.sum())))
    best = result.get("best", {})
    if material.run.accuracy_column in best:
        said = f"{percent(best[material.run.accuracy_column])} at epoch {best['epoch']:.0f}"
        pairs.append((f"best epoch on the {result.get('selected_on', 'test')} images", said))
    selected = material.run.selected_on
    pairs.append(("selected on", _SELECTED.get(selected, str(selected))))
    pairs += _scored(material)
    counts = result.get("dataset", {})
    sizes = [f"{counts[key]:,} {word}" for key, word in _SIZES.items() if counts.get(key)]
    pairs.append(("data", f"{material.args.dataset}: {', '.join(sizes)}"))
    trainable = result.get("parameters", {}).get("trainable", 0)
    pairs.append(("network", f"{material.args.architecture}, {trainable:,} trainable parameters"))
    seconds = [run.result["wall_seconds"] for run in material.runs if "wall_seconds" in run.result]
    if seconds:
        each = "" if len(seconds) == 1 else " each, on average"
        took = f"{duration(np.mean(seconds))}{each}, on {result.get('device', 'unknown')}"
        pairs.append(("training", took))
    parts.append(facts(pairs))
    if len(material.runs) > 1:
        parts.append(_repetitions(material, accuracies))
    parts += [paragraph(text) for text in material.missing]
    return section("verdict", "How good is it?", *parts)


_SIZES = {
    "train_images": "training images", "validation_images": "validation images",
    "test_images": "test images", "classes": "classes",
}  # fmt: skip


def _scored(material: Material) -> list[tuple[str, str]]:
    """Of which weights and views the scores are, and what others reach."""
    args = material.args
    said = "averages of the weights over the steps (--ema)" if args.ema else "the last weights"
    if args.tta:
        said += ", as means over each image and its mirror image (--tta)"
    pairs = [("scores of", said)]
    words = ("the last weights", "the image alone")
    for key, word in zip(results.OTHERS, words, strict=True):
        tests = [run.result.get(key, {}).get("test_acc") for run in material.runs]
        if None not in tests:
            pairs.append((f"with {word}", _mean(tests)))
    return pairs


def _headline(accuracies: Sequence[float], test: dict) -> str:
    if len(accuracies) == 1:
        low, high = test.get("test_acc_interval", (None, None))
        count = f"{test['n']:,}" if "n" in test else "the"
        said = f"of {count} test images are classified rightly"
        if low is not None:
            said += f" (95 % interval {percent(low)} to {percent(high)})"
        value = accuracies[0]
    else:
        found = summarize(accuracies)
        value = found.mean
        said = (
            f"of the test images are classified rightly, on average over {found.n} runs: standard "
            f"deviation {100 * found.sd:.1f} points, 95 % interval of the mean "
            f"{percent(max(found.low, 0.0))} to {percent(min(found.high, 1.0))}"
        )
    return f'<p><span class="headline">{percent(value)}</span>{escape(said)}.</p>'


def _mean(values: Sequence[float]) -> str:
    found = summarize(values)
    return percent(found.mean) + (f" ± {100 * found.sd:.1f}" if found.sd is not None else "")


def _repetitions(material: Material, accuracies: Sequence[float]) -> str:
    rows = [
        f"{run.directory.name} (seed {run.result.get('seed')}): {percent(accuracy)}"
        for run, accuracy in zip(material.runs, accuracies, strict=True)
    ]
    why = "the first seed"
    if material.run.selected_on == "validation":
        why = "the best on its validation images"
    text = f"Details below are of {material.run.directory.name}, {why}."
    return details(f"All {len(rows)} runs", "".join(map(paragraph, rows))) + note(text)


def curves(material: Material) -> str:
    """Loss, accuracy and learning rate by epoch; of several runs the means, with bands."""
    column = material.run.accuracy_column
    images = "validation" if material.args.validation_fraction or material.args.fold else "test"
    loss = [("training", "loss"), (images, "val_loss")]
    accuracy = [("training, augmented", column.removeprefix("val_")), (images, column)]
    series = [[_line(material, *pair) for pair in pairs] for pairs in (loss, accuracy)]
    rate = [_line(material, "learning rate", "learning_rate")]
    drawn = [
        charts.line_chart(series[0], "Loss, with regularisation", "epoch", "loss", log=True),
        charts.line_chart(series[1], "Accuracy", "epoch", "accuracy", from_zero=True),
        charts.line_chart(rate, "Learning rate", "epoch", "rate", from_zero=True),
    ]
    if not any(drawn):
        return ""
    said = ""
    if len(material.runs) > 1:
        said = note(
            f"Lines are means over {len(material.runs)} runs, bands the 95 % intervals of the "
            "means (Student's t)."
        )
    return section(
        "curves", "How did it learn?", f'<div class="charts">{"".join(drawn)}</div>', said
    )


def _line(material: Material, name: str, column: str) -> charts.Series:
    """A column of the histories, over the epochs that all runs have."""
    epochs = min(map(len, material.histories))
    rows = [history[:epochs] for history in material.histories]
    values = np.array([[row.get(column, np.nan) for row in run] for run in rows], float)
    x = np.array([row["epoch"] for row in rows[0]])
    known = np.isfinite(values).all(axis=0)
    x, values = x[known], values[:, known]
    if len(values) == 1:
        return charts.Series(name, x, values[0])
    band = t_interval(values.T)
    if column.endswith("acc"):
        band = np.clip(band, 0, 1)
    return charts.Series(name, x, values.mean(axis=0), *band)


# The numbers of many classes are long, and in the page once.
_SHOWN_BY_SCRIPT = '<pre data-of="data">They are in this page\'s source, at its end.</pre>'


def repeating(material: Material, numbers: dict) -> str:
    """The command, versions and all numbers, for people and for programs.

    Args:
        material: What is known of the runs.
        numbers: What the report found, as JSON.
    """
    result = material.run.result
    versions = " ".join(f"{key} {value}" for key, value in result.get("versions", {}).items())
    pairs = [
        ("version of the code", str(result.get("code_version", "unknown"))),
        ("seeds", ", ".join(str(run.result.get("seed")) for run in material.runs)),
        ("started", str(result.get("started", "unknown"))),
        ("device", str(result.get("device", "unknown"))),
        ("versions", versions),
    ]
    content = {
        "runs": [{"directory": run.directory.name, **run.result} for run in material.runs],
        "report": numbers,
    }
    text = json.dumps(content, indent=1, default=str)
    # Within a script nothing is escaped, so that no end of one may be in it.
    safe = text.replace("<", "\\u003c")
    return section(
        "repeat",
        "How can it be repeated?",
        f"<pre>{escape(str(result.get('command', 'unknown')))}</pre>",
        facts(pairs),
        details("All arguments and numbers as JSON", _SHOWN_BY_SCRIPT, "not-printed"),
        f'<script type="application/json" id="data">{safe}</script>',
    )
