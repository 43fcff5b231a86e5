import csv
import re

import keras
import numpy as np
import pytest

import models
import sgdr
from training.flags import arguments
from training.learning import callbacks
from training.reporting import epochs
from utils import UserError

STEPS = 4


class Recorder(keras.callbacks.Callback):
    """Keeps the learning rate of every step."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(callbacks.current_rate(self.model))


def fit(flags, epochs, extra=(), labels=None):
    """Trains a tiny model with a schedule's callbacks; the rates of all steps."""
    args = arguments.training_parser().parse_args(flags.split())
    schedule = sgdr.with_decay(sgdr.make_schedule(args), args.max_decay, epochs)
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1, kernel_initializer="zeros")(inputs)
    model = models.ImageClassifier(inputs, outputs)
    model.compile(keras.optimizers.SGD(), loss="mse")
    images = np.ones((STEPS, 3), "float32")
    labels = np.zeros((STEPS, 1), "float32") if labels is None else labels
    recorder = Recorder()
    model.fit(
        images, labels, batch_size=1, epochs=epochs, validation_data=(images, labels), verbose=0,
        shuffle=False,
        callbacks=[*callbacks.learning_rate(schedule, STEPS, args), recorder, *extra],
    )  # fmt: skip
    return np.array(recorder.rates).reshape(epochs, STEPS)


def test_sgdr_is_constant_within_an_epoch():
    rates = fit("--sgdr_max_lr 0.5 --sgdr_base_len 3 --sgdr_mul 1", 4)
    wanted = [sgdr.sgdr_rate(epoch, 0.5, 3, 1) for epoch in range(4)]
    np.testing.assert_allclose(rates, np.repeat(wanted, STEPS).reshape(4, STEPS), rtol=1e-6)


def test_triangular_changes_every_step():
    rates = fit("--lr_schedule CLR --clr_step_len 2 --clr_min_lr 0.1 --clr_max_lr 0.9", 4)
    up = 0.1 + 0.8 * np.arange(2 * STEPS) / (2 * STEPS)
    np.testing.assert_allclose(rates.ravel(), [*up, 0.9, *up[:0:-1]], rtol=1e-6)


def test_decay_multiplies_the_schedule():
    rates = fit("--lr_schedule SGD --sgd_lr 0.5 --max_decay 0.25", 4).ravel()
    wanted = 0.5 / (1 + 3 * np.arange(4 * STEPS) / (4 * STEPS))
    np.testing.assert_allclose(rates, wanted, rtol=1e-6)


def test_a_plateau_lowers_the_rate_tenfold_until_the_minimum():
    # The labels are met from the start, so that the validation loss never gets better.
    rates = fit("--lr_schedule SGD --sgd_lr 0.5 --sgd_patience 2 --sgd_min_lr 0.001", 9)
    wanted = [0.5, 0.5, 0.5, 0.05, 0.05, 0.005, 0.005, 0.001, 0.001]
    np.testing.assert_allclose(rates, np.repeat(wanted, STEPS).reshape(9, STEPS), rtol=1e-6)


def test_a_plateau_and_decay_multiply():
    rates = fit("--lr_schedule SGD --sgd_lr 0.5 --sgd_patience 2 --max_decay 0.5", 7)
    plateau = np.repeat([0.5, 0.5, 0.5, 0.05, 0.05, 0.005, 0.005], STEPS)
    decay = 1 + np.arange(7 * STEPS) / (7 * STEPS)
    np.testing.assert_allclose(rates.ravel(), plateau / decay, rtol=1e-5)


@pytest.mark.parametrize("bad", [1, 3, STEPS])
def test_a_loss_that_is_not_finite_names_epoch_step_and_rate(bad):
    labels = np.zeros((STEPS, 1), "float32")
    labels[bad - 1] = np.inf
    message = rf"the loss is no longer finite in epoch 1, step {bad}, at learning rate 0\.5: "
    with pytest.raises(UserError, match=message):
        fit("--lr_schedule SGD --sgd_lr 0.5", 2, [callbacks.StopOnDivergence()], labels)


def test_an_epochs_report(tmp_path, capsys):
    report = epochs.EpochReport(STEPS, 2, str(tmp_path / "log"), print_line=True)
    fit("--lr_schedule SGD --sgd_lr 0.5", 2, [report])
    with open(tmp_path / "log" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    assert [float(row["learning_rate"]) for row in rows] == [0.5, 0.5]
    assert float(rows[0]["images_per_second"]) > STEPS / float(rows[0]["seconds"])
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0].split(" - ")[0], lines[2].split(" - ")[0]] == ["Epoch 1/2", "Epoch 2/2"]
    assert re.fullmatch(r"about \d+ s left at the speed of this epoch", lines[1])


def test_a_line_is_in_fixed_point_notation():
    """The published grep takes 1.0000 from Keras' 1.0000e-03 for an accuracy of 0.001."""
    row = {
        "epoch": 1,
        "learning_rate": 1e-6,
        "val_acc": 0.001,
        "seconds": 2.0,
        "images_per_second": 10.0,
    }
    assert epochs.epoch_line(row, 12) == (
        "Epoch 1/12 - 2.0s - 10 images/s - learning_rate: 1e-06 - val_acc: 0.0010"
    )


def test_per_output_losses_are_averages_of_images_not_of_batches():
    logs = {"loss": 3.0, "prob_loss": 9.0, "prob_mean_loss": 2.0, "prob_acc": 1.0}
    assert epochs.epoch_scores(logs) == {"loss": 3.0, "prob_loss": 2.0, "prob_acc": 1.0}


def test_the_best_epoch_is_the_first_of_the_best():
    report = epochs.EpochReport(1, 3, None, print_line=False)
    report.rows = [{"epoch": 1, "acc": 0.1}, {"epoch": 2, "acc": 0.5}, {"epoch": 3, "acc": 0.5}]
    assert report.best_epoch("acc")["epoch"] == 2
