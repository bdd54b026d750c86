"""`init_from=`: a new run starts from the weights of another one, or of a file, as far as they fit.

Of a checkpoint of this program the last layer's rows go by the names of the classes (and of the further tasks), so that it may
have learnt other classes, or the same in another order. Normalising is the new data's; optimizer and average start anew.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.config.settings import Settings
from src.data.labels import LabelSet
from src.data.trained_on import CHECKPOINT_KEY, differences
from src.errors import UserError
from src.files.untrusted import shown
from src.models.base import Segmenter
from src.networks import weights
from src.storage import checkpoints
from src.storage.trust import OWN, Trust
from src.tasks.multi_task import MultiTask
from src.training import build

_log = logging.getLogger(__name__)
_LEAST = 0.25  # of a network's values; less is another network, of which some names agree
_LISTED = 3
_DISCRIMINATOR = "discriminator."
# What other programs put before a network's names, and what stands before the same part's names in ours.
_THEIRS = ("module.", "model.", "network.", "net.", "_orig_mod.")
_OURS = ("", "network.", "network.core.", "network.core.model.")
_DEPTH = 3  # of prefixes


@dataclass(frozen=True)
class Given:
    """Weights from elsewhere.

    Attributes:
        state: by this program's names, as far as they are known.
        outputs: what each row of the last layer stands for; None where nobody says.
    """

    state: dict[str, Tensor]
    outputs: list[str] | None


def start_from(given: str, model: Segmenter, settings: Settings, trust: Trust = OWN) -> list[str]:
    """Fills a model with what fits of a checkpoint, a run folder's best one, or a file of bare tensors.

    Args:
        settings: the new run's.
        trust: whose settings they are.

    Returns:
        What was taken and what starts anew, in a few lines.

    Raises:
        UserError: there is no such file, it holds no weights, or those of another network.
    """
    path = Path(given).expanduser()
    file = checkpoints.find(given) if path.is_dir() or not path.is_file() else path
    content = weights.read_file(file, "init_from")
    told: list[str] = []
    if isinstance(content.get(CHECKPOINT_KEY), dict):
        content = checkpoints.read(file)
        found = _of_checkpoint(content, file)
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):  # of a description that is none
            about = content[CHECKPOINT_KEY]
            told = [
                f"{file} was trained on other images: {difference}"
                for difference in differences(about, model.images, settings.data.dataset.node)
            ]
    else:
        found = Given(_named(weights.tensors(content), model.state_dict()), None)
    return [*_fill(model, found, file, settings, trust), *told]


def outputs_of(names: Sequence[str], tasks: MultiTask | None) -> list[str]:
    """What each output channel of a network is for: a class, or a channel of a task."""
    of_tasks = [] if tasks is None else list(tasks.by_name.items())
    further = [
        f"{name}: {names[i] if task.channels == len(names) else i}"
        for name, task in of_tasks
        for i in range(task.channels)
    ]
    return [*names, *further]


def _of_checkpoint(content: Mapping[str, Any], file: Path) -> Given:
    """What a checkpoint says of how to build its model plays no part."""
    about = content[CHECKPOINT_KEY]
    try:
        label_set = LabelSet.from_dict(about["label_set"])
        node = about["config"].get("tasks") or {}
        depth, boundary, label = (float(node.get(name, 0)) for name in ("depth", "boundary", "label"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"init_from: {file} does not say what its classes are ({error!r}); use another one") from error
    tasks = MultiTask(label_set, depth, boundary, label) if depth or boundary or label else None
    state = {key.replace("_orig_mod.", ""): value for key, value in content["state_dict"].items()}
    averaged = {f"network.{k.removeprefix('ema.module.')}": v for k, v in state.items() if k.startswith("ema.module.")}
    kept = {key: value for key, value in state.items() if not key.startswith(("ema.", "normalization."))}
    return Given(kept | averaged, outputs_of(label_set.names, tasks))  # the average is what was evaluated


def _fill(model: Segmenter, given: Given, file: Path, settings: Settings, trust: Trust) -> list[str]:
    own = {key: value for key, value in model.state_dict().items() if key.startswith(("network.", _DISCRIMINATOR))}
    outputs = outputs_of(model.label_set.names, model.tasks)
    same = given.outputs is None or given.outputs == outputs
    head = set() if given.outputs == outputs else _head(settings, model, trust)
    taken: dict[str, Tensor] = {}
    partly: list[str] = []
    for key, value in own.items():
        there = given.state.get(key)
        if there is None:
            continue
        if key in head and given.outputs is not None:
            rows = _rows(value, there, outputs, given.outputs)
            if rows is not None:
                taken[key] = rows
                partly.append(key)
        elif there.shape == value.shape and not (key.startswith("network.tasks.") and not same):
            taken[key] = there
    judges = {key for key in own if key.startswith(_DISCRIMINATOR)}
    if not (same and judges <= taken.keys()):  # its input are the classes: all of it, or none
        taken = {key: value for key, value in taken.items() if key not in judges}
    network = {key: value for key, value in own.items() if key not in judges and value.is_floating_point()}
    share = _values(network.keys() & taken.keys(), own) / _values(network.keys(), own)
    if share < _LEAST:
        raise UserError(
            f"init_from: the weights in {file} do not fit this network ({len(network.keys() & taken.keys())} of its "
            f"{len(network)} tensors, {share:.0%} of its values); take the network they are of, or for an encoder's "
            "weights network.encoder_weights=FILE"
        )
    model.load_state_dict(model.state_dict() | taken)
    if model.ema is not None:
        model.ema.module.load_state_dict(model.network.state_dict())
    in_order = given.outputs is None and bool(head & taken.keys())
    return list(_told(file, own, taken, given, outputs, partly, in_order, share))


def _told(
    file: Path, own: Mapping[str, Tensor], taken: Mapping[str, Tensor], given: Given, outputs: Sequence[str],
    partly: Sequence[str], in_order: bool, share: float,
) -> Iterator[str]:  # fmt: skip
    yield f"{file}: {len(taken)} of {len(own)} tensors taken, {share:.0%} of the network's values"
    if partly:
        assert given.outputs is not None
        kept = [name for name in outputs if name in given.outputs]
        new = [name for name in outputs if name not in given.outputs]
        gone = [name for name in given.outputs if name not in outputs]
        yield (
            f"the last layer by the names of its outputs: taken {_some(kept, 12)}; new {_some(new, 12)}; "
            f"left out {_some(gone, 12)}"
        )
    elif in_order:
        yield f"the file does not name its classes; they are taken to be, in this order, {_some(outputs, 12)}"
    if anew := [key for key in own if key not in taken]:
        yield f"start anew: {_some([f'{key} {list(own[key].shape)}' for key in anew])}"
    if unused := [key for key in given.state if key not in own]:
        yield f"not used: {_some(unused)}"


def _rows(own: Tensor, there: Tensor, outputs: Sequence[str], theirs: Sequence[str]) -> Tensor | None:
    """A head's tensor with the rows of the outputs that both have; None where it is no tensor of such rows."""
    if own.shape[:1] != (len(outputs),) or there.shape[:1] != (len(theirs),) or own.shape[1:] != there.shape[1:]:
        return None
    rows = own.clone()
    for row, name in enumerate(outputs):
        if name in theirs:
            rows[row] = there[theirs.index(name)].to(rows.dtype)
    return rows


def _head(settings: Settings, model: Segmenter, trust: Trust) -> set[str]:
    """Names of the tensors whose first dimension are the network's outputs: those that one output more would make longer."""
    outputs = model.label_set.num_classes + (model.tasks.channels if model.tasks is not None else 0)
    with torch.random.fork_rng(devices=[]):
        wider = build.make(
            settings.without_weights().network.node,
            "network",
            trust=trust,
            num_classes=outputs + 1,
            in_channels=model.channels,
        ).state_dict()
    own = model.network.state_dict()
    longer = torch.Size([outputs + 1])
    return {
        f"network.{key}"
        for key, value in wider.items()
        if key in own and value.shape[:1] == longer != own[key].shape[:1]
    }


def _named(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Another program's tensors by our names: prefixes are taken off and put on such that most of them fit."""
    variants = [dict(state)]
    for variant in variants:
        fewer = [prefix for prefix in _THEIRS if any(key.startswith(prefix) for key in variant)]
        if len(variants) < len(_THEIRS) ** _DEPTH:
            variants += [{key.removeprefix(prefix): value for key, value in variant.items()} for prefix in fewer]
    renamed = [{prefix + key: value for key, value in variant.items()} for variant in variants for prefix in _OURS]
    return max(renamed, key=lambda names: sum(k in own and own[k].shape == v.shape for k, v in names.items()))


def _values(keys: Any, own: Mapping[str, Tensor]) -> int:
    return sum(own[key].numel() for key in keys)


def _some(names: Sequence[str], most: int = _LISTED) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(shown(name, 80) for name in names[:most])}{more}"
