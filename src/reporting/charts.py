"""Curves as SVG, drawn without a plotting library so that the page needs nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 520, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 10, 10, 28
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One curve, ready to be drawn: the attribute `points` of a polyline, and where a single point lies."""

    run: int
    name: str
    color: str
    points: str
    dot: tuple[float, float] | None


@dataclass(frozen=True)
class Chart:
    """A chart in a viewBox of `width` x `height`; ticks are places with their texts."""

    title: str
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    bottom: int = _HEIGHT - _BOTTOM


def chart(title: str, curves: Iterable[tuple[int, str, str, Points]]) -> Chart | None:
    """A chart of curves, each a run's number, name, colour and points; None where no curve has a point."""
    drawn = [curve for curve in curves if curve[3]]
    if not drawn:
        return None
    xs = [x for *_, points in drawn for x, _ in points]
    low, high = _range([y for *_, points in drawn for _, y in points])
    first, last = min(xs), max(xs)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        up = (y - low) / (high - low)
        x_place = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
        return round(x_place, 1), round(_HEIGHT - _BOTTOM - min(max(up, 0.0), 1.0) * (_HEIGHT - _TOP - _BOTTOM), 1)

    lines = []
    for run, name, color, points in drawn:
        places = [place(x, y) for x, y in points]
        lines.append(
            Line(run, name, color, " ".join(f"{x},{y}" for x, y in places), places[0] if len(places) == 1 else None)
        )
    return Chart(
        title, lines,
        [(place(x, low)[0], f"{x:g}") for x in ticks(first, last) if first <= x <= last],
        [(place(first, y)[1], f"{y:g}") for y in ticks(low, high) if low <= y <= high],
    )  # fmt: skip


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers, about so many, that span a range."""
    span = high - low or abs(high) or 1.0
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw * 0.7)
    first = math.floor(low / step)
    return [round((first + i) * step, 12) for i in range(math.ceil(high / step) - first + 1)]


def _range(values: list[float]) -> tuple[float, float]:
    """What of the values is shown: all, but for the top of a loss that starts or ends far above the rest."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    usual = ordered[int(0.98 * (len(ordered) - 1))]
    if len(ordered) > 50 and high - low > 4 * (usual - low) > 0:
        high = low + 1.5 * (usual - low)
    margin = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    return low - margin, high + margin
