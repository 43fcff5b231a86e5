import types

import numpy as np
import pytest

from reports import charts, pictures, run_sections
from reports.cautions import _learning


def test_pictures_stay_within_their_bytes():
    made = pictures.Pictures(2_000_000)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), "uint8")
    elements = [made.image(noise, 'a "name"') for _ in range(400)]

    assert elements[0].startswith('<img src="data:image/jpeg;base64,')
    assert 'alt="a &quot;name&quot;"' in elements[0]
    assert elements[-1] == '<span class="none">no room</span>'
    assert 1_500_000 < sum(len(one) for one in elements if "img" in one) < 2_000_000 + 100 * 400


def test_heat_is_bright_where_the_map_is():
    attention = np.zeros((4, 4))
    attention[0, 0] = 1
    drawn = pictures.heat_map(np.full((64, 64, 3), 128, "uint8"), attention)
    brightness = drawn.astype(int).sum(axis=2)
    assert drawn.shape == (96, 96, 3)
    assert brightness[:8, :8].mean() > brightness[60:, 60:].mean() + 100


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 6, [1, 2, 3, 4, 5, 6]),
        (0, 0.05, [0, 0.01, 0.02, 0.03, 0.04, 0.05]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert charts.ticks(low, high) == pytest.approx(expected)
    assert charts.ticks(1, 2, whole=True) == [1, 2]


def test_charts_of_few_equal_and_missing_values():
    nan = float("nan")

    def chart(x, y, **options):
        return charts.line_chart([charts.Series("a", x, y)], "t", "x", "y", **options)

    assert chart([1, 2], [nan, nan]) == ""
    assert chart([1], [0.5]).count("<circle") == 1
    assert "nan" not in chart([1, 2, 3], [2, nan, 2]) + chart([1, 2], [0, 0], log=True)
    assert charts.log_ticks(0.01, 100) == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert "1000" in chart([1, 2, 3], [1, 30, 1000], log=True)


def test_bands_of_two_runs_are_of_what_accuracies_can_be():
    histories = [
        [{"epoch": 1, "val_acc": acc, "learning_rate": acc, "val_loss": acc}] for acc in (0.8, 0.9)
    ]
    material = types.SimpleNamespace(histories=histories)
    line = run_sections._line(material, "test", "val_acc")
    # Student's t of one degree of freedom: 12.7 standard errors.
    assert (line.y[0], line.high[0]) == (pytest.approx(0.85), 1)
    assert line.low[0] == pytest.approx(0.85 - 12.7062 * 0.05, abs=1e-4)
    assert run_sections._line(material, "test", "val_loss").high[0] > 1


def learnt(acc, val_acc, loss):
    names = ("acc", "val_acc", "loss")
    rows = [dict(zip(names, row, strict=True)) for row in zip(acc, val_acc, loss, strict=True)]
    return _learning(
        types.SimpleNamespace(
            histories=[rows],
            run=types.SimpleNamespace(accuracy_column="val_acc"),
            args=types.SimpleNamespace(validation_fraction=0.2, fold=None),
        )
    )


def test_what_the_curves_warn_of():
    rising, falling = np.linspace(0.2, 0.6, 20), np.linspace(1, 0.5, 20)
    assert learnt(rising + 0.05, rising, falling) == []
    [overfit] = learnt(rising + 0.39, rising, falling)
    assert overfit.startswith("Overfit: 99 % of the training images")
    [diverged] = learnt(rising, rising, [*falling[:-1], 2.0])
    assert "ends at 2, but was at" in diverged
    [harm] = learnt(rising[::-1], rising[::-1], falling)
    assert "fell to 24.2 %" in harm
