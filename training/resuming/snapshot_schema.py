"""What a snapshot may contain: a checksum says that it is as written, not who wrote it."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

PHASES = ALL_LAYERS, NEW_LAYERS = ("all layers", "new layers")

# What a row of the history has besides losses and accuracies.
ROW_FACTS = {"epoch", "learning_rate", "seconds", "images_per_second"}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_number(value: Any) -> bool:
    # False for NaN too, and a comparison takes integers that no float can hold.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _is_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_row(value: Any) -> bool:
    # An epoch without an evaluation has none of its scores.
    return isinstance(value, dict) and all(
        _is_number(score) or (score is None and name.startswith("val_"))
        for name, score in value.items()
    )


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_row(row)
        and row.keys() >= ROW_FACTS
        and row.keys() == value[0].keys()
        and _is_count(row["epoch"])
        and row["epoch"] == value[0]["epoch"] + i
        for i, row in enumerate(value)
    )


# What the callbacks remember, by the names of their classes.
_STATE: dict[str, dict[str, Callable[[Any], bool]]] = {
    "run": {"seconds": _is_positive},
    "EpochReport": {"rows": _are_rows, "seconds_in_epoch": _is_positive},
    "LearningRate": {"plateau_factor": _is_positive},
    "ReduceLROnPlateau": {
        "best": lambda value: value is None or _is_number(value),
        "wait": _is_count,
        "cooldown_counter": _is_count,
    },
    "BestModel": {"best": _is_scores},
}


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"run", "EpochReport", "LearningRate"} <= value.keys() <= _STATE.keys()
        and all(
            isinstance(facts, dict)
            and facts.keys() == _STATE[name].keys()
            and all(is_good(facts[key]) for key, is_good in _STATE[name].items())
            for name, facts in value.items()
        )
    )


def _is_arguments(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("log_dir", 0), str | None)


_HEADER: dict[str, Callable[[Any], bool]] = {
    "arguments": _is_arguments,
    "epoch": _is_count,
    "batch": _is_count,
    "phase": lambda value: value in PHASES,
    "new_layers": _is_words,
    "state": _is_state,
    "data": lambda value: isinstance(value, dict),
}


def check_header(header: dict[str, Any]) -> None:
    """Checks what is stored besides arrays.

    Raises:
        ValueError: Something is missing, there is more, or it is of another type or range.
    """
    if header.keys() != _HEADER.keys():
        raise ValueError("other facts than a training stores")
    for name, is_good in _HEADER.items():
        if not is_good(header[name]):
            raise ValueError(f"its {name} is {str(header[name])[:50]!r}, which no training stores")
    rows = header["state"]["EpochReport"]["rows"]
    if rows and rows[-1]["epoch"] != header["epoch"]:
        raise ValueError("its history is not of the epochs that are done")


def check_numbers(arrays: dict[str, np.ndarray]) -> None:
    """Checks the arrays alone; only a network knows their names and shapes.

    Raises:
        ValueError: An array is not of finite real numbers.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not array.dtype.isnative:
            raise ValueError(f"array {name[:50]} is of type {str(array.dtype)[:50]}")
        if not np.isfinite(array).all():
            raise ValueError(f"array {name[:50]} is not finite")


def check_metrics(arrays: dict[str, np.ndarray], batch: int) -> None:
    """Checks that within an epoch, and there only, there are metrics, all of as many devices.

    Raises:
        ValueError: They are not.
    """
    names = [name for name in arrays if name.startswith("metric.")]
    if set(names) != {f"metric.{i}" for i in range(len(names))} or bool(names) != bool(batch):
        raise ValueError(f"it has other metrics than belong to step {batch}")
    replicas = {arrays[name].shape[:1] for name in names}
    if replicas & {(), (0,)} or len(replicas) > 1:
        raise ValueError("its metrics are of different numbers of devices")
