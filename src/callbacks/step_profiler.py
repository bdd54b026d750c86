"""`StepProfiler` measures where the time of a training step goes: what `debug=profile` says in words."""

from __future__ import annotations

import time
from typing import Literal, get_args

import torch
from lightning.pytorch.profilers import Profiler

Share = Literal["data", "transfer", "forward", "backward", "optimizer", "rest"]
SHARES: tuple[Share, ...] = get_args(Share)
_WARM_UP = 4  # one step in so many is left out, the first ones: workers start, kernels are chosen


class StepProfiler(Profiler):
    """Splits each step into waiting for the data, moving it to the device, forward with the loss, backward, the optimizers
    (with clipping, schedules and averages), and the rest: logging, callbacks, Lightning's loop. On a GPU it waits for the
    device wherever one of them ends, so its steps are somewhat slower than without it.

    Attributes:
        steps: the seconds of each batch, by share.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[Share, float]] = []
        self._step: dict[Share, float] | None = None
        self._share: Share | None = "rest"
        self._since = 0.0

    def measured(self) -> list[dict[Share, float]]:
        """The steps without the first quarter of them, at least one."""
        return self.steps[max(1, len(self.steps) // _WARM_UP) :]

    def seconds(self) -> dict[Share, float]:
        """Mean seconds of a measured step by share; empty before two steps."""
        steps = self.measured()
        return {share: sum(step[share] for step in steps) / len(steps) for share in SHARES} if steps else {}

    def start(self, action_name: str) -> None:
        if action_name.endswith("].train_dataloader_next"):
            self._end_step()
            self._step, self._since, self._share = dict.fromkeys(SHARES, 0.0), _now(), "data"
        elif self._step is None:
            return
        elif "validation" in action_name or action_name.endswith((".val_dataloader", ".on_train_epoch_end")):
            self._end_step()
        elif action_name.endswith(".batch_to_device"):
            self._turn("transfer")
        elif action_name.endswith(".training_step"):
            self._turn("forward")
        elif action_name.endswith(".on_before_backward"):
            self._turn("backward", unclear="forward")
        elif action_name.endswith(".on_after_backward"):
            self._turn(None)
        elif action_name == "optimizer_step":
            self._turn("optimizer", unclear="optimizer")

    def stop(self, action_name: str) -> None:
        if self._step is None:
            return
        if action_name.endswith(("].train_dataloader_next", ".batch_to_device", ".training_step")):
            self._turn("rest", unclear="optimizer")

    def _turn(self, share: Share | None, unclear: Share = "forward") -> None:
        """Gives the time since the last turn to the share that it was spent on. None begins what follows a backward pass: the
        next forward, of a second network, or the optimizers; whose it was, `unclear` says."""
        if self._step is None or share == self._share:
            return
        now = _now()
        self._step[unclear if self._share is None else self._share] += now - self._since
        self._since, self._share = now, share

    def _end_step(self) -> None:
        if self._step is not None:
            self._turn(None)
            self.steps.append(self._step)
        self._step = None


def _now() -> float:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter()
