"""What process 0 shares with the others: values, the snapshot, and what its data look like."""

import io
import json
import platform
import tempfile
from typing import Any

from training.devices.processes.group import Group
from training.resuming import snapshots
from utils import UserError


def share_snapshot(group: Group, loaded: snapshots.Loaded | None) -> snapshots.Loaded | None:
    """Process 0's snapshot in all processes, which need not see its file.

    Args:
        group: The processes.
        loaded: The snapshot, in process 0; of the others it is not read.
    """
    buffer = io.BytesIO()
    if loaded:
        snapshots.dump(buffer, loaded.snapshot)
    data = group.broadcast(buffer.getbuffer())
    if group.index == 0 or not data:
        return loaded
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(data)
        file.flush()
        return snapshots.Loaded(snapshots.read(file.name), newest_is_good=True)


def as_first(group: Group | None, value: Any) -> Any:
    """Process 0's value in all processes.

    Args:
        group: The processes; `None` for one alone, whose value it is.
        value: A JSON value.
    """
    return json.loads(group.broadcast(json.dumps(value).encode())) if group else value


def check_same_data(group: Group, facts: dict[str, Any]) -> None:
    """Refuses processes that found other images, classes or embeddings than process 0.

    Args:
        group: The processes.
        facts: What has to be the same, by what to call it; JSON values.

    Raises:
        UserError: They differ.
    """
    expected = as_first(group, facts)
    differing = [name for name in facts if facts[name] != expected.get(name)]
    if differing:
        raise UserError(
            f"on this machine ({platform.node()}) another data set is found than process 0 has: "
            f"its {', '.join(differing)} differ"
        )
