"""What keys of different groups must be together, as far as the config alone can tell."""

from __future__ import annotations

import re

from src.config import signatures
from src.config.monitored import check_direction, check_metrics
from src.config.parts import Trainer
from src.config.rules import check_bounds, check_one_each, check_precision, check_sides, split_source
from src.config.settings import Settings
from src.config.synthesis import check_synthesis, trains_on
from src.config.unlabeled import check_unlabeled, has_judge
from src.config.watching import check_watching
from src.errors import UserError
from src.metrics.names import cannot_be


def check_together(settings: Settings) -> None:
    """Checks devices, sizes, classes, metrics and ways to learn against one another.

    Raises:
        UserError: the first thing that does not fit, with the mend.
    """
    check_synthesis(settings)
    check_metrics(settings)
    _check_devices(settings)
    _check_sizes(settings)
    check_unlabeled(settings)
    _check_folds(settings)
    _check_teacher(settings)
    _check_adversary(settings)
    _check_sharding(settings)
    _check_classes(settings)
    _check_start(settings)
    _check_outputs(settings)
    _check_boundary(settings)
    check_direction(settings)
    check_watching(settings)
    if settings.optimizer.nesterov and not settings.optimizer.momentum:
        raise UserError("optimizer.nesterov: needs momentum; take e.g. optimizer.momentum=0.9")
    if settings.optimizer.layer_decay not in (None, 1) and settings.network.node.get("freeze") == "encoder":
        raise UserError("optimizer.layer_decay: network.freeze=encoder leaves it no layers that learn; set it to null")
    if settings.trainer.max_epochs is None and settings.trainer.max_steps == -1:
        raise UserError("trainer.max_epochs: without it and without trainer.max_steps a run never ends; give one")


def _check_folds(settings: Settings) -> None:
    folds = settings.data.folds
    if folds is None or (folds.n is None and folds.k is None):
        return
    if folds.n is None or folds.k is None:
        raise UserError(
            "data.folds: n says how many there are and k, from 0, which is held out; give both, or folds=5 alone to run all"
        )
    if folds.k >= folds.n:
        raise UserError(
            f"data.folds.k: {folds.k} is none of {folds.n} folds, which count from 0; take up to {folds.n - 1}"
        )
    if not settings.test:
        raise UserError("test: the fold that is held out is scored by it; leave test=false out")
    if trains_on(settings.model.target) == "images":
        raise UserError("data.folds: model=synthesis predicts no classes of a fold; leave it out")


def _check_teacher(settings: Settings) -> None:
    model = settings.model
    if model.teacher is None or model.distill is None:
        return
    if model.distill.kl_weight == 0 and model.distill.channel_weight == 0:
        raise UserError(
            "model.distill: a teacher teaches nothing with both weights 0; raise kl_weight or channel_weight"
        )


def _check_devices(settings: Settings) -> None:
    trainer, batch = settings.trainer, settings.data.batch_size
    _check_names_of_devices(trainer)
    if (count := trainer.processes) is not None and batch % count:
        raise UserError(
            f"data.batch_size: {batch} is global and cannot be split evenly over {count} devices; "
            f"take {-(-batch // count) * count}"
        )
    check_precision(trainer.precision, has_gpu=trainer.accelerator != "cpu")
    if trainer.sync_batchnorm and trainer.accelerator == "cpu":
        raise UserError("trainer.sync_batchnorm: torch synchronises batch norms on GPUs only; set it to false")
    if trainer.accelerator == "mps" and str(trainer.precision).startswith("64"):
        raise UserError("trainer.precision: Apple's GPUs have no 64 bits; take 32-true")


def _check_names_of_devices(trainer: Trainer) -> None:
    devices = trainer.devices
    if isinstance(devices, list):
        if not devices or len(set(devices)) < len(devices):
            raise UserError(f"trainer.devices: should name each device once, not {devices}; e.g. trainer.devices=[0,1]")
        if trainer.accelerator == "cpu":
            raise UserError(
                f"trainer.devices: a list names GPUs; on the CPU take a number of processes: trainer.devices={len(devices)}"
            )
    if trainer.accelerator == "cpu" and devices == -1:
        raise UserError(
            "trainer.devices: -1 means all GPUs; on the CPU take a number of processes, e.g. trainer.devices=2"
        )


def _check_sizes(settings: Settings) -> None:
    data, network, trainer = settings.data, settings.network, settings.trainer
    signature = signatures.read(network.target)
    constants = signature.constants if signature else {}
    resampled = network.node.get("patch_size")  # of a ViT whose patches are made another size
    divisor = resampled or _patch(network.node.get("encoder")) or constants.get("SIZE_DIVISOR")
    if data.crop:
        check_sides("data.crop", data.crop)
        if isinstance(divisor, int) and any(side % divisor for side in data.crop):
            mend = [max(divisor, round(side / divisor) * divisor) for side in data.crop]
            raise UserError(
                f"data.crop: {data.crop} is no multiple of this network's stride {divisor}; take e.g. data.crop={mend}"
            )
    if data.augment is not None and data.augment.scale:
        check_bounds("data.augment.scale", data.augment.scale)
    pooled, count = constants.get("POOLED_BATCH_NORM"), trainer.processes
    if isinstance(pooled, list | tuple) and network.name in pooled and count is not None:
        each = data.batch_size // count
        if each < 2 and settings.model.batch_norm != "frozen" and not trainer.sync_batchnorm:
            raise UserError(
                "data.batch_size: this network's pooled branch has batch norm and needs 2 images on each device; take more, "
                "or model.batch_norm=frozen"
            )


def _patch(encoder: object) -> int | None:
    """The side of a plain ViT's patches, by its name; the patches of 4 are those of encoders that have stages."""
    named = re.search(r"patch(\d+)", encoder) if isinstance(encoder, str) else None
    return int(named[1]) if named and int(named[1]) >= 8 else None


def _check_start(settings: Settings) -> None:
    """Checks what the weights that a run starts from are said to be."""
    if settings.init_from is not None:
        split_source(settings.init_from)
    elif settings.init_head != "match":
        raise UserError("init_head: says what becomes of the last layer of init_from, and none is given; leave it out")


def _check_adversary(settings: Settings) -> None:
    """Checks what learning against a discriminator needs."""
    model, judge = settings.model, settings.discriminator
    noise = model.noise
    if settings.tasks is not None and noise is not None and (noise.channels or noise.latent):
        raise UserError("tasks: a generator with noise averages classes only; set model.noise.channels and latent to 0")
    if model.has_adversary and judge is None:
        raise UserError(
            "discriminator: the model's adversarial keys need one; take model=gan and e.g. discriminator=small"
        )
    if judge is not None and not _takes_discriminator(model.target):
        raise UserError("discriminator: this model has none; take model=gan")
    if has_judge(settings) and settings.trainer.needs_gpu:
        raise UserError(
            "trainer.precision: with model=gan 16-mixed would scale two optimizers' gradients by one factor; take "
            "bf16-mixed or 32-true"
        )
    if model.feature_minmax and not (judge is not None and judge.spectral_norm):
        raise UserError(
            "model.feature_minmax: unbounded without spectral norm; take discriminator.spectral_norm=true with it"
        )
    if judge is not None and judge.norm == "batch" and model.r1_weight > 0:
        raise UserError(
            "model.r1_weight: a penalty on each image's gradient does not fit batch norm; take discriminator.norm=instance"
        )


def _takes_discriminator(model: str) -> bool:
    signature = signatures.read(model)
    return signature is None or signature.takes_any or "discriminator" in signature.parameters


def _check_sharding(settings: Settings) -> None:
    """Checks what the strategies that cut a model into shards can do."""
    trainer = settings.trainer
    why = {
        "fsdp": "fsdp cannot shard a discriminator, which sees two batches in a step",
        "deepspeed": "DeepSpeed has one optimizer, and an adversary needs a second",
    }.get(trainer.strategy)
    if why is not None and settings.model.has_adversary:
        raise UserError(f"trainer.strategy: {why}; take trainer=ddp")
    if trainer.strategy == "fsdp" and settings.tasks is not None:
        raise UserError("trainer.strategy: fsdp cannot shard tasks, whose weights the loss reads too; take trainer=ddp")
    if trainer.strategy == "fsdp" and settings.inference.windows:
        raise UserError(
            "inference.mode: images of several sizes have several numbers of windows, and fsdp needs as many passes on each "
            "device; take trainer=ddp, or inference.mode=whole"
        )
    if trainer.strategy == "deepspeed":
        if str(trainer.precision) not in ("32-true", "32", "bf16-mixed"):
            raise UserError("trainer.precision: with deepspeed take 32-true or bf16-mixed")
        return
    for key in ("zero_stage", "offload"):
        if key in trainer.node:
            raise UserError(f"trainer.{key}: is DeepSpeed's; take trainer=deepspeed, or leave it out")


def _check_classes(settings: Settings) -> None:
    """The classes are in the config for some data sets only; for the others the run says the same once it knows them."""
    dataset = settings.data.dataset
    names = dataset.names
    if not isinstance(names, list):
        return
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"data.dataset.names: {twice!r} is there twice; name each class once")
    if len(names) == 1 and dataset.name == "Folder":
        names = ["background", *names]  # as `Folder` does
    if not 2 <= len(names) <= 254:
        raise UserError(f"data.dataset.names: {len(names)} classes; a mask of 8 bits can hold 2 to 254")
    weights = settings.model.class_weights
    for key, values in (("data.dataset.colors", dataset.colors), ("model.class_weights", weights)):
        if isinstance(values, list):
            check_one_each(key, values, names)
    if reason := cannot_be(settings.monitor.removeprefix("val/"), names):
        raise UserError(f"monitor: {reason}")


def _check_outputs(settings: Settings) -> None:
    """Checks that the loss takes what the network trains on."""
    network, loss, model = settings.network, settings.loss, settings.model
    given, taken = trains_on(network.target), trains_on(loss.target)
    if given == taken and given in ("logits", "images"):
        return
    if taken == "logits":
        raise UserError(f"loss: {network.name} trains on the {given} of its queries; take loss=mask_classification")
    if given == "logits":
        raise UserError(
            f"network: {loss.name} is a loss of queries' {taken}, and {network.name} has no queries; take network=mask2former "
            "or network=eomt, or loss=ce_dice"
        )
    if settings.tasks is not None:
        raise UserError(
            f"tasks: they need output channels for each pixel, and {network.name} gives {given}; take another network"
        )
    if model.semi is not None and model.semi.method is not None:
        raise UserError(
            f"model.semi.method: unlabelled images were not tried with {network.name}; take model.semi.method=null or another "
            "network"
        )
    if model.noise is not None and (model.noise.channels or model.noise.latent):
        raise UserError(
            f"model.noise: {network.name} takes images of a fixed number of channels; set model.noise.channels and latent to 0"
        )


def _check_boundary(settings: Settings) -> None:
    """Checks that a head for boundaries has a loss that trains it, and the reverse: a module of such a loss says
    `NEEDS_BOUNDARY`. A head that nothing trains would end a run on several devices."""
    network, loss = settings.network, settings.loss
    signature = signatures.read(loss.target)
    needs = signature is not None and signature.constants.get("NEEDS_BOUNDARY") is True
    given = network.node.get("boundary") is True
    if needs and not given:
        module = settings.loss.target.rpartition(".")[0]
        option = module.removeprefix("src.losses.")  # a loss of this kind is called as its network
        choice = f"network={option} " if option != module else ""
        raise UserError(
            f"loss: {settings.loss.name} learns boundaries; take {choice}network.boundary=true, or loss=ohem"
        )
    if given and not needs:
        raise UserError(
            "network.boundary: nothing would train the head for boundaries; take loss=pidnet (of network=stdc: loss=stdc), or "
            "set it to false"
        )
