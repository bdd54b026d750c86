"""Checkpoint files: written whole or not at all, read whole or not at all, without running any code that they carry."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError, field_validator

from src.config import signatures
from src.config.check import check_node
from src.config.moved import with_new_names
from src.config.parts import Node
from src.config.schema import GROUPS
from src.data.labels import LabelSet
from src.data.trained_on import CHECKPOINT_KEY as KEY
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.untrusted import check_plain, inside, shown
from src.storage import published, run_folder, torch_files
from src.storage.checkpoint_states import StateCheck, check_states
from src.storage.run_config import refuse_places
from src.storage.trust import Trust, check_targets, options

_log = logging.getLogger(__name__)
_MOST_VALUES = 100_000  # of a description
_MOST_CHANNELS = 4096
_NOT_READ = ("encoder_weights", "judge", "teacher")  # files that whoever draws or predicts has no need of
# What Lightning and this program write; of the rest, hyper_parameters say, Lightning would make something.
_KEYS = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops", "epoch", "global_step",
         "pytorch-lightning_version", "SegmentationDataModule", "MixedPrecision", KEY)  # fmt: skip
_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _About(BaseModel):
    """What a checkpoint says of its model."""

    model_config = ConfigDict(strict=True, extra="ignore", defer_build=True)
    config: dict[str, object]
    label_set: dict[str, object]
    channels: Annotated[int, Field(ge=1, le=_MOST_CHANNELS)]
    intensity: list[float] | tuple[float, float]
    class_weights: list[NonNegativeFloat] | None = None
    gradient_norms: list[float] = []
    temperature: Annotated[float, Field(gt=0, lt=1e6)] = 1.0

    @field_validator("config")
    @classmethod
    def _as_named_now(cls, value: dict[str, object]) -> dict[str, object]:
        return dict(with_new_names(value))

    @field_validator("intensity")
    @classmethod
    def _rises(cls, value: Sequence[float]) -> tuple[float, float]:
        low, high = value
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"no range: {value}")
        return float(low), float(high)


class _Place(BaseModel):
    """Where its data stood, and which these were: of each part how many samples, and a digest."""

    model_config = ConfigDict(strict=True, extra="ignore", defer_build=True)
    epoch: _Count
    consumed: _Count
    samples: dict[str, Annotated[list[int | str], Field(min_length=2, max_length=2)]] = {}


class _Progress(BaseModel):
    """What Lightning goes on with, as far as its own reading would not name what is wrong."""

    model_config = ConfigDict(strict=True, extra="ignore", arbitrary_types_allowed=True, defer_build=True)
    epoch: _Count = 0
    global_step: _Count = 0
    version: Annotated[str, Field(alias="pytorch-lightning_version", pattern=r"^\d+\.\d+(\.\w+)*(\+\w+)?$")] = "2.0"
    callbacks: dict[str, object] = {}
    optimizer_states: list[dict[str, object]] = []
    lr_schedulers: list[dict[str, object]] = []
    loops: dict[str, object] = {}
    data: Annotated[_Place | None, Field(alias="SegmentationDataModule")] = None
    segmenter: Annotated[_About, Field(alias=KEY)]


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of its model, checked: the run's config, the classes, the images that it takes, and the
    temperature of its probabilities."""

    config: dict[str, object]
    label_set: LabelSet
    channels: int
    intensity: tuple[float, float]
    class_weights: list[float] | None
    temperature: float = 1.0


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written to a temporary name, flushed, then renamed.

    Args:
        states: the callbacks whose states are taken out of a file that is read; None takes all that it has.
        callbacks: the run's, which such states have to fit; a `StateCheck` among them looks at the rest.
    """

    def __init__(self, states: Collection[str] | None = None, callbacks: Sequence[Callback] = ()) -> None:
        super().__init__()
        self.states = states
        self.callbacks = callbacks

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: str | Path, storage_options: object | None = None
    ) -> None:
        write_atomically(Path(path), lambda stream: torch.save(checkpoint, stream))

    def load_checkpoint(
        self, path: str | Path, map_location: object = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        content = read(Path(path))
        if self.states is not None:
            content = {key: value for key, value in content.items() if key in _KEYS}
            callbacks = content.get("callbacks") or {}
            content["callbacks"] = {key: state for key, state in callbacks.items() if key in self.states}
        known = [c for c in self.callbacks if type(c).__module__.startswith(("src.", "lightning."))]
        check_states(content.get("callbacks") or {}, known, Path(path))
        for callback in known:
            if isinstance(callback, StateCheck):
                callback.content = content
        return content


def find(given: str, prefer: tuple[str, ...] = (run_folder.BEST, run_folder.LAST)) -> Path:
    """The checkpoint file that `ckpt=` names: a file, a run folder whose best one is taken, or what `src.publish` made, in a
    folder or on the hub (`hf:OWNER/NAME`), whose weights are taken.

    Raises:
        UserError: there is none.
    """
    path = Path(given).expanduser()
    if given.startswith(published.SCHEME) and not path.exists():
        return published.of_hub(given)
    if path.is_dir():
        run_folder.check_own(path, (run_folder.CHECKPOINTS, published.WEIGHTS, published.DESCRIPTION))
        for name in prefer:
            if inside(path, name).is_file():
                return path / name
        if (path / published.WEIGHTS).is_file() and (path / published.DESCRIPTION).is_file():
            return path / published.WEIGHTS
        raise UserError(f"ckpt: {path} has no {' or '.join(prefer)}; give a run folder or a checkpoint file")
    if not path.is_file():
        raise UserError(f"ckpt: there is no file {path}; give a run folder or a checkpoint file")
    return (
        path.resolve() if path.is_symlink() else path
    )  # what the user names may be a link, unlike what lies in a folder


def read(file: Path) -> dict[str, Any]:
    """A checkpoint's content, tensors on the CPU. Only plain containers and tensors are read (`weights_only=True`).

    Raises:
        UserError: the file is no checkpoint, is truncated, or wants to run code.
    """
    try:
        is_published = file.name == published.WEIGHTS
        content = published.read(file) if is_published else torch_files.load(file, f"ckpt: {file}")
    except FileNotFoundError:
        raise UserError(f"ckpt: there is no file {file}") from None
    if not isinstance(content, dict) or not isinstance(content.get(KEY), dict) or "state_dict" not in content:
        raise UserError(f"ckpt: {file} is not a checkpoint of this program (no '{KEY}' in it)")
    _check_weights(content["state_dict"], file)
    check_plain({k: v for k, v in content[KEY].items() if k != "gradient_norms"}, f"ckpt: {file}", _MOST_VALUES)
    try:
        _Progress.model_validate(content)
    except ValidationError as error:
        raise _no_checkpoint(file, error) from None
    return content


def samples_of(file: Path) -> dict[str, Sequence[object]]:
    """What a checkpoint knows of the run's "training" and "validation" samples: their number and a digest of their names.

    It may be a stranger's; what is no such pair is left out.
    """
    state = read(file).get("SegmentationDataModule")
    samples = state.get("samples") if isinstance(state, dict) else None
    known = samples.items() if isinstance(samples, dict) else ()
    return {str(part): told for part, told in known if isinstance(told, list | tuple) and len(told) == 2}


def write_calibrated(file: Path, temperature: float, output: Path) -> None:
    """Writes what of a checkpoint predicts, with the temperature of its probabilities: the same weights, so the same classes.
    What training would go on with is left out.

    Raises:
        OSError: it cannot be written.
    """
    content = read(file)
    of_training = ("optimizer_states", "lr_schedulers", "callbacks", "loops")
    kept = {key: value for key, value in content.items() if key not in of_training}
    kept[KEY] = {**content[KEY], "temperature": temperature}
    write_atomically(output, lambda stream: torch.save(kept, stream))


def describe(content: dict[str, object], file: Path, trust: Trust, groups: Sequence[str]) -> Description:
    """What a checkpoint says of its model, checked: of the config's groups that are named nothing else may be built than this
    program's own parts and what is trusted, and no path or URL is in them.

    Raises:
        UserError: the description is none, or names anything else.
    """
    try:
        about = _About.model_validate(content[KEY])
        label_set = LabelSet.from_dict(about.label_set)
    except ValidationError as error:
        raise _no_checkpoint(file, error) from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"ckpt: {file} is not a checkpoint of this program ({shown(repr(error))} in its description)"
        ) from error
    except UserError as error:
        raise UserError(f"ckpt: {file}: {error}") from error
    _check_groups(about.config, file)
    weights = about.class_weights
    if weights is not None and len(weights) != label_set.num_classes:
        raise UserError(f"ckpt: {file} has {len(weights)} class weights for {label_set.num_classes} classes; refused")
    for group in groups:
        node = about.config.get(group)
        if node is None and group == "tasks":
            continue
        if not isinstance(node, dict) or "_target_" not in node:
            raise UserError(f"ckpt: {file} is not a checkpoint of this program (no {group} in its description)")
        check_targets(node, trust, group)
        if not trust.covers(str(node["_target_"])):
            refuse_places({key: value for key, value in node.items() if key not in _NOT_READ}, group, file)
        try:
            check_node(group, node)
        except UserError as error:
            raise UserError(f"ckpt: {file}: {error}") from error
    assert isinstance(about.intensity, tuple)
    return Description(about.config, label_set, about.channels, about.intensity, weights, about.temperature)


def trusted_metrics(nodes: object, trust: Trust) -> dict[str, Node]:
    """Those of a checkpoint's own metrics that may be built; the scores do not depend on the others, which are named."""
    allowed: dict[str, Node] = {}
    for name, node in nodes.items() if isinstance(nodes, Mapping) else ():
        try:
            if isinstance(node, Mapping):
                check_targets(node, trust, f"metrics.{name}")
                check_node(f"metrics.{name}", node)
                allowed[name] = node
        except UserError as error:
            _log.warning("metrics.%s is left out: %s", shown(str(name)), error)
    return allowed


def _check_groups(config: dict[str, Any], file: Path) -> None:
    """Checks that a description's groups are such, and that what prediction reads of its data has the types that it should."""
    for group in GROUPS:
        if not isinstance(config.get(group), dict | None):
            raise UserError(f"ckpt: {file} is not a checkpoint of this program (its {group} is no group of settings)")
    dataset = (config.get("data") or {}).get("dataset")
    if not isinstance(dataset, dict | None):
        raise UserError(f"ckpt: {file} is not a checkpoint of this program (its data.dataset is no group of settings)")
    target = (dataset or {}).get("_target_")
    signature = signatures.own_signature(target) if target in options("data.dataset") else None
    for key, parameter in signature.parameters.items() if signature is not None else ():
        reason = signatures.mismatch(parameter.annotation, dataset[key]) if dataset and key in dataset else None
        if reason is not None:
            raise UserError(f"ckpt: {file}: data.dataset.{key}: {reason}, not {shown(repr(dataset and dataset[key]))}")


def _check_weights(state: object, file: Path) -> None:
    bad = UserError(f"ckpt: {file} is not a checkpoint of this program (its weights are no tensors by name)")
    if not isinstance(state, dict):
        raise bad
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise bad
        if value.layout != torch.strided or value.device.type != "cpu":
            raise bad
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"ckpt: {file} has weights that are larger than what it holds ({shown(key)}); refused")


def _no_checkpoint(file: Path, error: ValidationError) -> UserError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return UserError(f"ckpt: {file} is not a checkpoint of this program ({shown(where)}: {shown(str(first['msg']))})")


def previous_of(run_dir: Path) -> list[Path]:
    """Checkpoints to go on from, newest first."""
    return [f for f in (run_dir / run_folder.LAST, run_dir / run_folder.PREVIOUS) if f.is_file()]
