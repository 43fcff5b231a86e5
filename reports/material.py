"""What a report is made of: runs, their histories, model, images, and the model's scores."""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.runs import REPETITION, Run, differing, find_runs, read_history, read_result
from reports import results
from reports.findings import Scores
from training import data
from training.flags import arguments
from utils import UsageError, UserError

# What a run may have said differently without being another experiment.
_FREE = {flag.dest for flag in arguments.FLAGS if flag.on_resume == "free"}


@dataclass
class Material:
    """All that is known of a run and of its repetitions with other seeds.

    Attributes:
        runs: The runs; the first is the one of which details are shown.
        histories: Their rows of `history.csv`.
        args: The resolved arguments of the first.
        model: Its model, or `None` if that is not at hand.
        dataset: The images, or `None`; of the size at which the network is tested and used.
        trained_on: The images as most epochs had them; `dataset`, or of another size.
        scores: What the model says of the test images, or `None`.
        hierarchy: `dissimilarity` of the classes and the `height` of their hierarchy, or `None`.
        missing: What is not at hand, and why, in sentences.
        temperature: What was fitted just now, in words.
        thorough: Whether what takes long is searched for in large data sets too.
    """

    runs: list[Run]
    histories: list[list[dict[str, float]]]
    args: argparse.Namespace
    model: Any = None
    dataset: Any = None
    trained_on: Any = None
    scores: Scores | None = None
    hierarchy: tuple[np.ndarray, int] | None = None
    missing: list[str] = field(default_factory=list)
    temperature: str = ""
    thorough: bool = True

    def take_images(self, dataset) -> None:
        """Takes the images that a training loaded."""
        self.dataset, self.trained_on = dataset.finish or dataset, dataset

    @property
    def run(self) -> Run:
        """The run of which details are shown."""
        return self.runs[0]


def of_training(args: argparse.Namespace, model, dataset, result) -> Material:
    """What a training has at its end, after it wrote its files.

    Args:
        args: Its resolved arguments.
        model: What it trained; `None` where it must not be asked again.
        dataset: What it was trained on.
        result: The `Evaluation` of the test images.
    """
    directory = Path(args.log_dir)
    run = Run(directory, read_result(directory))
    material = Material([run], [read_history(directory)], args, model, thorough=False)
    material.take_images(dataset)
    material.scores = Scores(
        result.labels,
        result.class_scores,
        dataset.class_names,
        dataset.image_names(dataset.test),
        probabilities=bool(args.cls_weight) or not args.embedding,
    )
    return material


def read_runs(directories: Sequence[str]) -> list[Run]:
    """The runs of a report, the one to show in detail first.

    That is the one of the best validation accuracy, or the first seed's where epochs were judged
    by the test images: to choose by those would flatter the run.

    Raises:
        UsageError: There is none, or they are no repetitions of one another.
        UserError: A result cannot be read.
    """
    runs, unfinished = find_runs(directories)
    if not runs:
        which = f"; {unfinished[0]} is not finished" if unfinished else ""
        raise UsageError(
            f"{' '.join(directories)}: no finished run, which has a result.json, is there{which}; "
            "give the directory of --output or --log_dir"
        )
    different = differing(runs, {*_FREE, *REPETITION})
    if different:
        name, values = next(iter(different.items()))
        raise UsageError(
            f"{runs[0].directory}, …: a report is of runs that differ in their seed alone, but "
            f"these have {name} {' and '.join(map(str, values[:3]))}; give those of one setting "
            "(compare_runs.py compares settings)"
        )

    for run in runs:
        results.check(run)

    def rank(run):
        best = run.result.get("best", {})
        validated = run.selected_on == "validation" and best.get(run.accuracy_column)
        return -(validated or 0.0), str(run.repetition[0]).zfill(12)

    return sorted(runs, key=rank)


def resolved_arguments(run: Run, data_root: str | None) -> argparse.Namespace:
    """The arguments of a run; flags that are newer than the run have their defaults.

    Args:
        run: The run.
        data_root: Where the images are now, if not where they were.
    """
    args = argparse.Namespace(**(arguments.DEFAULTS | run.arguments))
    args.data_root = data_root or args.data_root
    # The images are read once, and epochs are what they were.
    args.cache, args.images_seen = "none", None
    return args


def load_images(material: Material, *, required: bool) -> None:
    """Loads the data set of the run, or says what is missing.

    Args:
        material: What is completed.
        required: Whether a data set that is not there is an error.

    Raises:
        UserError: It is required.
    """
    try:
        data.check_data_arguments(material.args)
        material.take_images(data.load_dataset(material.args))
    except UserError as error:
        if required:
            raise
        material.missing.append(f"The images are not at hand: {error}. --data_root says where.")
    except (TypeError, ValueError, AttributeError) as error:
        path = material.run.directory / "result.json"
        raise UserError(f"{path}: its arguments describe no data set ({error})") from None


def load_model(material: Material, path: str | None) -> str | None:
    """Loads the model of the run, or says what is missing.

    Args:
        material: What is completed.
        path: A file of the user's choice, which is required; `None`: the run's dump.

    Returns:
        The file.

    Raises:
        UserError: The file cannot be read.
    """
    from training.reporting import evaluation

    given = path
    if path is None:
        own = material.run.directory / "model.keras"
        path = str(own) if own.exists() else material.args.model_dump
    if given is None and not (path and Path(path).is_file()):
        material.missing.append(
            "The model is not at hand: the run wrote none, or it is elsewhere. --model says where."
        )
        return None
    material.model = evaluation.load_model(path)
    return path


def score(material: Material) -> None:
    """Has the model classify the test images, or takes what the run wrote down of it.

    Raises:
        UserError: Model and images do not belong together, or an image cannot be read.
    """
    model, dataset, args = material.model, material.dataset, material.args
    if model is None or dataset is None:
        material.scores = _written_scores(material)
        return
    if list(model.class_names) != list(dataset.class_names):
        raise UserError(
            f"the model knows {len(model.class_names)} classes ({model.class_names[0]}, …), the "
            f"data set has others ({dataset.class_names[0]}, …): give the model of this run"
        )
    result = _evaluated(material, dataset, args.tta)
    values = result.class_scores
    from_similarities = not model.gives_probabilities and model.temperature is not None
    if from_similarities:
        values = model.probabilities(values)
    material.scores = Scores(
        result.labels,
        values,
        dataset.class_names,
        dataset.image_names(dataset.test),
        probabilities=model.gives_probabilities or from_similarities,
        from_similarities=from_similarities,
    )


def _evaluated(material: Material, dataset, tta: str | None):
    import datasets
    from training.reporting import evaluation

    reading = data.reading_options(material.args)
    batches = dataset.test_batches(material.args.val_batch_size, **reading)
    with datasets.reading_errors(batches):
        return evaluation.evaluate(material.model, batches, dataset.test.labels, tta=tta)


def fit_temperature(material: Material, path: str) -> None:
    """Fits the temperature of the model on the run's validation images, and writes it to the dump.

    Args:
        material: With model and images.
        path: The dump.

    Raises:
        UserError: The run held no images out, or so few that a temperature means nothing.
    """
    from dataclasses import replace

    import models
    from models import calibration

    model, dataset = material.model, material.dataset
    if dataset.validation is None:
        raise UserError(
            f"--temperature: {material.run.directory} held no validation images out, and a "
            "temperature of the training or the test images misleads; train with "
            "--validation_fraction 0.2"
        )
    result = _evaluated(material, replace(dataset, test=dataset.validation), None)
    logits = calibration.logits(result.class_scores, probabilities=model.gives_probabilities)
    try:
        model.temperature = calibration.fit_temperature(logits, result.labels)
    except UserError as error:
        raise UserError(f"--temperature: {error}") from None
    models.save_model(model, path)
    material.temperature = (
        f"The temperature {model.temperature:.3f} was fitted on {len(result.labels)} validation "
        "images and is now in the model's file."
    )


def _written_scores(material: Material) -> Scores | None:
    """What `predictions.csv` says: the scores of the best five classes of each image."""
    path = material.run.directory / "predictions.csv"
    known = material.model or material.dataset
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file, strict=True))
        if known is None:
            names = sorted({row[key] for row in rows for key in ("true", "predicted")})
            material.missing.append("Classes are those that predictions.csv names.")
        else:
            names = list(known.class_names)
        index = {name: i for i, name in enumerate(names)}
        best = [("predicted", "score"), *((f"class_{i}", f"score_{i}") for i in range(2, 6))]
        values = np.full((len(rows), len(names)), -np.inf)
        for i, row in enumerate(rows):
            for name, number in best:
                if row.get(name) in index:
                    values[i, index[row[name]]] = float(row[number])
        labels = np.array([index[row["true"]] for row in rows], np.int64)
    except FileNotFoundError:
        return None
    except (KeyError, ValueError, TypeError, csv.Error):
        raise UserError(f"{path}: is no predictions.csv of learn_classifier.py") from None
    if not len(labels):
        return None
    values[np.isneginf(values)] = min(0.0, values[np.isfinite(values)].min())
    probabilities = bool(material.args.cls_weight) or not material.args.embedding
    images = [row["path"] for row in rows]
    return Scores(labels, values, names, images, probabilities, whole=False)


def add_hierarchy(material: Material, path: str, **form) -> None:
    """Reads a class hierarchy, by which confusions are more or less far off.

    Args:
        material: With scores of a model or of images at hand, which know the classes' ids.
        path: The file.
        **form: How it is to be read (`embeddings.hierarchy_files.read_hierarchy`).

    Raises:
        UserError: It cannot be read, or lacks classes.
    """
    from embeddings.hierarchy_files import read_hierarchy

    known = material.dataset or material.model
    if known is None or material.scores is None:
        raise UserError(
            f"--hierarchy {path}: needs the run's model or images, for the classes' ids"
        )
    hierarchy = read_hierarchy(path, **form)
    ids = [str(i) for i in known.class_ids] if form["str_ids"] else list(known.class_ids)
    try:
        material.hierarchy = hierarchy.dissimilarity(ids), hierarchy.height
    except UserError as error:
        raise UserError(f"--hierarchy {path}: {error}") from None
