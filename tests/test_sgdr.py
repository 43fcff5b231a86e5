import csv
import math
from pathlib import Path

import numpy as np
import pytest

import sgdr
from training.flags import arguments
from utils import UsageError

TABLE = Path(__file__).parents[2] / "shared" / "reference" / "sgdr_lr_0.5.csv"


def schedule(flags: str, images: int | None = None) -> sgdr.Schedule:
    return sgdr.make_schedule(arguments.training_parser().parse_args(flags.split()), images)


@pytest.mark.skipif(not TABLE.exists(), reason="the reference table is not here")
def test_sgdr_equals_the_reference_table():
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = schedule("--sgdr_max_lr 0.5")
    assert wanted.epochs == len(rows) == 372
    for row in rows:
        assert wanted.rate(int(row["epoch"])) == pytest.approx(float(row["lr"]), rel=1e-9)


def test_sgdr_cycles():
    wanted = schedule("--sgdr_max_lr 0.5")
    restarts = [epoch for epoch in range(372) if wanted.rate(epoch) == 0.5]
    assert restarts == [0, 12, 36, 84, 180]
    lasts = [epoch for epoch in range(372) if math.isclose(wanted.rate(epoch), 1e-6)]
    assert lasts == [11, 35, 83, 179, 371]
    assert wanted.rate(1) == pytest.approx(1e-6 + 0.5 * (0.5 - 1e-6) * (1 + math.cos(math.pi / 6)))


def test_sgdr_parameters():
    wanted = schedule("--sgdr_base_len 3 --sgdr_mul 1 --sgdr_max_lr 2")
    assert wanted.epochs == 15
    assert [epoch for epoch in range(15) if wanted.rate(epoch) == 2] == [0, 3, 6, 9, 12]
    assert schedule("--sgdr_base_len 5 --sgdr_mul 3").epochs == 5 * (1 + 3 + 9 + 27 + 81)


def test_a_rate_is_constant_within_an_epoch():
    wanted = schedule("")
    assert wanted.rate(7.0) == wanted.rate(7.99) != wanted.rate(8.0)
    assert not wanted.within_epoch


@pytest.mark.parametrize(("images", "batch_size"), [(2040, 96), (200, 100), (30, 100)])
def test_legs_of_clr_have_the_original_s_number_of_steps(images, batch_size):
    """12 * (images // batch) steps, though an epoch has one more where a batch is not full."""
    wanted = schedule(f"--lr_schedule CLR --batch_size {batch_size}", images)
    leg = 12 * max(1, images // batch_size)
    steps_per_epoch = -(-images // batch_size)
    for step in range(0, 5 * leg):
        cycle = math.floor(1 + step / (2 * leg))
        rate = 1e-5 + (0.1 - 1e-5) * (1 - abs(step / leg - 2 * cycle + 1))
        assert wanted.rate(step / steps_per_epoch) == pytest.approx(rate, rel=1e-6)
    assert wanted.epochs == 240


def test_steps():
    wanted = schedule("--lr_schedule sgd --sgd_schedule 1:0.1,31:0.01,41:0.001,50")
    assert wanted.epochs == 50
    assert not wanted.follows_loss
    rates = [wanted.rate(epoch) for epoch in range(50)]
    assert rates == [0.1] * 30 + [0.01] * 10 + [0.001] * 10


@pytest.mark.parametrize(
    "text",
    ["", "50", "1:0.1", "2:0.1,50", "1:0.1,1:0.01,50", "1:x,50", "1:0.1,60:0.01,50", "1:-1,9"],
)
def test_bad_steps_are_named(text):
    with pytest.raises(UsageError, match="--sgd_schedule"):
        sgdr.parse_steps(text)


def test_plateau():
    wanted = schedule("--lr_schedule SGD --sgd_lr 0.3")
    assert wanted.follows_loss
    assert wanted.epochs == 200
    assert wanted.rate(0) == wanted.rate(199) == 0.3


def test_triangular():
    wanted = schedule("--lr_schedule CLR")
    assert wanted.epochs == 240
    assert wanted.within_epoch
    assert wanted.rate(0) == wanted.rate(24) == pytest.approx(1e-5)
    assert wanted.rate(12) == wanted.rate(36) == pytest.approx(0.1)
    assert wanted.rate(6) == wanted.rate(18) == pytest.approx((0.1 + 1e-5) / 2)


def test_cosine():
    flags = "--lr_schedule cosine --epochs 20 --max_lr 0.4 --warmup 0.1"
    wanted = schedule(flags)
    assert (wanted.epochs, wanted.within_epoch) == (20, True)
    assert [wanted.rate(at) for at in (0, 1, 2)] == pytest.approx([0, 0.2, 0.4])
    # The rest is half a cosine: at a third of it 3/4 of the maximum, at two thirds 1/4.
    assert [wanted.rate(at) for at in (8, 11, 14, 20)] == pytest.approx([0.3, 0.2, 0.1, 0])
    assert schedule("--lr_schedule Cosine").epochs == 100
    assert schedule("--lr_schedule cosine --epochs 7 --max_lr 2").rate(0) == 2


def test_a_step_has_the_cosine_at_its_middle():
    flags = "--lr_schedule cosine --epochs 2 --max_lr 1 --batch_size 50"
    args = arguments.training_parser().parse_args(flags.split())
    wanted = sgdr.make_schedule(args, images_per_epoch=240)  # 5 steps
    rates = np.array([wanted.rate(epoch + step / 5) for epoch in range(2) for step in range(5)])
    middles = (np.arange(10) + 0.5) / 10
    assert rates == pytest.approx((1 + np.cos(np.pi * middles)) / 2)
    assert rates.mean() == pytest.approx(0.5)


def test_resnet_schedule():
    wanted = schedule("--lr_schedule resnet-schedule")
    rates = [wanted.rate(epoch) for epoch in range(wanted.epochs)]
    assert rates == [0.01] + [0.1] * 79 + [0.01] * 40 + [0.001] * 44


def test_decay_ends_at_the_given_factor():
    plain = schedule("--lr_schedule SGD --sgd_lr 0.4")
    decayed = sgdr.with_decay(plain, 0.1, epochs=20)
    assert decayed.within_epoch
    assert decayed.rate(0) == 0.4
    assert decayed.rate(20) == pytest.approx(0.04)
    # 1/t: the reciprocal is linear in time.
    assert 1 / decayed.rate(10) == pytest.approx((1 / 0.4 + 1 / 0.04) / 2)
    assert sgdr.with_decay(plain, 0.0, epochs=20) is plain


def test_cycle_ends():
    assert sgdr.sgdr_cycle_ends(372) == [12, 36, 84, 180, 372]
    assert sgdr.sgdr_cycle_ends(35) == [12]
    assert sgdr.sgdr_cycle_ends(11) == []
    assert sgdr.sgdr_cycle_ends(7, base_len=3, mul=1) == [3, 6]


def test_a_schedule_says_how_it_ends():
    def describe(epochs, flags=""):
        args = arguments.training_parser().parse_args(flags.split())
        return sgdr.make_schedule(args).describe(epochs)

    assert describe(36) == "36 epochs; cycles of the learning rate end after 12, 36"
    assert describe(3) == (
        "3 epochs, ending within a cycle of the learning rate, before it is at its lowest "
        "(--epochs 12, 36, 84, 180, 372, … would end one)"
    )
    assert describe(164, "--lr_schedule ResNet-Schedule") == "164 epochs"
