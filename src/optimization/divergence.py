"""Whether the training loss is still a number."""

from __future__ import annotations

import torch
from torch import Tensor

from src.errors import NonFiniteLoss

_STEPS_BETWEEN_LOOKS = 50  # on a GPU, where a look waits for the device


class Divergence:
    """Remembers the first step whose loss was NaN or infinite, on the loss's device."""

    def __init__(self) -> None:
        self._first_bad_step = torch.tensor(-1)

    def watch(self, loss: Tensor, step: int) -> None:
        """Takes in a step's loss, a tensor of any shape; on a CPU raises at once, else from time to time.

        Raises:
            NonFiniteLoss: a loss so far was NaN or infinite.
        """
        first = self._first_bad_step.to(loss.device)
        finite = torch.isfinite(loss.detach()).all()
        self._first_bad_step = torch.where((first < 0) & ~finite, step, first)
        if loss.device.type == "cpu" or step % _STEPS_BETWEEN_LOOKS == 0:
            self.check()

    def check(self) -> None:
        """Raises NonFiniteLoss if any loss so far was NaN or infinite; waits for the device."""
        step = int(self._first_bad_step)
        if step >= 0:
            raise NonFiniteLoss(f"the training loss became NaN or infinite in step {step}")
