"""`trainer=deepspeed`: gradients and optimizer states are cut into shards, one on each device (ZeRO), by DeepSpeed."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from importlib.util import find_spec
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from src.distributed.fsdp import broadcast_buffers
from src.distributed.library_internals import lend_optimizer_state
from src.optional_packages import needs


class ZeroStrategy(DDPStrategy):
    """The zero redundancy optimizer (Rajbhandari et al. 2020), stages 1 and 2, with checkpoints of whole tensors, like every
    other strategy's: one file, read with `weights_only=True`, on any number of devices, by any strategy. DeepSpeed's own
    files, which are pickles, are neither written nor read.

    Args:
        stage: 1 shards the optimizer's states, 2 the gradients too.
        offload: keeps the optimizer's states and its step in the host's memory.
        clip: largest gradient norm; None clips nothing.
    """

    def __init__(self, stage: int = 2, offload: bool = False, clip: float | None = None) -> None:
        if find_spec("deepspeed") is None:
            needs("deepspeed", "deepspeed")
        super().__init__()
        self._stage, self._offload, self._clip = stage, offload, clip
        self._engine: Any = None
        self._groups: list[list[Parameter]] = []  # of the network's own parameters, as the optimizer was given them

    def setup_distributed(self) -> None:
        super().setup_distributed()
        os.environ["DS_ACCELERATOR"] = self.root_device.type
        for name, rank in (("RANK", self.global_rank), ("LOCAL_RANK", self.local_rank)):  # SLURM calls them otherwise
            os.environ.setdefault(name, str(rank))
        with _quiet():
            deepspeed = needs("deepspeed", "deepspeed")
            deepspeed.utils.logging.logger.setLevel(logging.WARNING)
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # for inference only, and needs a compiler
            deepspeed.init_distributed(self.process_group_backend, auto_mpi_discovery=False)

    def configure_ddp(self) -> None:
        """Nothing: the weights are everywhere, and DeepSpeed sums the gradients."""

    def setup_optimizers(self, trainer: L.Trainer) -> None:
        super().setup_optimizers(trainer)
        assert self.lightning_module is not None
        self.lightning_module.to(memory_format=torch.contiguous_format)  # all that can be cut
        (optimizer,) = self.optimizers
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        trained = [parameter for group in self._groups for parameter in group]
        zero: dict[str, object] = {"stage": self._stage}
        if self._offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": self.root_device.type == "cuda"}
        device = self.root_device.index
        self._engine, sharded, _, _ = needs("deepspeed", "deepspeed").initialize(
            args=None if device is None else argparse.Namespace(device_rank=device),
            model=_Passing(trained),
            optimizer=optimizer,
            model_parameters=trained,
            dist_init_required=False,
            config={
                "train_micro_batch_size_per_gpu": 1,  # only for its own reports
                "managed_gradient_accumulation": False,  # a step is where we say
                "gradient_clipping": self._clip or 0.0,
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                "zero_optimization": zero,
            },
        )
        self.optimizers = [sharded]

    def training_step(self, *args: object, **kwargs: object) -> Any:
        assert self.lightning_module is not None
        broadcast_buffers(self.lightning_module)
        return super().training_step(*args, **kwargs)

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: object, **kwargs: object) -> Tensor:
        loss: Tensor = self._engine.backward(self._engine(closure_loss))
        return loss

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], object],
        model: L.LightningModule | nn.Module | None = None,
        **kwargs: object,
    ) -> object:
        result = closure()
        self._engine.step()
        return result

    def gradient_norm(self) -> Tensor:
        """Norm of the newest step's gradients before clipping, float scalar."""
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32)

    # ------------------------------------------------------------------ checkpoints

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_optimizer_state

        state: dict[int, dict[str, object]] = {}
        for number, parameter, entries in self._entries(optimizer):
            state[number] = {
                key: safe_get_full_optimizer_state(parameter, key).cpu() if _is_sharded(value) else deepcopy(value)
                for key, value in entries.items()
            }
        numbers = self._numbers()
        groups = [
            {**{key: value for key, value in group.items() if key != "params"}, "params": [next(numbers) for _ in own]}
            for group, own in zip(optimizer.param_groups, self._groups, strict=True)
        ]
        return {"state": {number: entries for number, entries in state.items() if entries}, "param_groups": groups}

    def load_model_state_dict(self, checkpoint: Mapping[str, object], strict: bool = True) -> None:
        super().load_model_state_dict(checkpoint, strict)
        if self._engine is not None:
            self._engine.optimizer.refresh_fp32_params()

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        (sharded,), (saved,) = self.optimizers, checkpoint["optimizer_states"]
        for group, known in zip(sharded.param_groups, saved["param_groups"], strict=True):
            group.update({key: value for key, value in known.items() if key != "params"})
        if not saved["state"]:
            return
        numbers = self._numbers()
        for group, own in zip(sharded.param_groups, self._groups, strict=True):
            first = saved["state"][next(numbers)]
            [next(numbers) for _ in own[1:]]
            (flat,) = group["params"]
            sharded.state[flat] = {
                key: torch.zeros_like(flat) if _is_sharded(value) else value for key, value in first.items()
            }
        for number, parameter, entries in self._entries(sharded):
            for key, value in entries.items():
                if _is_sharded(value):
                    safe_set_full_optimizer_state(parameter, saved["state"][number][key].to(parameter.device), key)

    def _numbers(self) -> Iterator[int]:
        return iter(range(sum(map(len, self._groups))))

    def _entries(self, optimizer: Optimizer) -> Iterator[tuple[int, Parameter, dict[str, object]]]:
        """Each parameter's number, itself, and the states of its group's shard, of which DeepSpeed then knows its part."""
        numbers = self._numbers()
        for group, own in zip(optimizer.param_groups, self._groups, strict=True):
            (flat,) = group["params"]
            for parameter in own:
                lend_optimizer_state(parameter, flat, optimizer.state[flat])
                yield next(numbers), parameter, optimizer.state[flat]


class _Passing(nn.Module):
    """What DeepSpeed takes for the model: it owns the parameters and hands on the loss that they made."""

    def __init__(self, parameters: list[Parameter]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameters)

    def forward(self, loss: Tensor) -> Tensor:
        return loss


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what DeepSpeed says on finding out which of its own kernels could be compiled here; none is taken."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _is_sharded(value: object) -> bool:
    """Whether an optimizer's state is cut as the weights are; a count of steps is not."""
    return isinstance(value, Tensor) and value.ndim > 0
