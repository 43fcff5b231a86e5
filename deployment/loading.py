"""Models to be used, from files of any of the formats that there are."""

import logging
import os
from collections.abc import Sequence

from scoring import Classifier
from utils import UsageError, UserError

SUFFIXES = (".keras", ".onnx", ".tflite")


def load_model(path: str | os.PathLike) -> Classifier:
    """A model that takes image files.

    Raises:
        UserError: The file cannot be read, holds no image classifier, or does not say how images
            are resized for it.
    """
    if os.path.splitext(path)[1] in SUFFIXES[1:]:
        from deployment.exported import read_exported

        return read_exported(path)
    import models

    model = models.load_model(path)
    try:
        _ = model.view
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return model


def load_models(paths: Sequence[str]) -> list[Classifier]:
    """Models of which the mean of the scores is taken.

    Raises:
        UserError: As `load_model`.
        UsageError: Their scores cannot be averaged.
    """
    models = [load_model(path) for path in paths]
    # It warns that functions are traced several times, as those of several models have to be.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    first = models[0]
    for path, model in zip(paths, models, strict=True):
        for what, facts in {
            "other classes, or another order of them,": lambda m: (m.class_names, m.class_ids),
            "another kind of scores, probabilities or similarities,": (
                lambda m: m.scores_are_probabilities
            ),
        }.items():
            if facts(model) != facts(first):
                raise UsageError(
                    f"{path}: has {what} than {paths[0]}, so that their scores have no "
                    "mean; use one model at a time"
                )
    return models
