"""What this process is among those of a run, and whether the machine has the devices that are asked for."""

from __future__ import annotations

import os

import lightning as L
import torch

from src.config.parts import Trainer
from src.config.rules import check_precision
from src.errors import UserError
from src.provenance.record import Device, Record


def is_main_process() -> bool:
    """Whether this is the process that writes, known also before a trainer is built."""
    environment = os.environ
    if "RANK" in environment:  # torchrun
        return int(environment["RANK"]) == 0
    if "LOCAL_RANK" in environment:  # Lightning's own launcher
        return int(environment["LOCAL_RANK"]) == 0 and int(environment.get("NODE_RANK", "0")) == 0
    return int(environment.get("SLURM_PROCID", "0")) == 0


def check_devices(trainer: Trainer) -> None:
    """Checks the trainer's keys against the machine.

    Raises:
        UserError: more devices are asked for than there are, or a precision that they do not have.
    """
    check_precision(trainer.precision, has_gpu=torch.accelerator.is_available(), here=True)
    devices, accelerator = trainer.devices, trainer.accelerator
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if on_gpu and str(trainer.precision).startswith("bf16") and not torch.cuda.is_bf16_supported():
        raise UserError(
            f"trainer.precision: {torch.cuda.get_device_name()} has no bfloat16; take 16-mixed (model=cnn) or 32-true"
        )
    if "LOCAL_RANK" in os.environ or accelerator in ("cpu", "mps") or devices in ("auto", -1):
        available = torch.cuda.device_count() if accelerator in ("gpu", "cuda") else None
        if available == 0:
            raise UserError("trainer.accelerator: there is no GPU here; take trainer=cpu")
        return
    available = torch.cuda.device_count()
    wanted = max(devices) + 1 if isinstance(devices, list) else int(devices)
    if accelerator in ("gpu", "cuda"):
        if available == 0:
            raise UserError(f"trainer: asks for {wanted} GPUs and there is no GPU here; take trainer=cpu")
        if wanted > available:
            raise UserError(
                f"trainer.devices: asks for {wanted} GPUs and there are {available}; take trainer.devices={available}"
            )
    elif available and wanted > available:
        raise UserError(f"trainer.devices: asks for {wanted} devices and there are {available}")


def device_of(trainer: L.Trainer, precision: object) -> Device:
    """Where a trainer computes."""
    kind = trainer.strategy.root_device.type
    return Device(accelerator=kind, devices=trainer.world_size, precision=str(precision))


def with_device(record: Record, device: Device) -> Record:
    """A record that says where the run computes, and with what of torch's that bears on figures."""
    hardware, environment = dict(record.hardware), dict(record.environment)
    if device.accelerator == "cuda":
        hardware["gpus"] = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
        hardware |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    environment |= {
        "torch.threads": str(torch.get_num_threads()), "torch.cpu": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip
    return record.model_copy(update={"hardware": hardware, "environment": environment, "device": device})
