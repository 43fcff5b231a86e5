"""The line on a terminal, and lengths of time in words."""

import os

import pytest

from training.reporting import progress, terminal


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0, "0 s"), (0.6, "1 s"), (59.4, "59 s"), (60, "1 min"), (725, "12 min 5 s")),
        *((3600, "1 h"), (12000, "3 h 20 min"), (187200, "2 d 4 h")),
    ],
)
def test_duration(seconds, words):
    assert terminal.duration(seconds) == words


def test_the_line_fits_the_terminal_and_is_gone_at_the_end(capsys, monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 20)))
    monkeypatch.setattr(progress, "_SECONDS", 0)
    line = progress.ProgressLine(3, 32)
    line.on_epoch_begin(0)
    for step in range(32):
        line.on_train_batch_end(step, {"loss": 3.25, "mean_loss": 3.25, "acc": 0.5, "top2_acc": 1})
    line.on_epoch_end(0)
    line.on_train_batch_end(5, {"loss": 1.0})  # a thread that comes late
    printed = capsys.readouterr().out
    assert "\n" not in printed
    lines = printed.replace("\x1b[K", "").split("\r")
    assert lines[-1] == ""
    assert "Epoch 1/3, step 32/32" in lines[-2]
    assert max(map(len, lines)) <= 59
    assert "mean_loss" not in printed
