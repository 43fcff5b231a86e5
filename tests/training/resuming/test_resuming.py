import csv
import functools
import os
import resource
import shutil
import signal

import keras
import numpy as np
import pytest

import models
from datasets.sources import digits
from training.resuming import snapshots
from training.resuming.signals import Interrupted
from utils import UsageError, UserError

from ..small_run import TIMES, At, Killed, Run, assert_same

PLATEAU = ["--lr_schedule", "SGD", "--sgd_patience", "1", "--sgd_lr", "0.5"]
SCHEDULES = {
    "SGDR": [],
    "plateau, of two outputs": [*PLATEAU, "--embedding", "onehot", "--cls_weight", "0.1"],
    "CLR": ["--lr_schedule", "CLR", "--clr_step_len", "2", "--max_decay", "0.5"],
    "cosine": [
        *("--images_seen", "4100", "--lr_schedule", "cosine", "--warmup", "0.3"),
        *("--max_lr", "0.3", "--augmentation", "strong", "--flip", "alternating"),
        *("--ema", "700", "--mixup", "1", "--cutmix", "1"),
    ],
}


@functools.cache
def uninterrupted(*flags):
    """Runs that several tests compare theirs with."""
    return Run(flags)


@pytest.fixture
def snapshot(tmp_path):
    return ["--snapshot", str(tmp_path / "s")]


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(name, snapshot):
    flags = list(SCHEDULES[name])
    if "--images_seen" not in flags:
        flags += ["--epochs", "4"]
    whole = uninterrupted(*flags)
    flags += snapshot
    with pytest.raises(Killed):
        Run(flags, At(1, 3))
    # A signal is obeyed within the epoch, in its training and in its evaluation.
    for epoch, number, in_evaluation, step in (
        (1, signal.SIGTERM, False, 2),
        (2, signal.SIGINT, True, 10),
    ):
        place = At(epoch, 2, in_evaluation=in_evaluation, signal=number)
        with pytest.raises(Interrupted) as caught:
            Run(flags, place)
        assert caught.value.exit_status == 128 + number
        message = str(caught.value)
        assert f"interrupted by {number.name}; {snapshot[1]} is of epoch {epoch + 1}, " in message
        assert f"step {step}; to resume: python " in message
        # The steps that were done are not repeated, and none is left out.
        begun = [(1, step) for step in range(10)] + [(2, step) for step in range(10)]
        assert place.steps == (begun[2:] if in_evaluation else begun[:3])
    watch = At(99, 0)
    resumed = Run(flags, watch, anew=True)
    assert watch.steps == [(3, step) for step in range(10)]
    assert_same(resumed, whole)


def test_a_finished_run_has_nothing_left_to_do(snapshot, tmp_path):
    flags = ["--epochs", "2", *snapshot]
    whole = Run(flags)
    watch = At(99, 0)
    again = Run([*flags, "--log_dir", str(tmp_path / "log")], watch)
    assert watch.steps == []
    assert_same(again, whole)
    # More epochs under the same schedule.
    longer = Run(["--epochs", "3", *snapshot])
    assert_same(longer, uninterrupted("--epochs", "3"))
    # Of an absent run's directory, too, the history is whole.
    assert len(read_history(tmp_path / "log")) == 2


def read_history(log_dir):
    with open(log_dir / "history.csv", newline="") as file:
        rows = csv.DictReader(file)
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def read_events(log_dir, name):
    """The steps of a scalar as TensorBoard shows them: a start hides what it repeats."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = []
    for path in sorted(log_dir.glob("events.out.tfevents.*"), key=os.path.getmtime):
        content, position = path.read_bytes(), 0
        while position < len(content):
            length = int.from_bytes(content[position : position + 8], "little")
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += 16 + length
            if event.session_log.status == SessionLog.START:
                shown = [step for step in shown if step < event.step]
            shown += [event.step for value in event.summary.value if value.tag == name]
    return shown


class KillWhileSaving(At):
    """Dies after the history is written and before the snapshot is."""

    def __init__(self, epoch):
        super().__init__(99, 0)
        self.last = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.last:
            write = self.history._write

            def write_and_die():
                write()
                raise Killed

            self.history._write = write_and_die


def test_history_and_events_go_on_without_gaps_or_repetitions(snapshot, tmp_path):
    whole = ["--epochs", "3", "--log_dir", str(tmp_path / "whole")]
    Run(whole)
    flags = ["--epochs", "3", *snapshot, "--log_dir", str(tmp_path / "log")]
    for epoch in 0, 1:
        with pytest.raises(Killed):
            Run(flags, KillWhileSaving(epoch))
        assert len(read_history(tmp_path / "log")) == epoch + 1
    with pytest.raises(Killed):
        Run(flags, At(1, 4))
    Run(flags)
    assert read_history(tmp_path / "log") == read_history(tmp_path / "whole")
    assert read_events(tmp_path / "log", "val_acc") == [1, 2, 3]
    assert read_events(tmp_path / "whole", "val_acc") == [1, 2, 3]
    # Another run's directory stays refused, with a snapshot too.
    with pytest.raises(UsageError, match=r"holds history\.csv of an earlier run"):
        Run(["--epochs", "3", *snapshot, "--log_dir", str(tmp_path / "whole")])


def test_another_directory_gets_the_whole_history(snapshot, tmp_path):
    with pytest.raises(Killed):
        Run(["--epochs", "3", *snapshot, "--log_dir", str(tmp_path / "first")], At(2, 0))
    Run(["--epochs", "3", *snapshot, "--log_dir", str(tmp_path / "second")])
    assert [row["epoch"] for row in read_history(tmp_path / "second")] == ["1", "2", "3"]
    assert read_events(tmp_path / "second", "loss") == [1, 2, 3]
    assert len(read_history(tmp_path / "first")) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--sgdr_max_lr", "0.5"], "--sgdr_max_lr 0.1 became 0.5"),
        (["--seed", "1"], "--seed 0 became 1"),
        (["--batch_size", "50"], "--batch_size 100 became 50"),
        (["--dataset", "digits-sub4"], "--dataset digits-sub3 became digits-sub4"),
        (["--embedding", "onehot"], "--embedding none became onehot, --loss none became inv_corr"),
        (["--epochs", "1"], "--epochs 1: .* is already at epoch 2"),
        (["--initial_epoch", "1"], "--initial_epoch 1: .* has 2 epochs done"),
    ],
)
def test_changed_arguments_are_refused(snapshot, changed, message, finished):
    with pytest.raises(UsageError, match=message):
        Run([*finished, *changed])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The flags of a run that has done 2 epochs."""
    flags = ["--epochs", "2", "--snapshot", str(tmp_path_factory.mktemp("finished") / "s")]
    Run(flags)
    return flags


def test_what_does_not_matter_may_change(finished, tmp_path):
    shutil.copy(finished[-1], tmp_path / "s")
    changed = ["--snapshot", str(tmp_path / "s")]
    changed += ["--read_workers", "2", "--queue_size", "7", "--initial_epoch", "2", "--epochs", "3"]
    assert len(Run([*finished, *changed]).rows) == 3


def test_a_rate_may_be_changed_on_purpose(snapshot):
    flags = ["--epochs", "2", *snapshot]
    Run([*flags, "--epochs", "1"])
    run = Run([*flags, "--sgdr_max_lr", "0.01", "--snapshot_allow", "sgdr_max_lr"])
    rates = [row["learning_rate"] for row in run.rows]
    assert rates[0] == pytest.approx(0.1)
    assert rates[1] < 0.01


def test_an_initial_epoch_begins_the_schedule_later(snapshot):
    flags = ["--epochs", "4", "--initial_epoch", "2", *snapshot]
    with pytest.raises(Killed):
        Run(flags, At(3, 1))
    run = Run(flags)
    assert_same(run, Run(flags[:4]))
    assert [row["epoch"] for row in run.rows] == [3, 4]


def test_a_diverged_state_is_not_kept(snapshot):
    flags = ["--epochs", "3", *snapshot, "--lr_schedule", "SGD", "--clipgrad", "0"]
    with pytest.raises(
        UserError,
        match=r"no longer finite in epoch 2, .*; .*s is of epoch 1, before that: .* "
        r"another --sgd_schedule and --snapshot_allow sgd_schedule",
    ):
        Run([*flags, "--sgd_schedule", "1:0.01,2:1e30,3"])
    assert snapshots.load(snapshot[1]).snapshot.epoch == 1
    Run([*flags, "--sgd_schedule", "1:0.01,3", "--snapshot_allow", "sgd_schedule"])


class LimitFileSize(keras.callbacks.Callback):
    """A disk that is full during one epoch: files end at 1 kB."""

    def on_epoch_begin(self, epoch, logs=None):
        soft = 1000 if epoch == 1 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


def test_a_full_disk_does_not_end_the_run(snapshot, tmp_path, caplog):
    log = ["--log_dir", str(tmp_path / "log")]
    try:
        run = Run(["--epochs", "3", *snapshot, *log], LimitFileSize())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    warnings = [record.getMessage() for record in caplog.records]
    assert any(f"--snapshot {snapshot[1]}: not written (File too large)" in w for w in warnings)
    assert_same(run, uninterrupted("--epochs", "3"))
    assert snapshots.read(snapshot[1]).epoch == 3
    assert snapshots.read(f"{snapshot[1]}.previous").epoch == 1
    assert not os.path.exists(f"{snapshot[1]}.partial")
    assert read_events(tmp_path / "log", "loss") == [1, 2, 3]


def test_other_data_under_the_same_name_is_refused(finished, monkeypatch):
    images, labels = digits.read_package()
    monkeypatch.setattr(digits, "read_package", lambda: (images, np.roll(labels, 1)))
    with pytest.raises(UserError, match=r"made with other data \(labels "):
        Run(finished)


def test_snapshots_within_an_epoch(snapshot):
    flags = ["--epochs", "2", *snapshot, "--snapshot_every", "1e-9"]
    with pytest.raises(Killed):
        Run(flags, At(1, 7))
    # That before step 7 was not written, as the run died first.
    assert snapshots.load(snapshot[1]).snapshot.batch == 6
    with pytest.raises(Killed):
        Run(flags, At(1, 0, in_evaluation=True))
    assert snapshots.load(snapshot[1]).snapshot.batch == 10
    assert_same(Run(flags, anew=True), uninterrupted("--epochs", "2"))


def test_the_best_model_is_remembered(snapshot, monkeypatch):
    saved = []
    monkeypatch.setattr(models, "save_model", lambda model, path: saved.append(path))
    flags = ["--epochs", "4", *snapshot, "--snapshot_best", "val_loss", "--sgdr_max_lr", "0.03"]
    with pytest.raises(Killed):
        Run(flags, At(2, 0))
    run = Run(flags)
    values = [row["val_loss"] for row in run.rows]
    best = [value for i, value in enumerate(values) if value < min(values[:i], default=1e9)]
    assert saved == [f"{snapshot[1]}.best.keras"] * len(best)
    assert run.progress.watched[-1].best == {"val_loss": min(values)}


def test_a_run_that_would_train_nothing_is_refused(snapshot):
    with pytest.raises(Killed):
        Run(["--epochs", "4", "--initial_epoch", "2", *snapshot], At(2, 1))
    with pytest.raises(UsageError, match=r"--epochs 2: .* none is left to train; give more"):
        Run(["--epochs", "2", *snapshot])


def test_half_precision_goes_on_to_the_last_bit(snapshot):
    """Its loss scale, too, is a part of the state."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        flags = ["--epochs", "3", "--precision", "mixed_float16"]
        whole = Run(flags)
        with pytest.raises(Interrupted):
            Run([*flags, *snapshot], At(1, 4, signal=signal.SIGTERM))
        resumed = Run([*flags, *snapshot], anew=True)
        assert isinstance(resumed.model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert_same(resumed, whole)
    finally:
        keras.config.set_dtype_policy(before)
