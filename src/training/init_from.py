"""`init_from=`: a new run starts from the weights of another one, of a file, or of another program, as far as they fit.

The last layer's rows go by the names of the classes (and of the further tasks) where these are known, so that it may have
learnt other classes, or the same in another order; `init_head=new` starts it anew. Normalising is the new data's; optimizer and
average start anew. What other programs call their layers is in `networks/foreign/`.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.config.parts import Node
from src.config.rules import split_source
from src.config.settings import Settings
from src.data.labels import LabelSet
from src.data.trained_on import CHECKPOINT_KEY, differences
from src.errors import UserError
from src.files.untrusted import shown
from src.models.base import Segmenter
from src.networks import weights
from src.networks.foreign import sources
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
        origin: where they are from.
        state: by this program's names, as far as they are known.
        outputs: what each row of the last layer stands for; None where nobody says.
        least: share of the network's values that they must have to be taken.
    """

    origin: str
    state: dict[str, Tensor]
    outputs: list[str] | None
    least: float = _LEAST


def start_from(given: str, model: Segmenter, settings: Settings, trust: Trust = OWN) -> list[str]:
    """Fills a model with what fits of a checkpoint, a run folder's best one, a file of bare tensors, or of a peer's model.

    Args:
        given: a path, or SOURCE:NAME.
        settings: the new run's.
        trust: whose settings they are.

    Returns:
        What was taken and what starts anew, in a few lines.

    Raises:
        UserError: there is no such file, it holds no weights, or those of another network.
    """
    if (source := split_source(given)) is not None:
        found, told = _of_source(*source, model, settings, trust)
    else:
        found, told = _of_path(given, model, settings)
    return [*_fill(model, found, settings, trust), *told]


def outputs_of(names: Sequence[str], tasks: MultiTask | None) -> list[str]:
    """What each output channel of a network is for: a class, or a channel of a task."""
    of_tasks = [] if tasks is None else list(tasks.by_name.items())
    further = [
        f"{name}: {names[i] if task.channels == len(names) else i}"
        for name, task in of_tasks
        for i in range(task.channels)
    ]
    return [*names, *further]


def _of_path(given: str, model: Segmenter, settings: Settings) -> tuple[Given, list[str]]:
    """Weights of a run or a file, and in what its images were others."""
    path = Path(given).expanduser()
    file = checkpoints.find(given) if path.is_dir() or not path.is_file() else path
    content = weights.read_file(file, "init_from")
    if not isinstance(content.get(CHECKPOINT_KEY), dict):
        return Given(str(file), _named(weights.tensors(content), model.state_dict()), None), []
    content = checkpoints.read(file)
    found = _of_checkpoint(content, file)
    told: list[str] = []
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):  # of a description that is none
        about = content[CHECKPOINT_KEY]
        told = [
            f"{file} was trained on other images: {difference}"
            for difference in differences(about, model.images, settings.data.dataset.node)
        ]
    return found, told


def _of_source(
    source: str, name: str, model: Segmenter, settings: Settings, trust: Trust
) -> tuple[Given, Sequence[str]]:
    """Weights of another program's model, and what there is to know of them."""
    if source == "timm-encoder":
        return Given(f"{source}:{name}", _encoder(name, model, settings, trust), None, least=0), ()
    found = sources.read(source, name, settings.network, model.network.state_dict().keys())
    state = {f"network.{key}" if key.startswith("core.") else key: value for key, value in found.state.items()}
    classes = None if found.classes is None else _as_ours(found.classes, model.label_set.names)
    return Given(found.origin, state, classes), found.remarks


def _encoder(name: str, model: Segmenter, settings: Settings, trust: Trust) -> dict[str, Tensor]:
    """An encoder's tensors out of a file: those that a network has which is built with it as `network.encoder_weights`."""
    node, encoder = settings.network.node, model.network.encoder
    if "encoder_weights" not in node or encoder is None:
        raise UserError(
            f"init_from: {settings.network.name} has no encoder for timm-encoder:{shown(name)}; take e.g. network=unet"
        )
    if not Path(name).expanduser().is_file():
        raise UserError(f"init_from: timm-encoder:{shown(name)}: there is no such file; correct it")
    try:
        built = _built({**node, "encoder_weights": name}, model, trust)
    except UserError as error:
        raise UserError(str(error).replace("network.encoder_weights:", "init_from:", 1)) from error
    prefix = next(name for name, module in model.network.named_modules() if module is encoder)
    return {f"network.{key}": value for key, value in built.items() if key.startswith(f"{prefix}.")}


def _as_ours(theirs: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Another program's names of classes, those that differ from one of ours in case, blanks or underscores called as ours."""
    known = {_plain(name): name for name in reversed(ours)}
    return [known.get(_plain(name), name) for name in theirs]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


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
    return Given(str(file), kept | averaged, outputs_of(label_set.names, tasks))  # the average is what was evaluated


def _fill(model: Segmenter, given: Given, settings: Settings, trust: Trust) -> list[str]:
    own = {key: value for key, value in model.state_dict().items() if key.startswith(("network.", _DISCRIMINATOR))}
    outputs = outputs_of(model.label_set.names, model.tasks)
    anew = settings.init_head == "new"
    same = not anew and (given.outputs is None or given.outputs == outputs)
    head = {} if given.outputs == outputs and not anew else _head(settings, model, trust)
    taken: dict[str, Tensor] = {}
    partly: list[str] = []
    for key, value in own.items():
        there = given.state.get(key)
        if there is None or (anew and key in head):
            continue
        if key in head and given.outputs is not None:
            rows = _rows(value, there, head[key], outputs, given.outputs)
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
    if share < given.least:
        raise UserError(
            f"init_from: the weights in {given.origin} do not fit this network ({len(network.keys() & taken.keys())} of its "
            f"{len(network)} tensors, {share:.0%} of its values); take the network they are of, or for an encoder's "
            "weights network.encoder_weights=FILE"
        )
    model.load_state_dict(model.state_dict() | taken)
    if model.ema is not None:
        model.ema.module.load_state_dict(model.network.state_dict())
    in_order = given.outputs is None and bool(head.keys() & taken.keys())
    told = list(_told(own, taken, given, outputs, partly, in_order, share))
    return [*told, f"the last layer ({len(head)} tensors) starts anew, as init_head says"] if anew else told


def _told(
    own: Mapping[str, Tensor], taken: Mapping[str, Tensor], given: Given, outputs: Sequence[str],
    partly: Sequence[str], in_order: bool, share: float,
) -> Iterator[str]:  # fmt: skip
    yield f"{given.origin}: {len(taken)} of {len(own)} tensors taken, {share:.0%} of the network's values"
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


def _rows(own: Tensor, there: Tensor, dim: int, outputs: Sequence[str], theirs: Sequence[str]) -> Tensor | None:
    """A head's tensor with the rows of the outputs that both have, and those that are of no output, as queries' "no object",
    which come last; None where it is no tensor of such rows.

    Args:
        dim: along which the outputs lie.
    """
    own, there = own.movedim(dim, 0), there.movedim(dim, 0) if there.ndim == own.ndim else there
    further = len(own) - len(outputs)
    if further < 0 or there.shape != (len(theirs) + further, *own.shape[1:]):
        return None
    rows = own.clone()
    rows[len(outputs) :] = there[len(theirs) :].to(rows.dtype)
    for row, name in enumerate(outputs):
        if name in theirs:
            rows[row] = there[theirs.index(name)].to(rows.dtype)
    return rows.movedim(0, dim)


def _head(settings: Settings, model: Segmenter, trust: Trust) -> dict[str, int]:
    """Names of the tensors that have a row for each of the network's outputs, and along which dimension: where one output more
    would make them longer by one."""
    wider = _built(settings.without_weights().network.node, model, trust, _channels(model) + 1)
    found: dict[str, int] = {}
    for key, value in model.network.state_dict().items():
        longer = [b - a for a, b in zip(value.shape, wider[key].shape, strict=True)] if key in wider else []
        if sorted(longer)[-1:] == [1] and sum(map(abs, longer)) == 1:
            found[f"network.{key}"] = longer.index(1)
    return found


def _channels(model: Segmenter) -> int:
    return model.label_set.num_classes + (model.tasks.channels if model.tasks is not None else 0)


def _built(node: Node, model: Segmenter, trust: Trust, outputs: int | None = None) -> dict[str, Tensor]:
    """The tensors of a network as a model's, made anew with other keys or another number of outputs."""
    with torch.random.fork_rng(devices=[]):
        network = build.make(
            node, "network", trust=trust, num_classes=outputs or _channels(model), in_channels=model.channels
        )
    state: dict[str, Tensor] = network.state_dict()
    return state


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
