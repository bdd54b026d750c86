"""From checked settings to objects: data, network, model, trainer. Everything is built here, and only from here."""

from __future__ import annotations

import datetime
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torchmetrics import Metric

from src.config import signatures
from src.config.check import check_node, has_adversary
from src.data.datamodule import SegmentationDataModule
from src.data.dataset import Source, class_counts
from src.data.labels import LabelSet
from src.data.trained_on import CHECKPOINT_KEY, Images
from src.distributed.deepspeed import ZeroStrategy
from src.distributed.fsdp import ShardedStrategy
from src.distributed.library_internals import set_timeout
from src.errors import UserError
from src.files import untrusted
from src.models.base import Segmenter
from src.optimization.updates import Optimization
from src.seeding import derive
from src.storage import checkpoints, run_folder
from src.storage.trust import STRANGER, Trust, check_targets, split_packages
from src.tasks.multi_task import MultiTask
from src.training.size_limit import no_larger_than

Settings = Mapping[str, Any]
_log = logging.getLogger(__name__)
_OF_STEP = {"accumulate_grad_batches": "accumulate", "gradient_clip_val": "clip"}
_OF_ZERO = {"zero_stage": "stage", "offload": "offload"}
_TO_PREDICT = ("network", "model", "tasks")
_OF_GROUPS = ("lr", "weight_decay", "encoder_lr_factor", "decay_norm_and_bias")


def make(
    node: Settings, slot: str, *positional: Any, trust: Trust = STRANGER, later: bool = False, **given: Any
) -> Any:
    """Calls a node's `_target_` with the node's keys, nodes inside it built first, and with what code gives.

    A node with `_partial_: true` gives a function that still takes what is missing. Unlike Hydra's `instantiate` it
    hands errors on as they are and never copies what code gives. Nothing that a config names is called but here.

    Args:
        slot: where in the config the node stands, `data.augment` say: each allows its own kind.
        trust: whose config it is.
        later: give a function that takes what is missing.

    Raises:
        UserError: the node names nothing, or of this config no such thing is built there.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise UserError(f"{slot}: names nothing that can be built; say {slot}._target_=…, or choose one of its options")
    trust.check(slot, node)
    function = get_object(node["_target_"])
    trust.check_object(slot, node["_target_"], function)
    own = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    arguments = {key: _build(value, f"{slot}.{key}", trust) for key, value in own.items()} | given
    partial = later or node.get("_partial_")
    return functools.partial(function, *positional, **arguments) if partial else function(*positional, **arguments)


def _build(value: Any, slot: str, trust: Trust) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return make(value, slot, trust=trust)
        return {key: _build(inner, f"{slot}.{key}", trust) for key, inner in value.items()}
    return [_build(inner, slot, trust) for inner in value] if isinstance(value, list | tuple) else value


def build_data(
    data: Settings,
    seed: int,
    use_unlabeled: bool = False,
    use_depth: bool = False,
    strong_views: int = 1,
    *,
    trust: Trust = STRANGER,
) -> SegmentationDataModule:
    """The datamodule; nothing is read yet."""
    node = {key: value for key, value in data.items() if key != "dataset"}
    datamodule: SegmentationDataModule = make(
        node, "data", trust=trust, dataset=make(data["dataset"], "data.dataset", trust=trust, later=True),
        seed=seed, use_unlabeled=use_unlabeled, use_depth=use_depth, strong_views=strong_views,
    )  # fmt: skip
    return datamodule


def build_model(
    settings: Settings,
    label_set: LabelSet,
    channels: int,
    intensity: tuple[float, float],
    *,
    weights: torch.Tensor | None = None,
    trust: Trust = STRANGER,
) -> Segmenter:
    """The segmenter that `settings` (groups model, network, loss and, to train, optimizer, scheduler, trainer,
    discriminator) describe; without `loss` it has none, and predicts.

    Each part is initialised from its own stream, so changing one never shifts another's draws.
    """
    seed = int(settings.get("seed", 0))
    build = functools.partial(make, trust=trust)
    tasks: MultiTask | None = build(settings["tasks"], "tasks", label_set=label_set) if settings.get("tasks") else None
    outputs = label_set.num_classes + (tasks.channels if tasks is not None else 0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "network"))
        network = build(settings["network"], "network", num_classes=outputs, in_channels=channels)
    node = settings.get("loss")
    if node is not None:
        loss = build(node, "loss", ignore_index=label_set.ignore_index, class_weights=weights)
    else:
        loss = torch.nn.Identity()
    optimization = build_optimization(settings, trust=trust) if "optimizer" in settings else None
    node = {k: v for k, v in settings["model"].items() if k != "class_weights"}
    given: dict[str, Any] = {"tasks": tasks} if tasks is not None else {}
    if settings.get("metrics"):
        given["metrics"] = build_metrics(settings, label_set, trust=trust)
    if "discriminator" in settings and has_adversary(settings["model"]):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(seed, "discriminator"))
            given["discriminator"] = build(
                settings["discriminator"], "discriminator", num_classes=label_set.num_classes, in_channels=channels
            )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "model"))
        model: Segmenter = build(
            node, "model", network=network, loss=loss, label_set=label_set, channels=channels, intensity=intensity,
            optimization=optimization, seed=seed, **given,
        )  # fmt: skip
    model.config = dict(settings)
    return model


def build_metrics(settings: Settings, label_set: LabelSet, *, trust: Trust = STRANGER) -> dict[str, Metric]:
    """The metrics that the user added, by name.

    Raises:
        UserError: a node names no torchmetrics Metric, or the run monitors one in the direction that its class calls worse.
    """
    found: dict[str, Metric] = {}
    of_data: dict[str, Any] = {"num_classes": label_set.num_classes, "ignore_index": label_set.ignore_index}
    for name, node in settings["metrics"].items():
        if node is None:
            continue
        signature = signatures.read(node["_target_"])
        taken = of_data if signature is None else {k: v for k, v in of_data.items() if k in signature.parameters}
        metric = make(node, f"metrics.{name}", trust=trust, **taken)
        if not isinstance(metric, Metric):
            raise UserError(f"metrics.{name}: {node['_target_']} is no torchmetrics.Metric; inherit from it")
        right = {True: "max", False: "min", None: None}[metric.higher_is_better]
        if right is not None and settings.get("monitor") == f"val/{name}" and settings["monitor_mode"] != right:
            raise UserError(
                f"monitor_mode: {settings['monitor_mode']} would keep the worst checkpoint by val/{name}, as its class says; "
                f"take monitor_mode={right}"
            )
        found[name] = metric
    return found


def build_optimization(settings: Settings, *, trust: Trust = STRANGER) -> Optimization:
    """Optimizer, schedule and the trainer's keys of the optimizer's step as one."""
    node = dict(settings["optimizer"])
    groups = {key: node.pop(key) for key in _OF_GROUPS if key in node}
    step = {name: settings["trainer"][key] for key, name in _OF_STEP.items() if key in settings["trainer"]}
    return Optimization(
        optimizer=functools.partial(make, node, "optimizer", trust=trust),
        scheduler=functools.partial(make, settings["scheduler"], "scheduler", trust=trust),
        **groups,
        **step,
    )


def build_trainer(settings: Settings, batches: int = 1, *more: Callback, trust: Trust = STRANGER) -> L.Trainer:
    """Lightning's Trainer, with our own order of the data and our own writing of checkpoints.

    Args:
        settings: groups trainer, callbacks, logger, paths.
        batches: of an epoch; short epochs are logged at least once.
        more: callbacks beside those of the config, called before them.
    """
    node = {key: value for key, value in settings["trainer"].items() if key not in _OF_STEP}
    timeout = node.pop("timeout_minutes", None)
    zero = {key: node.pop(name) for name, key in _OF_ZERO.items() if name in node}
    if node.get("strategy") == "fsdp":
        node["strategy"] = ShardedStrategy()
    elif node.get("strategy") == "deepspeed":
        node["strategy"] = ZeroStrategy(**zero, clip=settings["trainer"].get("gradient_clip_val"))
    node["log_every_n_steps"] = min(node.get("log_every_n_steps", 50), batches)
    callbacks: list[Callback] = [*more]
    for name, part in (settings.get("callbacks") or {}).items():
        callbacks += [make(part, f"callbacks.{name}", trust=trust)] if part else []
    named = (settings.get("logger") or {}).items()
    loggers: list[Logger] = [make(part, f"logger.{name}", trust=trust) for name, part in named if part]
    kept = None if trust.of is None else {c.state_key for c in callbacks if trust.keeps_state_of(c)}
    trainer: L.Trainer = make(
        node, "trainer", trust=trust, callbacks=callbacks, logger=loggers or False,
        plugins=[checkpoints.AtomicCheckpointIO(kept, callbacks)],
        use_distributed_sampler=False, enable_checkpointing=any("Checkpoint" in type(c).__name__ for c in callbacks),
        default_root_dir=settings["paths"]["output_dir"],
    )  # fmt: skip
    if timeout is not None:
        set_timeout(trainer.strategy, datetime.timedelta(minutes=timeout))
    return trainer


def class_weights(chosen: str | list[float] | None, source: Source, keep: Path | None = None) -> torch.Tensor | None:
    """Weights of the classes, float [K], as `model.class_weights` says.

    "balanced" is median frequency balancing (Eigen and Fergus 2015) over the training masks: a class's weight is the
    median class frequency over its own. They are counted once and kept in the file `keep`.

    Raises:
        UserError: a list of another length than there are classes.
    """
    names = source.label_set.names
    if chosen is None:
        return None
    if chosen == "balanced":
        counts = _counted_before(keep, len(names))
        if counts is None:
            counts = class_counts(source)
            if keep is not None:
                lines = [f"# training pixels of: {' '.join(names)}", *map(str, counts.tolist())]
                run_folder.write_text(keep, "\n".join(lines) + "\n")
        share = np.maximum(counts, 1) / counts.sum()
        return torch.tensor(np.where(counts > 0, np.median(share[counts > 0]) / share, 0.0), dtype=torch.float32)
    if len(chosen) != len(names):
        raise UserError(f"model.class_weights: {len(chosen)} weights for {len(names)} classes ({', '.join(names)})")
    return torch.tensor(chosen, dtype=torch.float32)


def _counted_before(keep: Path | None, classes: int) -> npt.NDArray[np.int64] | None:
    """What `class_weights` has kept of a run, int64 [K]; None where it is not there or fits no such data."""
    try:
        lines = [] if keep is None else untrusted.read_text(keep).splitlines()
        counts = np.array([int(line) for line in lines if not line.startswith("#")], np.int64)
    except (FileNotFoundError, ValueError, OverflowError):
        return None
    return counts if len(counts) == classes and (counts >= 0).all() and counts.any() else None


def model_from_checkpoint(
    file: Path, packages: Sequence[str] = (), *, scored: bool = False
) -> tuple[Segmenter, dict[str, Any]]:
    """A segmenter that predicts, from nothing but a checkpoint, in evaluation mode on the CPU; and the run's config.

    Args:
        packages: what the user trusts beside this program's own parts.
        scored: build the loss too, which evaluation needs.

    Raises:
        UserError: the file is no checkpoint of this program, its weights do not fit its own description, or it describes what
            a stranger may not have built.
    """
    content = checkpoints.read(file)
    trust = Trust(f"ckpt: {file}", split_packages(packages))
    about = checkpoints.describe(content, file, trust, [*_TO_PREDICT, *(["loss"] if scored else [])])
    settings = without_weights({group: about.config.get(group) for group in _TO_PREDICT})
    settings["loss"] = about.config["loss"] if scored else None
    settings["metrics"] = _trusted_metrics(about.config.get("metrics") or {}, trust) if scored else None
    weights = None if about.class_weights is None else torch.tensor(about.class_weights)
    state = content["state_dict"]
    try:
        images = Images.of_checkpoint(content[CHECKPOINT_KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"ckpt: {file} is not a checkpoint of this program ({error!r} in its description)") from error
    try:
        with no_larger_than(file):
            model = build_model(
                settings, about.label_set, about.channels, about.intensity, weights=weights, trust=trust
            )
            model.load_weights(state if scored else {k: v for k, v in state.items() if not k.startswith("loss.")})
    except UserError as error:
        raise UserError(str(error) if str(file) in str(error) else f"ckpt: {file}: {error}") from error
    except Exception as error:  # a stranger's description fails in as many ways as it can lie
        raise UserError(f"ckpt: the weights in {file} do not fit the network it describes") from error
    model.images = images
    return model.eval(), about.config


def _trusted_metrics(nodes: Settings, trust: Trust) -> dict[str, Any]:
    """Those of a checkpoint's own metrics that may be built; the scores do not depend on the others, which are named."""
    allowed: dict[str, Any] = {}
    for name, node in nodes.items():
        try:
            if isinstance(node, Mapping):
                check_targets(node, trust, f"metrics.{name}")
                check_node(f"metrics.{name}", node)
                allowed[name] = node
        except UserError as error:
            _log.warning("metrics.%s is left out: %s", untrusted.shown(str(name)), error)
    return allowed


def task_overrides() -> list[str]:
    """The overrides that this run was started with, where Hydra started it."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def without_weights(settings: Settings) -> dict[str, Any]:
    """The weights come from the checkpoint: none are looked for elsewhere."""
    network = settings["network"]
    return {**settings, "network": {**network, "encoder_weights": None} if "encoder_weights" in network else network}
