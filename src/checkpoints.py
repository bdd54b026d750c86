"""Checkpoint files: written whole or not at all, read without running any code that they carry."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from src import run_folder
from src.config.check import check_node
from src.config.signatures import own_signature
from src.data.labels import LabelSet
from src.errors import UserError
from src.models.base import CHECKPOINT_KEY as KEY

# What a checkpoint may build: the room, and the parameter that marks the room's builders among its helpers.
_BUILT_FROM = {
    "network": ("src.networks.", "num_classes"),
    "model": ("src.models.", "label_set"),
    "loss": ("src.losses.", "ignore_index"),
    "tasks": ("src.tasks.", "label_set"),
}
# The only nodes that may stand inside one of these.
_PARTS = {"model": {"noise": "src.models.noise.Noise", "semi": "src.models.semi.Semi"}}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written to a temporary name, flushed, then renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        run_folder.write_atomically(Path(path), lambda stream: torch.save(checkpoint, stream))

    def load_checkpoint(
        self, path: _PATH, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read(Path(path))


def find(given: str, prefer: tuple[str, ...] = (run_folder.BEST, run_folder.LAST)) -> Path:
    """The checkpoint file that `ckpt=` names: a file, or a run folder whose best one is taken.

    Raises:
        UserError: there is none.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        run_folder.check_own(path, (run_folder.CHECKPOINTS,))
        for name in prefer:
            if (path / name).is_file():
                return path / name
        raise UserError(f"ckpt: {path} has no {' or '.join(prefer)}; give a run folder or a checkpoint file")
    if not path.is_file():
        raise UserError(f"ckpt: there is no file {path}; give a run folder or a checkpoint file")
    return path


def read(file: Path) -> dict[str, Any]:
    """A checkpoint's content, tensors on the CPU. Only plain containers and tensors are read (`weights_only=True`).

    Raises:
        UserError: the file is no checkpoint, is truncated, or wants to run code.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"ckpt: there is no file {file}") from None
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(file):
            raise UserError(
                f"ckpt: {file} holds more than tensors and plain data and was not opened, since opening it could run code"
            ) from error
        raise UserError(f"ckpt: {file} is not a checkpoint") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"ckpt: {file} is damaged or not a checkpoint; use another one") from error
    if not isinstance(content, dict) or not isinstance(content.get(KEY), dict) or "state_dict" not in content:
        raise UserError(f"ckpt: {file} is not a checkpoint of this program (no '{KEY}' in it)")
    return content


def describe(content: dict[str, Any], file: Path) -> tuple[dict[str, Any], LabelSet]:
    """The config and label set in a checkpoint, checked: it may only name this project's own networks, models, losses, tasks.

    Raises:
        UserError: the config names anything else.
    """
    try:
        about = content[KEY]
        config, label_set = about["config"], LabelSet.from_dict(about["label_set"])
        for group in _BUILT_FROM:
            if group != "tasks" or config.get(group) is not None:
                _allow(config[group], group, file)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"ckpt: {file} is not a checkpoint of this program ({error!r} in its description)") from error
    return config, label_set


def previous_of(run_dir: Path) -> list[Path]:
    """Checkpoints to go on from, newest first."""
    return [f for f in (run_dir / run_folder.LAST, run_dir / run_folder.PREVIOUS) if f.is_file()]


def _allow(node: Any, group: str, file: Path) -> None:
    """Refuses a group of a checkpoint's config that names anything but one of its room's own builders, or nests more."""
    prefix, takes = _BUILT_FROM[group]
    target = node["_target_"]
    public = isinstance(target, str) and target.startswith(prefix) and "._" not in target
    signature = own_signature(target) if public else None
    if signature is None or takes not in signature.parameters:
        raise UserError(
            f"ckpt: {file} wants to build {target!r}; in {group} a checkpoint may only name what this program has"
        )
    parts = _PARTS.get(group, {})
    for key, value in node.items():
        is_part = key in parts and isinstance(value, dict) and value.get("_target_") == parts[key]
        if _has_more(value if is_part else {key: value}):
            raise UserError(f"ckpt: {file} has more in its {group} than a {group}'s settings ({key}); refused")
    check_node(group, node)


def _has_more(node: dict[str, Any]) -> bool:
    """Whether a node has anything beside its target and plain settings."""
    return any((key.startswith("_") and key != "_target_") or _nests(value) for key, value in node.items())


def _nests(value: Any) -> bool:
    if isinstance(value, list):
        return any(_nests(item) for item in value)
    return isinstance(value, dict)
