"""A loss of each batch of an epoch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class EpochLosses:
    """Scalars as a step leaves them on its device, so that keeping one waits for nothing.

    Args:
        before: those of the same epoch before the run was resumed.
    """

    def __init__(self, before: Iterable[float] = ()) -> None:
        self._before = list(before)
        self._since: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        self._since.append(loss)

    def floats(self) -> list[float]:
        """All of them; waits for the device."""
        return self._before + (torch.stack(self._since).tolist() if self._since else [])

    def mean(self) -> Tensor | None:
        """Of all of them, float32 on the CPU; None of none."""
        values = self.floats()
        return torch.tensor(values).mean() if values else None
