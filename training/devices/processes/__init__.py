"""Several processes that train one network, on one machine or on many; on JAX only.

Every process runs the whole program on its share of each batch. What is computed goes between them
through `jax.distributed`; left to itself that would notice a killed process after minutes, and end
the others with a trace of C++. So they have connections of their own:

- **Meeting** (`meeting`). Process 0 listens at `--coordinator`; every other process connects, says
  who it is and with which flags, and is welcomed or, like all, refused with the reason.
- **Messages** go over these connections only, between process 0 and each other one, as JSON objects
  in lines: bytes that process 0 shares (`size`), signs of life (`alive`), and the following.
- **Failing** (`group`). Who fails tells why (`failed`), and process 0 passes it on; who is
  gone or silent is noticed by the other end. Threads listen, as a process that computes with one
  that is gone waits for ever, and has to be ended from beside.
- **Stopping** (`stopping`). A signal may come when the processes are at different steps: process 0
  (told by `stop`) lets all `wait` and say how many steps they have `passed`; all then end at the
  first that none has passed (`stop_at`).
- **Finishing**. Each says that it is `done`, and leaves when process 0 says that all are
  (`all_done`); process 0 goes last.
- **Sharing** (`sharing`). The snapshot, which only process 0 need see, and a check that all found
  the same data.

Nothing here imports Keras or, before `Group.start_jax`, JAX where flags say what to join.
"""

from training.devices.processes.group import Group, together
from training.devices.processes.place import Place, find_place
from training.devices.processes.sharing import as_first, check_same_data, share_snapshot

__all__ = [
    "Group",
    "Place",
    "as_first",
    "check_same_data",
    "find_place",
    "share_snapshot",
    "together",
]
