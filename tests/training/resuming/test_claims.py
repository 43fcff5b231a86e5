"""Two runs at once with the same files, and runs whose directory was moved."""

import os
from argparse import Namespace

import pytest

from training.resuming import claims, snapshots
from utils import UsageError


def run(log_dir=None, snapshot=None):
    return claims.claimed(Namespace(log_dir=log_dir, snapshot=snapshot, output=None))


@pytest.mark.parametrize("flag", ["log_dir", "snapshot"])
def test_the_second_of_two_runs_is_refused(tmp_path, flag):
    path = str(tmp_path / "new" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with run(**{flag: path}):
        for same in path, f"{tmp_path}/link/run", os.path.relpath(path):
            with (
                pytest.raises(UsageError, match="another run writes there now") as caught,
                run(**{flag: same}),
            ):
                pass
            assert f"--{flag} {same}" in str(caught.value)
            assert f"process {os.getpid()}" in str(caught.value)
        with run(**{flag: f"{path}2"}):
            pass
    with run(**{flag: path}):
        pass
    assert not list(tmp_path.rglob("*lock"))
    assert not os.path.exists(path)  # as nothing was written there


def test_a_claim_ends_with_a_process_that_is_killed(tmp_path):
    if (child := os.fork()) == 0:
        with run(str(tmp_path / "log"), str(tmp_path / "s")):
            os._exit(0)  # without a chance to clean up
    os.waitpid(child, 0)
    assert (tmp_path / "s.lock").exists()
    with run(str(tmp_path / "log"), str(tmp_path / "s")):
        pass
    assert not (tmp_path / "s.lock").exists()


def test_a_directory_that_was_moved_is_known_by_its_history(tmp_path):
    rows = [
        {"epoch": 1, "loss": 0.1, "seconds": 1.25},
        {"epoch": 2, "loss": 1 / 3, "seconds": 1e-7},
    ]

    def history(directory, rows):
        (tmp_path / directory).mkdir(exist_ok=True)
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        (tmp_path / directory / "history.csv").write_text("\n".join(lines) + "\n")
        return str(tmp_path / directory)

    def is_same(log_dir, of_snapshot, own="/once/there"):
        state = {"EpochReport": {"rows": of_snapshot}}
        snapshot = snapshots.Snapshot({"log_dir": own}, 2, 0, {}, state=state)
        return snapshots.same_log_dir(log_dir, snapshot)

    moved = history("moved", rows)
    assert is_same(moved, rows)
    assert is_same(moved, rows[:1])  # killed between the writing of the two
    assert not is_same(moved, [])
    assert not is_same(moved, rows, own=None)
    assert not is_same(history("other", [rows[0], rows[1] | {"seconds": 1.3}]), rows)
    assert not is_same(str(tmp_path / "absent"), rows)
    (tmp_path / "linked").symlink_to(moved)
    assert is_same(f"{tmp_path}/linked", [], own=moved)
    for damaged in "epoch,loss\n1\n", "epoch\nx\n", "\0":
        (tmp_path / "moved" / "history.csv").write_text(damaged)
        assert not is_same(moved, rows)
