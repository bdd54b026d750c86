"""The losses of an epoch go on where a checkpoint cut it."""

from __future__ import annotations

import torch

from src.callbacks.epoch_losses import EpochLosses


def test_losses_of_before_and_since_count_alike() -> None:
    first = EpochLosses()
    assert first.mean() is None and first.floats() == []
    for loss in (0.1, 0.7):
        first.add(torch.tensor(loss))
    second = EpochLosses(first.floats())
    second.add(torch.tensor(0.4))
    whole = torch.tensor([0.1, 0.7, 0.4])
    assert second.floats() == whole.tolist()
    mean = second.mean()
    assert mean is not None and torch.equal(mean, whole.mean())
