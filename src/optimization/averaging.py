"""The moving average of a network's weights, which is evaluated in their place: `model.ema_decay`."""

from __future__ import annotations

import itertools

import torch
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
        self._taken: int | None = 0  # steps, as `n_averaged` on the device says; None: it has to be asked
        self.register_load_state_dict_post_hook(self._forget)  # type: ignore[no-untyped-call]
        self.requires_grad_(False)
        frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
        for name in frozen:
            module, _, last = name.rpartition(".")
            self.module.get_submodule(module).register_parameter(last, network.get_parameter(name))

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Takes a step towards the network's weights; torch's `update_parameters` would ask the device how many it took."""
        if self._taken is None:
            self._taken = int(self.n_averaged)
        # Under FSDP both are sharded, which torch's fused average does not take: each device averages its own shard.
        pairs = zip(_tensors(self.module), _tensors(network), strict=True)
        apart = [(own, new) for own, new in pairs if own.data_ptr() != new.data_ptr()]
        average = get_ema_multi_avg_fn(early_decay(self.decay, self._taken))  # type: ignore[no-untyped-call]
        for floating in (True, False):  # batch norms count in integers
            alike = [pair for pair in apart if pair[0].is_floating_point() is floating]
            if self._taken == 0:
                for own, new in alike:
                    own.copy_(new)
            elif alike:
                average(*zip(*alike, strict=True), self._taken)
        self.n_averaged += 1
        self._taken += 1

    def _forget(self, *_: object) -> None:
        self._taken = None


def _tensors(network: nn.Module) -> list[Tensor]:
    return of_this_device(itertools.chain(network.parameters(), network.buffers()))


def early_decay(decay: float, updates: int) -> float:
    """A decay that starts low, so that the average forgets the initial weights: min(decay, (1 + n) / (10 + n))."""
    return min(decay, (1 + updates) / (10 + updates))
