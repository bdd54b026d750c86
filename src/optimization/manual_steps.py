"""A step of all of a model's optimizers, where Lightning leaves steps to the model."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.core.optimizer import LightningOptimizer


def step_all(model: L.LightningModule) -> None:
    """Steps every optimizer and schedule of a model with manual optimization, and clears the gradients.

    Lightning counts a step (`global_step`) for every `step()` of its own wrapper, LightningOptimizer, while a step of ours is
    one however many optimizers there are. So only the first optimizer goes through the wrapper; of the others the torch
    optimizer inside it steps, after the hook that the wrapper would have called. tests/models/test_gan.py counts the steps
    (`test_a_step_of_two_optimizers_is_one_step`).
    """
    optimizers = model.optimizers()
    first, *others = optimizers if isinstance(optimizers, list) else [optimizers]
    first.step()
    first.zero_grad()
    for other in others:
        assert isinstance(other, LightningOptimizer)
        model.on_before_optimizer_step(other.optimizer)
        other.optimizer.step()
        other.optimizer.zero_grad()
    schedulers = model.lr_schedulers()
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        scheduler.step()  # type: ignore[union-attr]
