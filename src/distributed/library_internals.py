"""The private parts of Lightning, torch and DeepSpeed that this program leans on, all of them, each as one function.

A private name may change with any release. So none is used elsewhere (`tests/test_private_names.py`), and for each there is a
test in `tests/distributed/test_library_internals.py` that fails by name when a new version has changed it.
"""

from __future__ import annotations

import contextlib
import datetime
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._python_dispatch import TorchDispatchMode


def observe_launched(observe: Callable[[list[subprocess.Popen[bytes]]], None]) -> None:
    """Has Lightning's launcher hand the processes that it started to `observe`, in place of to its own observer.

    Lightning's kills the first process with the others when one dies, so that nobody is left to say why. No argument of the
    launcher or the trainer replaces it. Test: `test_launched_processes_go_to_our_observer`.
    """
    subprocess_script._launch_process_observer = observe  # type: ignore[attr-defined, assignment]


def set_timeout(strategy: Strategy, timeout: datetime.timedelta) -> None:
    """Sets how long a collective may wait, before the processes know each other.

    Strategies take it as an argument, but the trainer builds those that a config names ("ddp") and hands none on. Only
    strategies of several processes read it. Test: `test_timeout_of_collectives`.
    """
    strategy._timeout = timeout  # type: ignore[attr-defined]


def shard_over_all(strategy: ModelParallelStrategy) -> None:
    """Has the weights cut over all processes of all nodes.

    Lightning's "auto" cuts them over the nodes, and the number that its constructor would take is known only once the
    trainer has counted devices. Test: `test_weights_are_cut_over_all_processes`.
    """
    strategy._data_parallel_size = strategy.num_nodes * strategy.num_processes


def synchronise_batch_norms(strategy: ParallelStrategy, part: nn.Module) -> None:
    """Turns the batch norms of `part` into synchronised ones, where `trainer.sync_batchnorm` asks for it.

    Lightning does it by itself after a sharded model has been cut, when it is too late, and keeps the trainer's wish nowhere
    else. Test: `test_batch_norms_are_synchronised_before_the_cut`.
    """
    if strategy._layer_sync is not None:
        strategy._layer_sync.apply(part)


def broadcast_coalesced(tensors: Sequence[Tensor]) -> None:
    """Gives every process the tensors of rank zero, in place, in few messages of up to 32 MB, as DDP does with buffers.

    `torch.distributed.broadcast` sends a message for each tensor, of which a network's batch norms have hundreds. Test:
    `test_tensors_are_broadcast`.
    """
    group = dist.distributed_c10d._get_default_group()
    dist._broadcast_coalesced(group, list(tensors), 2**25, 0)  # type: ignore[attr-defined]


def lend_optimizer_state(parameter: nn.Parameter, shard: nn.Parameter, state: dict[str, Tensor]) -> None:
    """Tells DeepSpeed which part of a shard's optimizer state belongs to a parameter, where this process has a part of it.

    DeepSpeed finds that out when it loads a checkpoint of its own, which we never do, and its public
    `safe_get_full_optimizer_state` needs it. Test: `test_deepspeed_keeps_its_fragments`.
    """
    fragment = parameter._hp_mapping  # type: ignore[attr-defined]
    if fragment is not None:
        fragment.set_optim_state_fragment(shard, state)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm of any number of dimensions, synchronised or not.

    torch's public classes (`BatchNorm1d` to `3d`, `SyncBatchNorm`) do not cover subclasses of their common parent, which
    timm has. Test: `test_batch_norms_have_one_parent`.
    """
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def set_schedule_position(schedule: LRScheduler, step: int, rates: Sequence[float | Tensor]) -> None:
    """Puts a schedule at a step whose learning rates (one a group) are already in the optimizer.

    `schedule.step(epoch)` is deprecated and `load_state_dict` takes the functions of the rates from the state, too. Test:
    `test_schedule_goes_on_from_a_step`.
    """
    schedule.last_epoch, schedule._step_count = step, step + 1
    schedule._last_lr = list(rates)


def ask_no_rank_for_sigterm(trainer: L.Trainer) -> None:
    """Has ranks no longer tell one another before each batch whether one of them got SIGTERM.

    It is a collective whose answer the host waits for, so that the device has nothing queued when a step begins. Only for a run
    whose signals do not go to Lightning. Test: `test_ranks_are_not_asked_for_sigterm`.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def uncount_started_batch(checkpoint: dict[str, Any]) -> None:
    """Has a checkpoint that is made at a batch's start say what Lightning's own at the end of the batch before would.

    Lightning has counted the batch that is about to begin, and has no hook between the end of a batch, with its figures
    logged, and that. It counts on when it resumes. Test: `test_a_checkpoint_between_batches_counts_none_too_many`.
    """
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
    progress = loops["epoch_loop.batch_progress"]
    progress["is_last_batch"] = False  # the next one may be, and is still to come
    for scope in ("total", "current"):
        for counted in ("ready", "completed"):
            progress[scope][counted] -= 1


def uncount_cut_epoch(checkpoint: dict[str, Any]) -> None:
    """Has a checkpoint at the end of a run that `max_steps` stopped within an epoch say that the epoch is not done.

    Lightning counts such an epoch as a whole one, so that a longer run would leave its other batches out. Test:
    `test_a_checkpoint_of_a_cut_epoch_goes_on_within_it`.
    """
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
    loops["epoch_loop.batch_progress"]["is_last_batch"] = False
    for scope in ("total", "current"):
        loops["epoch_loop.batch_progress"][scope]["completed"] -= 1
        loops["epoch_progress"][scope]["processed"] -= 1


@contextlib.contextmanager
def before_each_operation(look: Callable[[tuple[object, ...]], None]) -> Iterator[None]:
    """Within it, `look` is given the arguments of each operation of torch before it runs; what it raises stops that.

    The public `TorchFunctionMode` does not see what torch's own modules call from C++, the making of tensors among it. Test:
    `test_each_operation_is_looked_at`.
    """

    class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> object:
            look(args)
            return function(*args, **(kwargs or {}))

    with Mode():  # type: ignore[no-untyped-call]
        yield
