import os
import random
import re

import numpy as np
import pytest

from training.resuming import snapshots
from utils import UserError

from .mutated_snapshots import facts_and_arrays, mutate, write_unchecked

pytestmark = pytest.mark.usefixtures("forked_reading")


def make(epoch=1, batch=0):
    metrics = {f"metric.{i}": np.ones((2, i), "float32") for i in range(2)}
    rows = [
        {"epoch": i, "learning_rate": 1e-30, "acc": 0.5, "seconds": 1, "images_per_second": 2.5}
        for i in range(1, epoch + 1)
    ]
    return snapshots.Snapshot(
        arguments={"seed": 0, "log_dir": None},
        epoch=epoch,
        batch=batch,
        arrays={
            "model.0": np.arange(3000, dtype="float32") + epoch,
            "model.1": np.array(2),
            **(metrics if batch else {}),
        },
        new_layers=["head"],
        state={
            "run": {"seconds": 1.5},
            "LearningRate": {"plateau_factor": 0.1},
            "EpochReport": {"rows": rows, "seconds_in_epoch": 0.5 * bool(batch)},
            "ReduceLROnPlateau": {"best": None, "wait": 0, "cooldown_counter": 0},
            "BestModel": {"best": {"acc": 0.5}},
        },
        data={"labels": "0123"},
    )


@pytest.fixture
def path(tmp_path):
    """A snapshot of epoch 2 whose previous one is of epoch 1."""
    for epoch in 1, 2:
        snapshots.write(tmp_path / "s", make(epoch))
    return tmp_path / "s"


def assert_equal(snapshot, expected):
    np.testing.assert_equal(vars(snapshot), vars(expected))


def test_what_is_written_is_read(path):
    assert_equal(snapshots.load(path).snapshot, make(2))
    assert_equal(snapshots.read(f"{path}.previous"), make(1))
    assert sorted(os.listdir(path.parent)) == ["s", "s.previous"]
    assert snapshots.load(path.parent / "absent") is None
    assert snapshots.load(None) is None


def truncate(content):
    return content[: len(content) // 2]


def flip(content):
    at = content.index(np.float32(1234).tobytes()) + 2
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [truncate, flip, lambda content: b"", lambda content: b"text"])
def test_a_damaged_copy_is_noticed_and_the_other_one_used(path, damage, caplog):
    path.write_bytes(damage(path.read_bytes()))
    loaded = snapshots.load(path)
    assert_equal(loaded.snapshot, make(1))
    [warning] = caplog.records
    assert "damaged" in warning.getMessage()
    assert f"continuing from {path}.previous, which is of epoch 1" in warning.getMessage()
    # The damaged file must not push out the good one.
    snapshots.write(path, make(3), keep_previous=loaded.newest_is_good)
    assert snapshots.read(path).epoch == 3
    assert snapshots.read(f"{path}.previous").epoch == 1


def test_two_damaged_copies_end_the_run(path):
    for copy in path, snapshots.previous_path(path):
        copy.write_bytes(truncate(copy.read_bytes()))
    with pytest.raises(UserError, match=r"no copy can be read .* move the files away"):
        snapshots.load(path)


@pytest.mark.parametrize("call", range(4))
def test_a_crash_while_writing_leaves_a_whole_copy(path, monkeypatch, call):
    """The process ends at one of the calls that change the disk; nothing after it happens."""

    class Crash(BaseException):
        pass

    calls = iter(range(99))

    def crash_at(function):
        def wrapped(*args):
            if next(calls) == call:
                raise Crash
            return function(*args)

        return wrapped

    for name in "fsync", "replace":
        monkeypatch.setattr(os, name, crash_at(getattr(os, name)))
    monkeypatch.setattr("pathlib.Path.unlink", lambda *args, **kwargs: None)
    with pytest.raises(Crash):
        snapshots.write(path, make(3))
    loaded = snapshots.load(path)
    assert_equal(loaded.snapshot, make({0: 2, 1: 2, 2: 2, 3: 3}[call]))


def test_a_full_disk_leaves_both_copies(path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="No space left"):
        snapshots.write(path, make(3))
    assert [snapshots.read(copy).epoch for copy in (path, f"{path}.previous")] == [2, 1]
    assert sorted(os.listdir(path.parent)) == ["s", "s.previous"]


def test_no_mutation_does_more_than_a_message(path):
    """Whatever happens to the bytes: the state is the one that was written, or it is refused."""
    content = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(300):
        mutated = bytearray(content)
        for _ in range(draw.choice([1, 1, 5])):
            at = draw.choice(
                [draw.randrange(len(mutated)), draw.randrange(len(mutated) - 800, len(mutated))]
            )
            mutated[at] = draw.randrange(256)
        if draw.random() < 0.2:
            del mutated[draw.randrange(len(mutated)) :]
        path.write_bytes(mutated)
        try:
            snapshot = snapshots.read(path)
        except UserError:
            refused += 1
        else:
            assert_equal(snapshot, make(2))
    assert refused > 200


def run_of(facts):
    return facts["state"]["run"]


def report_of(facts):
    return facts["state"]["EpochReport"]


@pytest.mark.parametrize(
    "change",
    [
        lambda facts, arrays: facts.update(epoch="one"),
        lambda facts, arrays: facts.update(epoch=1.0),
        lambda facts, arrays: facts.update(epoch=True),
        lambda facts, arrays: facts.update(epoch=10**400),
        lambda facts, arrays: facts.update(epoch=1),
        lambda facts, arrays: facts.update(batch=-1),
        lambda facts, arrays: facts.update(batch=0),
        lambda facts, arrays: facts.update(phase=["all layers"]),
        lambda facts, arrays: facts.update(new_layers="head"),
        lambda facts, arrays: facts.update(arguments=None),
        lambda facts, arrays: facts["arguments"].pop("log_dir"),
        lambda facts, arrays: facts["arguments"].update(log_dir=5),
        lambda facts, arrays: facts.update(data=[1]),
        lambda facts, arrays: facts.pop("data"),
        lambda facts, arrays: facts.update(further=1),
        lambda facts, arrays: facts["state"].pop("run"),
        lambda facts, arrays: facts["state"].update(Callback={"model": 1}),
        lambda facts, arrays: facts["state"]["BestModel"].update(path="elsewhere.keras"),
        lambda facts, arrays: run_of(facts).update(seconds=float("nan")),
        lambda facts, arrays: run_of(facts).update(seconds=10**400),
        lambda facts, arrays: report_of(facts).update(seconds_in_epoch="x"),
        lambda facts, arrays: report_of(facts).update(rows="abc"),
        lambda facts, arrays: report_of(facts)["rows"].append(5),
        lambda facts, arrays: report_of(facts)["rows"].reverse(),
        lambda facts, arrays: report_of(facts)["rows"][0].update(acc="x"),
        lambda facts, arrays: report_of(facts)["rows"][1].pop("acc"),
        lambda facts, arrays: arrays.update({"model.0": np.zeros(3, "M8[s]")}),
        lambda facts, arrays: arrays.update({"model.0": np.zeros(3, [("a", "f4")])}),
        lambda facts, arrays: arrays.update({"model.0": np.zeros(3, complex)}),
        lambda facts, arrays: arrays.update({"model.0": np.zeros(3, ">f4")}),
        lambda facts, arrays: arrays.update({"model.0": np.full(3, np.inf)}),
        lambda facts, arrays: arrays.update({"metric.0": np.array(1.0)}),
        lambda facts, arrays: arrays.update({"metric.0": np.zeros((3, 1))}),
        lambda facts, arrays: arrays.update({"metric.7": np.zeros((2, 1))}),
    ],
)
def test_what_no_training_stores_is_refused_for_the_copy_before(path, change, caplog):
    facts, arrays = facts_and_arrays(make(2, batch=5))
    write_unchecked(path, facts, arrays)
    assert_equal(snapshots.load(path).snapshot, make(2, batch=5))
    change(facts, arrays)
    write_unchecked(path, facts, arrays)
    assert_equal(snapshots.load(path).snapshot, make(1))
    assert re.search("no snapshot that this version can read|not an .npz of plain arr", caplog.text)


def test_no_stored_value_does_more_than_a_message(path):
    """Mutated facts and arrays whose checksum is right."""
    draw = random.Random(0)
    refused = 0
    for i in range(600):
        facts, arrays = facts_and_arrays(make(2, batch=5 * (i % 2)))
        mutate(facts, arrays, draw)
        write_unchecked(path, facts, arrays)
        try:
            snapshots.read(path)
        except UserError:
            refused += 1
    assert 400 < refused < 600
