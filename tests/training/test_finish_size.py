"""Trainings whose last tenth has images of another size (`--finish_size`)."""

import signal

import pytest

from training import data
from training.flags import arguments
from training.reporting import evaluation
from training.resuming.signals import Interrupted
from utils import UsageError

from .small_run import At, Run, assert_same

FLAGS = ["--epochs", "4", "--finish_size", "12", "--batch_size", "200", "--val_every", "2"]


def test_a_run_interrupted_on_both_sides_of_the_change_ends_as_another(tmp_path):
    whole = Run(FLAGS)
    model, info, (_, labels) = whole.model, whole.model.info, whole.test
    assert (info["image_size"], info["test_resize"]) == (12, 12)
    # Epochs are judged by images of the size that they have.
    args = arguments.training_parser().parse_args(["--image_size", "12"])
    dataset = data.load_dataset(arguments.check_training_arguments(args))
    assert dataset.test.images.shape[1:] == (12, 12, 3)
    scores = evaluation.evaluate(model, dataset.test_batches(200), labels).scores
    assert whole.rows[-1]["val_loss"] == pytest.approx(scores["loss"], rel=1e-5)

    flags = [*FLAGS, "--snapshot", str(tmp_path / "s")]
    for place in (
        At(2, 2, signal=signal.SIGTERM),
        At(3, 0, signal=signal.SIGTERM),
        At(3, 3, signal=signal.SIGTERM),
        At(3, 1, in_evaluation=True, signal=signal.SIGTERM),
    ):
        with pytest.raises(Interrupted):
            Run(flags, place)
    resumed = Run(flags, anew=True)
    assert_same(resumed, whole)
    assert resumed.model.info == info
    with pytest.raises(UsageError, match="epochs"):
        Run([*flags, "--epochs", "5"])


def test_there_has_to_be_an_epoch_of_each_size():
    with pytest.raises(UsageError, match="--finish_size 12: the last tenth of the epochs"):
        Run(["--finish_size", "12", "--epochs", "1"])
