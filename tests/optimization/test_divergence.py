"""A loss that is no number is found with the step that it began in."""

from __future__ import annotations

import math

import pytest
import torch

from src.errors import NonFiniteLoss
from src.optimization.divergence import Divergence


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_bad_step_is_named(bad: float) -> None:
    divergence = Divergence()
    for step, loss in enumerate([1.0, 2.0, bad, 3.0, math.nan], start=40):
        divergence.watch(torch.tensor(loss, requires_grad=True), step)
    for _ in range(2):  # the run ends, and what is saved on the way out asks again
        with pytest.raises(NonFiniteLoss, match="in step 42"):
            divergence.check()


def test_each_look_goes_on_from_the_one_before() -> None:
    divergence = Divergence()
    divergence.check()  # nothing was trained
    for step in range(25):
        divergence.watch(torch.tensor(math.nan if step == 23 else 1.0), step)
        if step % 10 == 9:
            divergence.check()
    with pytest.raises(NonFiniteLoss, match="in step 23"):
        divergence.check()
