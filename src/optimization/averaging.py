"""The moving average of a network's weights, which is evaluated in their place: `model.ema_decay`."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from src.distributed.fsdp import of_this_device


class MovingAverage(AveragedModel):
    """A copy of a network that follows it as an exponential moving average, batch norm statistics included.

    Parameters that are frozen when it is made are not copied: the average holds the network's own.

    Args:
        network: what is followed.
        decay: what the average keeps of itself in an update.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
        self.decay = decay
        self.requires_grad_(False)
        frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
        for name in frozen:
            module, _, last = name.rpartition(".")
            self.module.get_submodule(module).register_parameter(last, network.get_parameter(name))

    def follow(self, network: nn.Module) -> None:
        """Takes a step towards the network's weights."""
        average = get_ema_multi_avg_fn(early_decay(self.decay, int(self.n_averaged)))  # type: ignore[no-untyped-call]

        def step(own: Iterable[Tensor], new: Iterable[Tensor], updates: Tensor | int) -> None:
            # Under FSDP both are sharded, which torch's fused average does not take: each device averages its own shard.
            pairs = zip(of_this_device(own), of_this_device(new), strict=True)
            apart = [(mine, other) for mine, other in pairs if mine.data_ptr() != other.data_ptr()]
            if apart:
                average([mine for mine, _ in apart], [other for _, other in apart], updates)

        self.multi_avg_fn = step
        self.update_parameters(network)


def early_decay(decay: float, updates: int) -> float:
    """A decay that starts low, so that the average forgets the initial weights: min(decay, (1 + n) / (10 + n))."""
    return min(decay, (1 + updates) / (10 + updates))
