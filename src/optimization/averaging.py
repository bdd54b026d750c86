"""The moving average of a network's weights, which is evaluated in their place: `model.ema_decay`."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from src.distributed.fsdp import of_this_device


class MovingAverage(AveragedModel):
    """A copy of a network that follows it as an exponential moving average, batch norm statistics included.

    Args:
        network: what is followed.
        decay: what the average keeps of itself in an update.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
        self.decay = decay
        self.requires_grad_(False)

    def follow(self, network: nn.Module) -> None:
        """Takes a step towards the network's weights."""
        average = get_ema_multi_avg_fn(early_decay(self.decay, int(self.n_averaged)))  # type: ignore[no-untyped-call]
        # Under FSDP both are sharded tensors, which torch's fused average does not take: each device averages its own shard.
        self.multi_avg_fn = lambda own, new, n: average(of_this_device(own), of_this_device(new), n)
        self.update_parameters(network)


def early_decay(decay: float, updates: int) -> float:
    """A decay that starts low, so that the average forgets the initial weights: min(decay, (1 + n) / (10 + n))."""
    return min(decay, (1 + updates) / (10 + updates))
