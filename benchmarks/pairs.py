"""Two ways to do the same work, measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Pairs:
    """What ours and a rival take, pair by pair, so that what else the machine does falls on both alike.

    Attributes:
        ours, rival: what they are.
        unit: of the values, "s" or "GiB".
        values: of both, a pair for each turn.
        least: of the parts of a turn, in their order, the least that each of both took in any turn. Where other programs slow
            the machine down by turns, the sum of these is what is left of the work alone.
    """

    ours: str
    rival: str
    unit: str = "s"
    values: list[tuple[float, float]] = field(default_factory=list)
    least: list[tuple[float, float]] = field(default_factory=list)

    def add(self, ours: float, rival: float) -> None:
        self.values.append((ours, rival))

    def add_parts(self, ours: list[float], rival: list[float]) -> None:
        """The parts that a turn of both is made of."""
        now = list(zip(ours, rival, strict=True))
        before = self.least or now
        self.least = [(min(a, c), min(b, d)) for (a, b), (c, d) in zip(before, now, strict=True)]

    @property
    def ratios(self) -> list[float]:
        return sorted(ours / rival for ours, rival in self.values)

    def row(self) -> dict[str, Any]:
        """For a table: the median of the pairs' ratios, ours over the rival's, what their middle half lies between, and the
        medians of both."""
        ratios = self.ratios
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        ours, rival = (statistics.median(side) for side in zip(*self.values, strict=True))
        of_least: dict[str, float] = {}
        if self.least:
            a, b = (sum(side) / len(self.least) for side in zip(*self.least, strict=True))
            of_least = {
                "ratio_of_least": round(a / b, 4),
                "least_ours": float(f"{a:.4g}"),
                "least_rival": float(f"{b:.4g}"),
            }
        return {
            "ours": self.ours, "rival": self.rival, "ratio": round(statistics.median(ratios), 4),
            "middle_half": [round(low, 4), round(high, 4)], "pairs": len(ratios), "unit": self.unit,
            "median_ours": float(f"{ours:.4g}"), "median_rival": float(f"{rival:.4g}"),
            **of_least,
        }  # fmt: skip

    def words(self) -> str:
        row = self.row()
        low, high = row["middle_half"]
        unit = "GiB" if self.unit == "GiB" else "s of CPU"
        return (
            f"{self.ours} {row['median_ours']} {unit}, {self.rival} {row['median_rival']} {unit}: {row['ratio']:.3f} "
            f"(median of {row['pairs']} pairs; the middle half {low:.3f} to {high:.3f})"
            + (f"; of the least of each part: {row['ratio_of_least']:.3f}" if self.least else "")
        )


def in_turns(names: tuple[str, str], ours: Callable[[], object], rival: Callable[[], object], pairs: int) -> Pairs:
    """CPU seconds of this process in each call, all threads; the first call of each warms up."""
    found = Pairs(*names)
    for turn in range(pairs + 1):
        seconds = []
        for work in (ours, rival):
            begin = time.process_time()
            work()
            seconds.append(time.process_time() - begin)
        if turn:
            found.add(*seconds)
    return found
