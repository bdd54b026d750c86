"""Where predictions are computed, and in which precision."""

from __future__ import annotations

import contextlib

import torch

from src.errors import UserError

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # Lightning's names


def usable_device(name: str) -> torch.device:
    """The device of that name, in torch's words; "auto" takes the machine's accelerator, or the CPU.

    Raises:
        UserError: it cannot be used.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.ones(1, device=name).cpu().device and torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device: {name!r} cannot be used ({str(error).splitlines()[0][:120]}); take device=cpu or trainer=cpu"
        ) from error


def autocast(device: torch.device, precision: object) -> contextlib.AbstractContextManager[object]:
    """Within it a network computes in a precision of Lightning's name; None and 32 bits change nothing."""
    dtype = MIXED.get(str(precision))
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)
