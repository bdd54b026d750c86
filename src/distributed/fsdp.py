"""`trainer=fsdp`: weights, gradients and optimizer states are cut into shards, one on each device (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from src.distributed.library_internals import broadcast_coalesced, shard_over_all, synchronise_batch_norms


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallelism (Zhao et al. 2023) with checkpoints of whole tensors, like every other strategy's:
    one file, read with `weights_only=True`, on any number of devices, by any strategy."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        shard_over_all(self)
        super().setup_environment()

    def shard(self, parts: Iterable[nn.Module]) -> None:
        """Shards the modules in place, once, each as a whole."""
        for part in parts:
            synchronise_batch_norms(self, part)
            if not any(isinstance(parameter, DTensor) for parameter in part.parameters()):
                part.to(memory_format=torch.contiguous_format)  # all that can be cut
                fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def training_step(self, *args: object, **kwargs: object) -> Any:
        assert self.lightning_module is not None
        broadcast_buffers(self.lightning_module)
        return super().training_step(*args, **kwargs)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, object]:
        assert self.lightning_module is not None
        return {key: whole(value).cpu() for key, value in self.lightning_module.state_dict().items()}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        given = {
            key: _like(value, own[key]) if key in own else value for key, value in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(given, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, object] = _all_whole(optimizer.state_dict())
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            sharded = {
                number: {key: _like(value, parameters[number]) for key, value in entries.items()}
                for number, entries in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": sharded})

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, object]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


def whole(value: object) -> Any:
    """A sharded tensor put together (all devices have to call it), on every device; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def broadcast_buffers(module: nn.Module) -> None:
    """Gives every rank the buffers (statistics of batch norms) of rank zero, as DDP does before a forward pass."""
    buffers = [buffer.detach() for buffer in module.buffers()]
    if buffers and dist.is_initialized():
        broadcast_coalesced(buffers)


def of_this_device(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Each tensor's shard on this device; whole ones as they are."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def _all_whole(value: Any) -> Any:
    """The same dicts, lists and tuples, with all tensors in them whole; in the order in which every device has them."""
    if isinstance(value, dict):
        return {key: _all_whole(inner) for key, inner in value.items()}
    return type(value)(map(_all_whole, value)) if type(value) in (list, tuple) else whole(value)


def _like(value: object, own: Tensor) -> object:
    """A whole tensor cut as `own`, of the same shape, is."""
    if isinstance(own, DTensor) and isinstance(value, Tensor) and value.shape == own.shape:
        return distribute_tensor(value.to(own.device).contiguous(), own.device_mesh, own.placements)
    return value
