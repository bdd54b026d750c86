"""From checked settings to objects: data, network, model, trainer. Everything is built here, and only from here."""

from __future__ import annotations

import datetime
import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import get_object
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torchmetrics import Metric

from src.callbacks.step_profiler import StepProfiler
from src.config import signatures
from src.config.check import check_inference
from src.config.monitored import check_own_direction
from src.config.parts import Config, Data, Node, Optimizer, Part, Trainer
from src.config.schema import SUM
from src.config.settings import ModelSettings, Settings, Trained
from src.data.datamodule import SegmentationDataModule
from src.data.labels import LabelSet
from src.data.synthetic import Synthetic
from src.data.trained_on import CHECKPOINT_KEY, Images
from src.distributed.deepspeed import ZeroStrategy
from src.distributed.fsdp import ShardedStrategy
from src.distributed.library_internals import set_timeout
from src.errors import UserError
from src.models.base import Segmenter
from src.models.learner import Learner
from src.optimization.updates import Optimization
from src.seeding import derive
from src.storage import checkpoints
from src.storage.trust import STRANGER, Trust, split_packages
from src.tasks.multi_task import MultiTask
from src.training.size_limit import no_larger_than

_log = logging.getLogger(__name__)
_OF_STEP = ("accumulate_grad_batches", "gradient_clip_val")
_TO_PREDICT = ("network", "model", "tasks")
_PROTOCOL = "inference"
_OF_GROUPS = ("lr", "weight_decay", *Optimizer.OURS)


Parts = Mapping[str, Node | None]  # by name; null takes one out


def make(
    node: Node, slot: str, *positional: object, trust: Trust = STRANGER, later: bool = False, **given: object
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
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise UserError(f"{slot}: names nothing that can be built; say {slot}._target_=…, or choose one of its options")
    trust.check(slot, node)
    function = get_object(target)
    trust.check_object(slot, target, function)
    own = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    arguments = {key: _build(value, f"{slot}.{key}", trust) for key, value in own.items()} | given
    partial = later or node.get("_partial_")
    return functools.partial(function, *positional, **arguments) if partial else function(*positional, **arguments)


def _build(value: object, slot: str, trust: Trust) -> object:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return make(value, slot, trust=trust)
        return {key: _build(inner, f"{slot}.{key}", trust) for key, inner in value.items()}
    return [_build(inner, slot, trust) for inner in value] if isinstance(value, list | tuple) else value


def build_data(
    data: Data | Node, seed: int, use_unlabeled: bool = False, use_depth: bool = False, strong_views: int = 1, *,
    synthetic: Synthetic | None = None, trust: Trust = STRANGER,
) -> SegmentationDataModule:  # fmt: skip
    """The datamodule; nothing is read yet. What `data.synthetic` names is opened for training only."""
    data = data if isinstance(data, Data) else Data.of(data)
    datamodule: SegmentationDataModule = make(
        data.keys_but("dataset", "synthetic"), "data", trust=trust,
        dataset=make(data.dataset.node, "data.dataset", trust=trust, later=True),
        seed=seed, use_unlabeled=use_unlabeled, use_depth=use_depth, strong_views=strong_views, synthetic=synthetic,
    )  # fmt: skip
    return datamodule


def build_learner(
    settings: ModelSettings | Config, label_set: LabelSet, channels: int, intensity: tuple[float, float], *,
    weights: torch.Tensor | None = None, others: Mapping[str, Segmenter] | None = None, trust: Trust = STRANGER,
) -> Learner:  # fmt: skip
    """The model that `settings` describe; one that predicts has no loss, and only one of a run's `Settings` an optimizer.

    Each part is initialised from its own stream, so changing one never shifts another's draws.

    Args:
        others: other runs' models that it works with, by the names that its class gives them.
    """
    if not isinstance(settings, ModelSettings):
        settings = (Settings if "optimizer" in settings else ModelSettings).of(settings)
    seed, model_node = settings.seed, settings.model.keys_but("class_weights", "judge", "teacher")
    build = functools.partial(make, trust=trust)
    tasks: MultiTask | None = None
    if settings.tasks is not None:
        tasks = build(settings.tasks.node, "tasks", label_set=label_set)
    outputs = label_set.num_classes + (tasks.channels if tasks is not None else 0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "network"))
        network = build(settings.network.node, "network", num_classes=outputs, in_channels=channels)
    given: dict[str, Any] = {**(others or {}), **({"tasks": tasks} if tasks is not None else {})}
    if isinstance(settings, Settings) and settings.model.has_partner:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(seed, "partner"))
            given["partner"] = build(settings.network.node, "network", num_classes=outputs, in_channels=channels)
    loss: torch.nn.Module = torch.nn.Identity()
    if settings.loss is not None:
        loss = build_loss(settings.loss, trust=trust, ignore_index=label_set.ignore_index, class_weights=weights)
    optimization = build_optimization(settings, trust=trust) if isinstance(settings, Settings) else None
    if settings.metrics:
        given["metrics"] = build_metrics(settings, label_set, trust=trust)
    if settings.discriminator is not None and settings.model.has_adversary:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(seed, "discriminator"))
            given["discriminator"] = build(
                settings.discriminator.node, "discriminator", num_classes=label_set.num_classes, in_channels=channels
            )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "model"))
        model: Learner = build(
            model_node, "model", network=network, loss=loss, label_set=label_set, channels=channels,
            intensity=intensity, optimization=optimization, seed=seed, **given,
        )  # fmt: skip
    model.config = dict(settings.plain)
    if isinstance(model, Segmenter):
        model.inference = settings.inference
    return model


def build_model(
    settings: ModelSettings | Config, label_set: LabelSet, channels: int, intensity: tuple[float, float], *,
    weights: torch.Tensor | None = None, trust: Trust = STRANGER,
) -> Segmenter:  # fmt: skip
    """As `build_learner`, of settings that describe a segmenter."""
    model = build_learner(settings, label_set, channels, intensity, weights=weights, trust=trust)
    assert isinstance(model, Segmenter)
    return model


def build_loss(
    loss: Part, *, ignore_index: int = 255, class_weights: torch.Tensor | None = None, trust: Trust = STRANGER
) -> torch.nn.Module:
    """The loss; each term of a sum is given what the sum is."""
    given: dict[str, Any] = {"ignore_index": ignore_index, "class_weights": class_weights}
    keys = dict(given)
    if loss.target == SUM:
        terms = loss.node["terms"]
        assert isinstance(terms, list)
        keys["terms"] = [
            (
                term.get("weight", 1.0),
                make({k: v for k, v in term.items() if k != "weight"}, "loss.terms", trust=trust, **given),
            )
            for term in terms
        ]
    built: torch.nn.Module = make(
        loss.keys_but("terms") if loss.target == SUM else loss.node, "loss", trust=trust, **keys
    )
    return built


def build_metrics(settings: ModelSettings, label_set: LabelSet, *, trust: Trust = STRANGER) -> dict[str, Metric]:
    """The metrics that the user added, by name.

    Raises:
        UserError: a node names no torchmetrics Metric, or the run monitors one in the direction that its class calls worse.
    """
    found: dict[str, Metric] = {}
    of_data: dict[str, Any] = {"num_classes": label_set.num_classes, "ignore_index": label_set.ignore_index}
    for name, node in settings.metrics.items():
        if node is None:
            continue
        target = Part(node=node).target
        signature = signatures.read(target)
        taken = of_data if signature is None else {k: v for k, v in of_data.items() if k in signature.parameters}
        metric = make(node, f"metrics.{name}", trust=trust, **taken)
        if not isinstance(metric, Metric):
            raise UserError(f"metrics.{name}: {target} is no torchmetrics.Metric; inherit from it")
        check_own_direction(settings, name, metric.higher_is_better)
        found[name] = metric
    return found


def build_optimization(settings: Settings, *, trust: Trust = STRANGER) -> Optimization:
    """Optimizer, schedule and the trainer's keys of the optimizer's step as one."""
    optimizer, trainer = settings.optimizer, settings.trainer
    return Optimization(
        optimizer=functools.partial(make, optimizer.keys_but(*_OF_GROUPS), "optimizer", trust=trust),
        scheduler=functools.partial(make, settings.scheduler.node, "scheduler", trust=trust),
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        encoder_lr_factor=optimizer.encoder_lr_factor,
        decay_norm_and_bias=optimizer.decay_norm_and_bias,
        layer_decay=optimizer.layer_decay,
        layer_decay_counts=optimizer.layer_decay_counts,
        aux_lr_factor=optimizer.aux_lr_factor,
        no_decay=optimizer.no_decay,
        accumulate=trainer.accumulate_grad_batches,
        clip=trainer.gradient_clip_val,
    )


def build_trainer(
    trainer: Trainer, output_dir: str, callbacks: Parts, loggers: Parts, batches: int = 1, *more: Callback,
    trust: Trust = STRANGER,
) -> L.Trainer:  # fmt: skip
    """Lightning's Trainer, with our own order of the data and our own writing of checkpoints.

    Args:
        output_dir: the run folder.
        callbacks, loggers: those of the config, by name.
        batches: of an epoch; short epochs are logged at least once.
        more: callbacks beside those of the config, called before them.
    """
    node = trainer.keys_but(*_OF_STEP, *Trainer.OURS)
    if trainer.strategy == "fsdp":
        node["strategy"] = ShardedStrategy()
    elif trainer.strategy == "deepspeed":
        node["strategy"] = ZeroStrategy(trainer.zero_stage, trainer.offload, trainer.gradient_clip_val)
    node["profiler"] = StepProfiler() if trainer.profiler == "steps" else trainer.profiler
    node["log_every_n_steps"] = min(trainer.log_every_n_steps, batches)
    called: list[Callback] = [*more]
    called += [make(part, f"callbacks.{name}", trust=trust) for name, part in callbacks.items() if part]
    written: list[Logger] = [make(part, f"logger.{name}", trust=trust) for name, part in loggers.items() if part]
    kept = None if trust.of is None else {c.state_key for c in called if trust.keeps_state_of(c)}
    made: L.Trainer = make(
        node, "trainer", trust=trust, callbacks=called, logger=written or False,
        plugins=[checkpoints.AtomicCheckpointIO(kept, called)],
        use_distributed_sampler=False, enable_checkpointing=any("Checkpoint" in type(c).__name__ for c in called),
        default_root_dir=output_dir,
    )  # fmt: skip
    if "timeout_minutes" in trainer.node:
        set_timeout(made.strategy, datetime.timedelta(minutes=trainer.timeout_minutes))
    return made


def model_from_checkpoint(
    file: Path, packages: Sequence[str] = (), *, scored: bool = False
) -> tuple[Segmenter, Trained]:
    """A segmenter that predicts, from nothing but a checkpoint, in evaluation mode on the CPU; and what it was trained with.

    Args:
        packages: what the user trusts beside this program's own parts.
        scored: build the loss too, which evaluation needs.

    Raises:
        UserError: the file is no checkpoint of this program, its weights do not fit its own description, it describes what a
            stranger may not have built, or no segmenter.
    """
    model, trained = learner_from_checkpoint(file, packages, scored=scored)
    if not isinstance(model, Segmenter):
        raise UserError(
            f"ckpt: {file} draws images and predicts no classes (model=synthesis); give a segmenter's, or train one with its "
            f"images: python -m src.train data.synthetic={file}"
        )
    return model, trained


def learner_from_checkpoint(
    file: Path, packages: Sequence[str] = (), *, scored: bool = False
) -> tuple[Learner, Trained]:
    """As `model_from_checkpoint`, a segmenter or a synthesiser."""
    content = checkpoints.read(file)
    trust = Trust(f"ckpt: {file}", split_packages(packages))
    groups = (*_TO_PREDICT, "loss") if scored else _TO_PREDICT
    about = checkpoints.describe(content, file, trust, groups)
    described = {group: about.config.get(group) for group in groups}
    if (protocol := about.config.get(_PROTOCOL)) is not None:
        try:
            check_inference(protocol)
        except UserError as error:
            raise UserError(f"ckpt: {file}: {error}") from None
        described[_PROTOCOL] = protocol
    metrics = checkpoints.trusted_metrics(about.config.get("metrics"), trust) if scored else {}
    settings = replace(ModelSettings.of(described).without_weights(), metrics=metrics)
    weights = None if about.class_weights is None else torch.tensor(about.class_weights)
    state = content["state_dict"]
    try:
        images = Images.of_checkpoint(content[CHECKPOINT_KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"ckpt: {file} is not a checkpoint of this program ({error!r} in its description)") from error
    try:
        with no_larger_than(file):
            model = build_learner(
                settings, about.label_set, about.channels, about.intensity, weights=weights, trust=trust
            )
            model.load_weights(state if scored else {k: v for k, v in state.items() if not k.startswith("loss.")})
    except UserError as error:
        raise UserError(str(error) if str(file) in str(error) else f"ckpt: {file}: {error}") from error
    except Exception as error:  # a stranger's description fails in as many ways as it can lie
        raise UserError(f"ckpt: the weights in {file} do not fit the network it describes") from error
    model.images = images
    if isinstance(model, Segmenter):
        model.temperature = about.temperature
    return model.eval(), Trained.of(about.config)
