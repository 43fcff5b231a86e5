"""Snapshots of anything, with the checksum that belongs to it."""

import copy
import json

import numpy as np

from training.resuming import snapshots

_VALUES = (
    None, True, -1, 0, 7, 2**31, 10**400, 1.5, -1e308, float("nan"), float("inf"), "", "x",
    "\ud800", [], [5], ["x"], [[]], {}, {"x": 1}, {"path": "elsewhere"},
)  # fmt: skip
_DTYPES = ("bool", "int64", "uint8", "float16", "float64", ">f4", "complex64", "M8[s]", "S3", "U3")


def places(value):
    """All containers within a JSON value, each with its keys."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if keys:
            yield value, keys
        for key in keys:
            yield from places(value[key])


def mutate(facts, arrays, draw):
    if draw.random() < 0.25:
        name = draw.choice(list(arrays))
        match draw.randrange(4):
            case 0:
                arrays[name] = np.zeros(
                    draw.choice([(), (0,), (2,), (3000,)]), draw.choice(_DTYPES)
                )
            case 1:
                arrays[name] = np.full_like(arrays[name], 1).astype(draw.choice(_DTYPES))
            case 2:
                arrays[draw.choice(["metric.0", "metric.3", "model.1", "x"])] = arrays.pop(name)
            case 3:
                arrays[name] = np.full(arrays[name].shape, draw.choice([np.nan, -np.inf, 1e300]))
        return
    container, keys = draw.choice(list(places(facts)))
    key = draw.choice(keys)
    match draw.randrange(4):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[draw.choice(["path", "model", "x"])] = container[key]
        case _:
            container[key] = draw.choice(_VALUES)


def write_unchecked(path, facts, arrays):
    """Writes a snapshot of anything, with the checksum that belongs to it."""
    text = json.dumps({"format": "small-data snapshot 1", **facts})
    arrays = {**arrays, "header": np.frombuffer(text.encode(), np.uint8)}
    try:
        checksum = snapshots._digest(arrays)
    except ValueError:  # of types that have none
        checksum = "none"
    with open(path, "wb") as file:
        np.savez(file, **arrays, sha256=np.array(checksum))


def facts_and_arrays(snapshot):
    facts = copy.deepcopy(vars(snapshot))
    return facts, facts.pop("arrays")
