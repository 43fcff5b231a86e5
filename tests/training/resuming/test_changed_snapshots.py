"""Snapshots that do not fit the run that shall go on from them."""

import random
import signal

import numpy as np
import pytest

from training.flags import arguments
from training.resuming import saving, snapshots
from training.resuming.signals import Interrupted
from utils import UsageError, UserError

from ..small_run import At, Run
from .mutated_snapshots import facts_and_arrays, mutate, write_unchecked

PLATEAU = "--epochs 2 --lr_schedule SGD --sgd_patience 1 --sgd_lr 0.5 --snapshot_best acc".split()


@pytest.fixture(scope="module")
def within_an_epoch(tmp_path_factory):
    """A run that was stopped in its second epoch."""
    path = tmp_path_factory.mktemp("stopped") / "s"
    with pytest.raises(Interrupted):
        Run([*PLATEAU, "--snapshot", str(path)], At(1, 3, signal=signal.SIGTERM))
    return snapshots.read(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The same run to its end."""
    return Run([*PLATEAU, "--snapshot", str(tmp_path_factory.mktemp("run") / "s")], anew=True)


@pytest.fixture
def resume(run, within_an_epoch, monkeypatch):
    """Resumes, up to the first step, from a changed snapshot of a stopped run."""
    monkeypatch.setattr(saving.Snapshots, "_save", lambda *args: None)
    before, path = run.progress, run.args.snapshot

    def resume(change):
        facts, arrays = facts_and_arrays(within_an_epoch)
        facts["arguments"]["snapshot"] = path
        change(facts, arrays)
        write_unchecked(path, facts, arrays)
        snapshots.previous_path(path).unlink(missing_ok=True)
        loaded = arguments.load_snapshot(run.args)
        progress = saving.Snapshots(
            run.args, before.watched, run.stop, before.data, before.steps_per_epoch, loaded
        )
        progress.set_model(run.model)
        saving.restore(run.model, loaded, before.data, path)
        progress.on_train_begin()
        progress.on_epoch_begin(progress.epoch)
        return progress

    return resume


def test_a_flag_that_is_newer_than_the_snapshot_had_its_default(resume):
    resume(lambda facts, arrays: facts["arguments"].pop("label_smoothing"))
    with pytest.raises(UsageError, match=r"--label_smoothing 0\.5 became 0\.0"):
        resume(lambda facts, arrays: facts["arguments"].update(label_smoothing=0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts, arrays: facts.update(batch=11), "is of step 11 of an epoch of 10"),
        (lambda facts, arrays: arrays.popitem(), "holds other metrics"),
        (lambda facts, arrays: arrays.update({"metric.0": np.zeros((1, 3))}), "other metrics"),
        (
            lambda facts, arrays: arrays.update({"model.4": arrays["model.4"].astype(int)}),
            "other v",
        ),
        (lambda facts, arrays: arrays.update(x=arrays["model.0"]), "holds other variables"),
        (lambda facts, arrays: facts.update(phase="new layers"), "where these arguments never are"),
        (
            lambda facts, arrays: facts["state"]["EpochReport"]["rows"][0].update(x=1),
            "its history is of .*, x, but",
        ),
    ],
)
def test_what_does_not_fit_the_run_is_refused(resume, change, message):
    assert resume(lambda facts, arrays: None).batch == 3
    with pytest.raises(UserError, match=message):
        resume(change)


def test_no_snapshot_does_more_than_a_message(resume, run, forked_reading):
    draw = random.Random(0)
    refused = 0
    for _ in range(300):
        try:
            progress = resume(lambda facts, arrays: mutate(facts, arrays, draw))
        except UserError:
            refused += 1
        else:
            assert progress.watched[-1].path == f"{run.args.snapshot}.best.keras"
    assert 200 < refused < 300
