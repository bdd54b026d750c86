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
        cycle: every so many pairs do the same (of training steps one of so many is logged).
        values: of both, a pair for each turn.
    """

    ours: str
    rival: str
    unit: str = "s"
    cycle: int = 1
    values: list[tuple[float, float]] = field(default_factory=list)

    def add(self, ours: float, rival: float) -> None:
        self.values.append((ours, rival))

    @property
    def ratios(self) -> list[float]:
        """Ours over the rival's, pair by pair."""
        return [ours / rival for ours, rival in self.values]

    def row(self) -> dict[str, Any]:
        """For a table: the median ratio of the pairs that do the same, the mean of these over the cycle; between what the
        middle half of all ratios lies; and the medians of both."""
        ratios = self.ratios
        kinds = [ratios[first :: self.cycle] for first in range(min(self.cycle, len(ratios)))]
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        ours, rival = (statistics.median(side) for side in zip(*self.values, strict=True))
        return {
            "ours": self.ours, "rival": self.rival, "ratio": round(statistics.mean(map(statistics.median, kinds)), 4),
            "middle_half": [round(low, 4), round(high, 4)], "pairs": len(ratios), "unit": self.unit,
            "median_ours": float(f"{ours:.4g}"), "median_rival": float(f"{rival:.4g}"),
        }  # fmt: skip

    def words(self) -> str:
        row = self.row()
        low, high = row["middle_half"]
        unit = "GiB" if self.unit == "GiB" else "s of CPU"
        return (
            f"{self.ours} {row['median_ours']} {unit}, {self.rival} {row['median_rival']} {unit}: {row['ratio']:.3f} "
            f"(of {row['pairs']} pairs; the middle half {low:.3f} to {high:.3f})"
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
