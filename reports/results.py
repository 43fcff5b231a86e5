"""Whether a `result.json` is one that a report can be made of."""

from experiments.runs import Run
from utils import UserError

# Further evaluations of the final network, of weights or images in another way.
OTHERS = ("test_last_weights", "test_without_tta")
_NUMBERS = ("batch_size", "val_batch_size", "seed", "split_seed")
_TABLES = ("final", "test", "dataset", "best", "parameters", "versions", "arguments", *OTHERS)


def check(run: Run) -> None:
    """Refuses a `result.json` in which there is something else where numbers should be.

    Raises:
        UserError: It is not one that `learn_classifier.py` wrote.
    """
    result, number = run.result, int | float
    test = result.get("test", {})
    wrong = [key for key in _TABLES if not isinstance(result.get(key, {}), dict)]
    if not wrong:
        interval = test.get("test_acc_interval", [0.0, 1.0])
        numbers = {
            **result.get("dataset", {}),
            **result.get("parameters", {}),
            **result["final"],
            **{"epoch": 0, **result.get("best", {})},
            **{name: run.arguments.get(name, 1) for name in _NUMBERS},
            "n": test.get("n", 0),
            **{key: result.get(key, {}).get("test_acc", 0.0) for key in OTHERS},
            "wall_seconds": result.get("wall_seconds", 0),
        }
        wrong = [key for key, value in numbers.items() if not isinstance(value, number | None)]
        wrong += [name for name in ("acc", "average_acc") if name not in result["final"]]
        if result.get("selected_on", "test") not in ("test", "validation"):
            wrong.append("selected_on")
        texts = ("dataset", "architecture")
        wrong += [name for name in texts if not isinstance(run.arguments.get(name), str)]
        if not isinstance(interval, list) or [type(end) for end in interval] != [float] * 2:
            wrong.append("test_acc_interval")
    if wrong:
        raise UserError(
            f"{run.directory / 'result.json'}: its {wrong[0]} is nothing that learn_classifier.py "
            "writes; give another directory"
        )
