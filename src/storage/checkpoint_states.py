"""What a checkpoint would restore is what the run itself writes: the same keys, and values of the same kind and shape.

Lightning and torch put what they read in the place of what they have, and some of it would be missed much later: a rate that is
text, a moment of another shape, a schedule with a value in the place of one of its methods.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from torch.optim import Optimizer

from src.config.parts import Config
from src.errors import UserError, memory_ran_out
from src.files.untrusted import shown

_LARGEST = 2**53
_RESTORES = "checkpoint_connector.py"  # Lightning's, which puts what was read where it belongs


def misfit(own: object, read: object, at: str) -> str | None:
    """Where and how a value that was read is of another kind than the program's own, or has another shape; None where it fits.

    Keys that only one of the two has are left to whoever uses them. What is empty or None on our side may hold plain values.

    Args:
        own: what a fresh object's `state_dict()` gives.
        read: what a file has in its place.
        at: its name, for the message.
    """
    if isinstance(own, Mapping) and isinstance(read, Mapping):
        if not own:
            return next((f"{at} holds {_told(value)}" for value in read.values() if not _is_plain(value)), None)
        found = (misfit(value, read[key], f"{at}.{key}") for key, value in own.items() if key in read)
        return next((bad for bad in found if bad), None)
    if isinstance(own, torch.Tensor) and isinstance(read, torch.Tensor):
        fits = own.shape == read.shape and own.is_floating_point() == read.is_floating_point()
    elif isinstance(own, list | tuple) and isinstance(read, list | tuple):
        if own and len(own) == len(read):
            pairs = zip(own, read, strict=True)
        elif own and _is_plain(own[0]):
            pairs = zip([own[0]] * len(read), read, strict=True)
        else:
            return next((f"{at} holds {_told(value)}" for value in read if own or not _is_plain(value)), None)
        found = (misfit(value, other, f"{at}.{i}") for i, (value, other) in enumerate(pairs))
        return next((bad for bad in found if bad), None)
    elif own is None:
        fits = _is_plain(read)
    elif isinstance(own, bool) or isinstance(read, bool):
        fits = isinstance(own, bool) and isinstance(read, bool)
    elif isinstance(own, int | float):
        fits = (isinstance(read, int) and abs(read) < _LARGEST) or (isinstance(read, float) and isinstance(own, float))
    else:
        fits = isinstance(read, str) and isinstance(own, str)
    return None if fits else f"{at} is {_told(read)}, not {_told(own)}"


def batches_done(content: Mapping[str, object], file: Path) -> int:
    """Training batches that were done when a checkpoint was written.

    Raises:
        UserError: it does not say.
    """
    done: object = content.get("loops")
    for key in ("fit_loop", "epoch_loop.batch_progress", "total", "processed"):
        done = done.get(key) if isinstance(done, Mapping) else None
    if not isinstance(done, int) or not 0 <= done < _LARGEST:
        raise _no_fit("it does not say where training stood", file)
    return done


class Counts(NamedTuple):
    """By what a schedule is planned: images of a batch, batches of a step."""

    batch_size: int
    accumulate: int


def counts_of(config: Config, file: Path) -> Counts:
    """The numbers by which the schedule of a run that has changed is planned from where it was.

    Raises:
        UserError: a checkpoint's config has none such.
    """
    found: list[int] = []
    for group, key in (("data", "batch_size"), ("trainer", "accumulate_grad_batches")):
        node = config.get(group)
        value = node.get(key, 1) if isinstance(node, Mapping) else None
        if not isinstance(value, int) or not 0 < value < _LARGEST:
            raise _no_fit(f"{group}.{key} of its config is {_told(value)}", file)
        found.append(value)
    return Counts(*found)


def check_states(states: Mapping[str, object], callbacks: Iterable[L.Callback], file: Path) -> None:
    """Checks callbacks' saved states against those that they have now.

    Raises:
        UserError: one is of another kind.
    """
    for callback in callbacks:
        if callback.state_key in states:
            _refuse(misfit(callback.state_dict(), states[callback.state_key], type(callback).__name__), file)


class StateCheck(L.Callback):
    """Checks where training stood, its optimizers and schedules, once these are built and before Lightning restores them.

    Args:
        file: the checkpoint.

    Attributes:
        content: what was read of it, for as long as it is needed.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content: Mapping[str, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        content, self.content = self.content, {}
        if not content:  # of a strategy that reads the file later, or itself
            return
        _refuse(_of_loops(trainer, content.get("loops")), self.file)
        optimizers, schedules = content.get("optimizer_states"), content.get("lr_schedulers")
        own = [config.scheduler for config in trainer.lr_scheduler_configs]
        for name, parts, states in (("optimizers", trainer.optimizers, optimizers), ("schedules", own, schedules)):
            if not isinstance(states, list) or len(states) != len(parts):
                _refuse(f"it has not the run's {len(parts)} {name}", self.file)
        for optimizer, state in zip(trainer.optimizers, optimizers or [], strict=True):
            _refuse(_of_optimizer(optimizer, state), self.file)
        for schedule, state in zip(own, schedules or [], strict=True):
            for key in state:
                if callable(getattr(type(schedule), str(key), None)):  # torch would take it for the method
                    _refuse(f"its schedule has {shown(str(key))}", self.file)
            _refuse(misfit(schedule.state_dict(), state, "schedule"), self.file)


def told(error: BaseException, file: Path) -> UserError | None:
    """What to tell of an error that Lightning or torch raised while it restored a checkpoint; None of any other."""
    if isinstance(error, OSError) or memory_ran_out(error):
        return None
    frames = traceback.extract_tb(error.__traceback__)
    if not any(frame.filename.endswith(_RESTORES) and "dump" not in frame.name for frame in frames):
        return None
    words = " ".join(str(error).split())
    return _no_fit(f"{type(error).__name__}: {shown(words)}", file)


def _of_loops(trainer: L.Trainer, loops: object) -> str | None:
    read = loops.get("fit_loop") if isinstance(loops, Mapping) else None
    if not isinstance(read, Mapping):
        return "it does not say where training stood"
    own = trainer.fit_loop.state_dict()
    bad = misfit(own, read, "fit_loop")
    return bad or next((f"{at} is negative" for at, value in _numbers(read, "fit_loop") if value < 0), None)


def _numbers(values: Mapping[object, object], at: str) -> Iterable[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{at}.{key}")
        elif isinstance(value, int | float):
            yield f"{at}.{key}", value


def _of_optimizer(optimizer: Optimizer, read: Mapping[str, object]) -> str | None:
    own = optimizer.state_dict()
    if "param_groups" not in own:  # DeepSpeed's: what does not fit it fails while it is restored
        return None
    groups, states = read.get("param_groups"), read.get("state")
    if not isinstance(groups, list) or len(groups) != len(own["param_groups"]) or not isinstance(states, Mapping):
        return "its optimizer has other groups than the run's"
    for i, (group, its) in enumerate(zip(own["param_groups"], groups, strict=True)):
        if not isinstance(its, Mapping) or its.get("params") != group["params"]:
            return f"group {i} of its optimizer has other parameters than the run's"
        if absent := [k for k, v in group.items() if _is_measure(v) and k not in its]:
            return f"group {i} of its optimizer has no {absent[0]}"
        numbers = [v for value in its.values() for v in (value if isinstance(value, list | tuple) else [value])]
        if not all(math.isfinite(v) for v in numbers if isinstance(v, float)):
            return f"group {i} of its optimizer has a number that is none"
        if bad := misfit(group, its, f"group {i}"):
            return bad
    if isinstance(optimizer, torch.optim.LBFGS):  # whose state is one vector of all parameters, and lists of them
        return None
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    of_kind: dict[bool, set[object]] = {}
    for index, state in states.items():
        if not isinstance(index, int) or not 0 <= index < len(parameters) or not isinstance(state, Mapping):
            return "its optimizer has a state of no parameter"
        # Adafactor keeps other values of vectors than of the rest
        of_kind.setdefault(parameters[index].ndim > 1, set()).add(frozenset(state))
        for name, value in state.items():
            if not _is_of(value, parameters[index].shape):
                return f"{shown(str(name))} of parameter {index} is {_told(value)}"
    if any(len(kept) > 1 for kept in of_kind.values()):
        return "its optimizer keeps other values of one parameter than of another"
    return None


def _is_of(value: object, shape: Sequence[int]) -> bool:
    """Whether a value can belong to a parameter of that shape: a number, a tensor of its shape, or of its rows or columns."""
    if not isinstance(value, torch.Tensor):
        return value is None or (isinstance(value, int | float) and abs(value) < _LARGEST)
    alike = value.ndim == len(shape) and all(n in (1, m) for n, m in zip(value.shape, shape, strict=True))
    return value.is_floating_point() and (value.numel() == 1 or alike)


def _is_measure(value: object) -> bool:
    """Whether a value of an optimizer's group is a number or some, unlike the switches that a new version may add."""
    return isinstance(value, float | tuple) or (isinstance(value, int) and not isinstance(value, bool))


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | float | str) or (isinstance(value, int) and abs(value) < _LARGEST)


def _told(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return shown(repr(value), 40) if _is_plain(value) else f"a {type(value).__name__}"


def _refuse(reason: str | None, file: Path) -> None:
    if reason is not None:
        raise _no_fit(reason, file)


def _no_fit(reason: str, file: Path) -> UserError:
    return UserError(
        f"resume: {file} holds what does not fit this run ({shown(reason)}); remove it and the one before is taken, or start "
        f"anew from its weights: init_from={file}"
    )
