"""Charts as inline SVG, whose colours are those of the page, light or dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

# A screen shows no more points of a line.
_POINTS = 300
_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 14, 12, 40


@dataclass(frozen=True)
class Series:
    """A line of a chart, with or without a band.

    Attributes:
        name: What it is.
        x: `(points,)`.
        y: `(points,)`; points that are not finite are left out.
        low, high: `(points,)`, the band's ends.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class Axes:
    """The frame of a chart: scales, grid, ticks and labels.

    Args:
        x_range, y_range: The least and greatest values shown.
        x_label, y_label: What they are.
        log: Whether y is on a logarithmic scale.
        whole_x: Whether x are whole numbers, as epochs are.
        size: Width and height in the units of the drawing, about pixels.
    """

    def __init__(
        self, x_range, y_range, x_label, y_label, *, log=False, whole_x=False, size=(400, 250)
    ):
        self._log = log
        self._x_range, self._y_range = x_range, tuple(map(self._scaled, y_range))
        self._size = size
        self._parts = []
        self._frame(y_range, x_label, y_label, whole_x)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._log else float(value)

    def x(self, value: float) -> float:
        """Where a value lies, from the left."""
        low, high = self._x_range
        return _LEFT + (value - low) / (high - low) * (self._size[0] - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Where a value lies, from the top."""
        low, high = self._y_range
        share = (self._scaled(value) - low) / (high - low)
        return self._size[1] - _BOTTOM - share * (self._size[1] - _TOP - _BOTTOM)

    def _frame(self, y_range, x_label, y_label, whole_x) -> None:
        width, height = self._size
        bottom = height - _BOTTOM
        for tick in log_ticks(*y_range) if self._log else ticks(*y_range):
            at = self.y(tick)
            self.add(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" {_ys(at, at)}/>')
            self.text(_LEFT - 6, at + 4, number(tick), "end")
        for tick in ticks(*self._x_range, count=7, whole=whole_x):
            at = self.x(tick)
            self.add(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" {_ys(_TOP, bottom)}/>')
            self.text(at, bottom + 16, number(tick), "middle")
        self.text((_LEFT + width - _RIGHT) / 2, height - 5, x_label, "middle")
        middle = (_TOP + bottom) / 2
        self.add(
            f'<text text-anchor="middle" transform="translate(12 {middle:.0f}) rotate(-90)">'
            f"{escape(y_label)}</text>"
        )

    def add(self, element: str) -> None:
        """Draws an element of SVG."""
        self._parts.append(element)

    def text(self, x: float, y: float, text: str, anchor: str) -> None:
        """Writes at a place."""
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def polyline(self, x: Sequence[float], y: Sequence[float], style: str) -> None:
        """Draws a line through points."""
        self.add(f'<polyline class="{style}" points="{self._points(x, y)}"/>')

    def band(self, x, low, high, style: str) -> None:
        """Fills what is between two lines."""
        points = f"{self._points(x, low)} {self._points(x[::-1], high[::-1])}"
        self.add(f'<polygon class="{style}" points="{points}"/>')

    def dot(self, x: float, y: float, style: str, title: str = "") -> None:
        """Draws a point, which says more when it is pointed at."""
        self.add(
            f'<circle class="{style}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="4">'
            f"<title>{escape(title)}</title></circle>"
        )

    def _points(self, x, y) -> str:
        return " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, y, strict=True))

    def svg(self, title: str) -> str:
        """The chart, with a title for those who cannot see it."""
        width, height = self._size
        return (
            f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
            f'style="max-width:{width * 1.4:.0f}px" aria-label="{escape(title)}">'
            f"{''.join(self._parts)}</svg>"
        )


def _ys(first: float, second: float) -> str:
    return f'y1="{first:.1f}" y2="{second:.1f}"'


def number(value: float) -> str:
    """A tick's label, as short as it can be."""
    return f"{value:.4g}"


def ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them, or only whole ones."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high` on a logarithmic scale."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) < 5 else (1,)
    return [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_label: str,
    *,
    from_zero: bool = False,
    log: bool = False,
) -> str:
    """Lines by epoch with their bands and a legend; an empty text if there is nothing to draw.

    Args:
        series: The lines.
        title: Of the chart.
        x_label, y_label: What the axes are.
        from_zero: Whether y begins at 0.
        log: Whether y may be on a logarithmic scale, which it is where all is above 0 and the
            greatest value is 20 times the least or more.
    """
    drawn = [line for line in map(_thinned, series) if len(line.x)]
    if not drawn:
        return ""
    values = np.concatenate([line.y if line.low is None else line.high for line in drawn])
    lows = np.concatenate([line.y if line.low is None else line.low for line in drawn])
    low, high = float(lows.min()), float(values.max())
    log = log and low > 0 and high >= 20 * low
    if from_zero:
        low = min(low, 0.0)
    if high <= low:
        low, high = low - 0.5 * abs(low) - 1e-6, high + 0.5 * abs(high) + 1e-6
    if not log:
        high += 0.04 * (high - low)
    x = np.concatenate([line.x for line in drawn])
    x_range = (float(x.min()), float(x.max()) if x.max() > x.min() else float(x.min()) + 1)
    axes = Axes(x_range, (low, high), x_label, y_label, log=log, whole_x=True)
    legend = []
    for i, line in enumerate(drawn):
        if line.low is not None:
            axes.band(line.x, line.low, line.high, f"band c{i}")
        axes.polyline(line.x, line.y, f"line c{i}")
        if len(line.x) == 1:
            axes.dot(line.x[0], line.y[0], f"dot c{i}", number(line.y[0]))
        legend.append(f'<span class="key c{i}">{escape(line.name)}</span>')
    keys = f'<p class="legend">{" ".join(legend)}</p>' if len(drawn) > 1 else ""
    return f"<figure>{axes.svg(title)}<figcaption>{escape(title)}{keys}</figcaption></figure>"


def _thinned(line: Series) -> Series:
    """The finite points of a line, and of many only as many as are seen."""
    rows = [
        np.asarray(row, float) for row in (line.x, line.y, line.low, line.high) if row is not None
    ]
    rows = [row[np.all(np.isfinite(rows), axis=0)] for row in rows]
    count = len(rows[0])
    if count > _POINTS:
        chosen = np.unique(np.linspace(0, count - 1, _POINTS).astype(int))
        rows = [row[chosen] for row in rows]
    return Series(line.name, *rows)


def interval_bar(value: float, low: float, high: float) -> str:
    """A share in [0, 1] with its interval, for the cell of a table."""
    return (
        '<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="12"/>'
        f'<rect class="share" width="{100 * value:.1f}" height="12"/>'
        f'<line class="whisker" x1="{100 * low:.1f}" x2="{100 * high:.1f}" y1="6" y2="6"/></svg>'
    )


def reliability_chart(found, title: str) -> str:
    """Accuracy by confidence, with the band of a perfect model.

    Args:
        found: A `models.calibration.Reliability`.
        title: Of the chart.
    """
    axes = Axes((0, 1), (0, 1), "confidence", "share that is right", size=(300, 280))
    axes.polyline((0, 1), (0, 1), "ideal")
    for confidence, low, high in zip(found.confidence, found.low, found.high, strict=True):
        top, bottom = axes.y(high), axes.y(low)
        axes.add(
            f'<rect class="perfect" x="{axes.x(confidence) - 5:.1f}" y="{top - 1:.1f}" width="10" '
            f'height="{bottom - top + 2:.1f}"/>'
        )
    rows = zip(found.images, found.confidence, found.accuracy, found.low, found.high, strict=True)
    for images, confidence, accuracy, low, high in rows:
        inside = low - 1e-9 <= accuracy <= high + 1e-9
        said = f"{images} images: confidence {confidence:.2f}, right {accuracy:.2f}"
        axes.dot(confidence, accuracy, "dot c0" if inside else "dot c1", said)
    return f"<figure>{axes.svg(title)}<figcaption>{escape(title)}</figcaption></figure>"
