"""What keys of different groups must be together, as far as the config alone can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from src.config import signatures
from src.config.monitored import check_direction
from src.errors import UserError


def check_consistency(config: Mapping[str, Any]) -> None:
    """Checks devices, sizes, classes, the monitored metric, the teacher and the optimizer against one another.

    Raises:
        UserError: the first thing that does not fit, with the mend.
    """
    _check_devices(config["trainer"])
    _check_sizes(config)
    _check_classes(config)
    check_direction(config)
    _check_teacher(config)
    optimizer = config["optimizer"]
    if optimizer.get("nesterov") and not optimizer.get("momentum"):
        raise UserError("optimizer.nesterov: needs momentum; take e.g. optimizer.momentum=0.9")


def _check_devices(trainer: Mapping[str, Any]) -> None:
    devices, accelerator = trainer.get("devices"), trainer.get("accelerator", "auto")
    if isinstance(devices, list):
        if not devices or len(set(devices)) < len(devices):
            raise UserError(f"trainer.devices: should name each device once, not {devices}; e.g. trainer.devices=[0,1]")
        if accelerator == "cpu":
            raise UserError(
                f"trainer.devices: a list names GPUs; on the CPU take a number of processes: trainer.devices={len(devices)}"
            )
    if accelerator == "cpu" and devices == -1:
        raise UserError(
            "trainer.devices: -1 means all GPUs; on the CPU take a number of processes, e.g. trainer.devices=2"
        )
    if accelerator == "mps" and str(trainer.get("precision")).startswith("64"):
        raise UserError("trainer.precision: Apple's GPUs have no 64 bits; take 32-true")


def _check_sizes(config: Mapping[str, Any]) -> None:
    data, trainer, network = config["data"], config["trainer"], config["network"]
    crop = data.get("crop")
    if crop and len(crop) != 2:
        raise UserError(f"data.crop: should be [height, width], not {crop}")
    for part in ("augment", "strong"):
        scale = (data.get(part) or {}).get("scale")
        if scale and (len(scale) != 2 or scale[0] > scale[1]):
            raise UserError(
                f"data.{part}.scale: should be [smallest, largest], not {scale}; e.g. data.{part}.scale=[0.5,2]"
            )
    devices = trainer.get("devices")
    count = len(devices) if isinstance(devices, list) else devices
    signature = signatures.read(network["_target_"])
    pooled = signature.constants.get("POOLED_BATCH_NORM", ()) if signature else ()
    if network["_target_"].rpartition(".")[2] in pooled and isinstance(count, int) and count > 0:
        each = data["batch_size"] // (count * trainer.get("num_nodes", 1))
        if each < 2 and config["model"].get("batch_norm") != "frozen" and not trainer.get("sync_batchnorm"):
            raise UserError(
                "data.batch_size: this network's pooled branch has batch norm and needs 2 images on each device; take more, "
                "or model.batch_norm=frozen"
            )


def _check_teacher(config: Mapping[str, Any]) -> None:
    """Checks what the methods need whose teacher is the average of the weights."""
    method = (config["model"].get("semi") or {}).get("method")
    if method in ("mean_teacher", "unimatch_v2") and config["model"].get("ema_decay") is None:
        raise UserError(f"model.ema_decay: the average is {method}'s teacher; give one, e.g. model.ema_decay=0.99")
    if method == "unimatch_v2" and config.get("compile"):
        raise UserError(
            "compile: a compiled network would not drop the channels that unimatch_v2 drops; set it to false"
        )


def _check_classes(config: Mapping[str, Any]) -> None:
    """The classes are in the config for some data sets only; for the others the run says the same once it knows them."""
    dataset = config["data"].get("dataset") or {}
    names = dataset.get("names")
    if not isinstance(names, list):
        return
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"data.dataset.names: {twice!r} is there twice; name each class once")
    if len(names) == 1 and str(dataset.get("_target_")).endswith(".Folder"):
        names = ["background", *names]  # as `Folder` does
    if not 2 <= len(names) <= 254:
        raise UserError(f"data.dataset.names: {len(names)} classes; a mask of 8 bits can hold 2 to 254")
    colors, weights = dataset.get("colors"), config["model"].get("class_weights")
    for key, values in (("data.dataset.colors", colors), ("model.class_weights", weights)):
        if isinstance(values, list) and len(values) != len(names):
            raise UserError(
                f"{key}: {len(values)} for {len(names)} classes ({', '.join(names)}); give one for each class"
            )
    monitored = config["monitor"].removeprefix("val/iou/")
    if monitored != config["monitor"] and monitored not in names:
        raise UserError(f"monitor: no class is called {monitored!r}; classes: {', '.join(names)}")
