"""Learning-rate schedules over a known number of optimizer steps, stepped once after each optimizer step.

Each is torch's `LambdaLR` over a closed form of the step, so that its whole state is the step count: a saved
and loaded schedule goes on with the very same rates, and steps past the end keep the last one. torch's own
poly, cosine and linear warm-up multiply the last rate instead; its `OneCycleLR` divides by zero where the
warm-up is one step long, rises again after the last step, and raises on the next.

Every parameter group's own `lr` is its peak; a schedule multiplies it by a factor in 0..1. Shared arguments:

    optimizer: given by code.
    total_steps: optimizer steps of the whole run; given by code.
    warmup_fraction: share of `total_steps` over which the factor rises linearly to 1.
    warmup_steps: when given, the same in steps, instead of `warmup_fraction`.
    warmup_start_factor: the factor of the first step.
    min_factor: the factor that is reached after `total_steps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.config.shares import Share
from src.errors import UserError

ProperShare = Annotated[float, Field(ge=0, lt=1)]
AtLeastOne = Annotated[float, Field(ge=1)]


def poly(
    optimizer: Optimizer,
    total_steps: PositiveInt,
    power: NonNegativeFloat = 0.9,
    warmup_fraction: ProperShare = 0.0,
    warmup_steps: NonNegativeInt | None = None,
    warmup_start_factor: Share = 0.01,
    min_factor: Share = 0.0,
    inclusive: bool = False,
) -> LambdaLR:
    """Polynomial decay, (1 - progress)^power, the field's usual one (Chen et al. 2017, DeepLab).

    Args:
        inclusive: warm-up and decay reach their ends at their own last step, as mmengine counts, and not one step later.
    """
    return _decay(
        optimizer,
        total_steps,
        lambda progress: (1 - progress) ** power,
        warmup_fraction,
        warmup_steps,
        warmup_start_factor,
        min_factor,
        inclusive,
    )


def two_stage_poly(
    optimizer: Optimizer,
    total_steps: PositiveInt,
    power: NonNegativeFloat = 0.9,
    warmup_steps: NonNegativeInt = 500,
    encoder_warmup_factor: NonNegativeFloat = 2.0,
) -> LambdaLR:
    """Two warm-ups from 0, then polynomial decay down to 0 (Kerssies et al. 2025, EoMT): the head's first, in which the encoder
    waits at rate 0, then the encoder's. Each decays from the end of its own warm-up to the end of the run.

    Args:
        warmup_steps: of the head, and of all that is not the encoder.
        encoder_warmup_factor: the encoder's, which comes after those, is as many times as long.
    """
    encoder_warmup = round(encoder_warmup_factor * warmup_steps)
    _check_warmup(warmup_steps + encoder_warmup, total_steps)

    def shape(waits: int, warmup: int) -> Callable[[int], float]:
        def factor(step: int) -> float:
            since = step - waits
            if since < warmup:
                return max(since, 0) / max(warmup, 1)
            return float((1 - min((since - warmup) / max(total_steps - waits - warmup, 1), 1.0)) ** power)

        return factor

    head, encoder = shape(0, warmup_steps), shape(warmup_steps, encoder_warmup)
    names = [str(group.get("name", "")) for group in optimizer.param_groups]
    return LambdaLR(optimizer, [encoder if name.startswith("encoder") else head for name in names])


def cosine(
    optimizer: Optimizer,
    total_steps: PositiveInt,
    warmup_fraction: ProperShare = 0.0,
    warmup_steps: NonNegativeInt | None = None,
    warmup_start_factor: Share = 0.01,
    min_factor: Share = 0.0,
    over_warmup: bool = False,
) -> LambdaLR:
    """Half a cosine from 1 down to `min_factor`, without restarts (Loshchilov and Hutter 2017).

    Args:
        over_warmup: the cosine spans the whole run, and the warm-up multiplies it (DINOv3's probe); else it begins after it.
    """
    if not over_warmup:
        return _decay(
            optimizer, total_steps, _half_cosine, warmup_fraction, warmup_steps, warmup_start_factor, min_factor
        )
    warmup = round(warmup_fraction * total_steps) if warmup_steps is None else warmup_steps
    _check_warmup(warmup, total_steps)

    def factor(step: int) -> float:
        rise = warmup_start_factor + (1 - warmup_start_factor) * step / warmup if step < warmup else 1.0
        return rise * (min_factor + (1 - min_factor) * _half_cosine(min(step / total_steps, 1.0)))

    return LambdaLR(optimizer, factor)


def constant(
    optimizer: Optimizer,
    total_steps: PositiveInt,
    warmup_fraction: ProperShare = 0.0,
    warmup_steps: NonNegativeInt | None = None,
    warmup_start_factor: Share = 0.01,
) -> LambdaLR:
    """No decay; with a warm-up if asked for."""
    return _decay(optimizer, total_steps, lambda progress: 1.0, warmup_fraction, warmup_steps, warmup_start_factor, 0.0)


def onecycle(
    optimizer: Optimizer,
    total_steps: PositiveInt,
    warmup_fraction: ProperShare = 0.25,
    warmup_steps: NonNegativeInt | None = None,
    div_factor: AtLeastOne = 25.0,
    final_div_factor: AtLeastOne = 10000.0,
) -> LambdaLR:
    """One cycle (Smith and Topin 2018): half a cosine up to the peak, half a cosine down, momentum untouched.

    The same rates as torch's `OneCycleLR` with `pct_start=warmup_fraction` and `cycle_momentum=False`.

    Args:
        div_factor: the first step's factor is 1 / `div_factor`.
        final_div_factor: the last step's is 1 / (`div_factor` * `final_div_factor`).
    """
    rise = warmup_fraction * total_steps if warmup_steps is None else warmup_steps
    _check_warmup(rise, total_steps)
    peak, last = max(rise - 1, 0), total_steps - 1
    start = 1 / div_factor
    end = start / final_div_factor

    def factor(step: int) -> float:
        if step < peak:
            return 1 + (start - 1) * _half_cosine(step / peak)
        progress = min((step - peak) / (last - peak), 1.0) if last > peak else float(step > peak)
        return end + (1 - end) * _half_cosine(progress)

    return LambdaLR(optimizer, factor)


def _decay(
    optimizer: Optimizer,
    total_steps: int,
    shape: Callable[[float], float],
    warmup_fraction: float,
    warmup_steps: int | None,
    warmup_start_factor: float,
    min_factor: float,
    inclusive: bool = False,
) -> LambdaLR:
    """Linear warm-up, then `shape(progress)`, 1 at progress 0, scaled to end at `min_factor`."""
    warmup = round(warmup_fraction * total_steps) if warmup_steps is None else warmup_steps
    _check_warmup(warmup, total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return warmup_start_factor + (1 - warmup_start_factor) * step / max(warmup - inclusive, 1)
        progress = min((step - warmup) / max(total_steps - warmup - inclusive, 1), 1.0)
        return min_factor + (1 - min_factor) * shape(progress)

    return LambdaLR(optimizer, factor)


def _check_warmup(warmup: float, total_steps: int) -> None:
    if warmup > total_steps:
        raise UserError(
            f"scheduler.warmup_steps: {warmup} of warm-up are more than the run's {total_steps} steps; "
            "take fewer, or scheduler.warmup_fraction"
        )


def _half_cosine(progress: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * progress)) / 2
