"""Whether the training loss is still a number."""

from __future__ import annotations

import torch
from torch import Tensor

from src.errors import NonFiniteLoss


class Divergence:
    """Finds the first step whose loss was NaN or infinite, without waiting for the device before `check`."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []  # of the steps since the last look
        self._first = 0  # the step of the first of them

    def watch(self, loss: Tensor, step: int) -> None:
        """Takes in the loss of a step, a scalar; steps follow one another."""
        if not self._losses:
            self._first = step
        self._losses.append(loss.detach())

    def check(self) -> None:
        """Raises NonFiniteLoss if any loss so far was NaN or infinite; waits for the device."""
        if not self._losses:
            return
        finite = torch.stack(self._losses).isfinite()
        if not finite.all():
            step = self._first + int((~finite).int().argmax())
            raise NonFiniteLoss(f"the training loss became NaN or infinite in step {step}")
        self._losses = []
