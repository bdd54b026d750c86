"""Where a step's time went, in words, and which key to turn next: what `debug=profile` says."""

from __future__ import annotations

import torch

from src.callbacks.step_profiler import Share, StepProfiler
from src.config.settings import Settings
from src.sweep.devices import usable_cores

_NAMES: dict[Share, str] = {
    "data": "waiting for the data",
    "transfer": "moving it to the device",
    "forward": "forward and loss",
    "backward": "backward",
    "optimizer": "optimizers, clipping, averages",
    "rest": "logging, callbacks, the loop",
}
# From which share of a step on something is said of it.
_WORTH: dict[Share, float] = {"data": 0.1, "transfer": 0.1, "optimizer": 0.15, "rest": 0.1}
_HALF = 0.5  # of the device's memory


def told(profiler: StepProfiler, settings: Settings, device: torch.device) -> list[str]:
    """Lines that say where the time of a step went and what to change first."""
    seconds, steps = profiler.seconds(), len(profiler.measured())
    if not seconds:
        return ["profile: fewer than two steps were trained, of which nothing can be said; give more batches"]
    total = sum(seconds.values())
    lines = [f"a step takes {1000 * total:.1f} ms (mean of {steps}):"]
    lines += [
        f"  {_NAMES[name]:<32} {1000 * part:8.1f} ms  {part / total:4.0%}"
        for name, part in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    share: dict[Share, float] = {name: part / total for name, part in seconds.items()}
    rarer = f"rarer figures and pictures: trainer.log_every_n_steps={10 * settings.trainer.log_every_n_steps}"
    keys: dict[Share, str] = {
        "data": _of_data(settings),
        "transfer": "several steps' images at once move faster: a larger data.batch_size",
        "optimizer": _of_optimizer(settings),
        "rest": rarer,
    }
    found = [(share[name], said) for name, said in keys.items() if share[name] >= _WORTH[name]]
    if computed := _of_computing(settings, device):
        found.append((share["forward"] + share["backward"], computed))
    if not found:
        return [
            *lines,
            "next: a smaller data.crop, network or encoder, or a faster device: it computes nearly all the time",
        ]
    return [*lines, *(f"next ({part:.0%} of the step): {said}" for part, said in sorted(found, reverse=True)[:2])]


def _of_data(settings: Settings) -> str:
    cores = usable_cores()
    workers, devices = settings.data.num_workers or 0, settings.trainer.processes or 1
    if workers * devices < cores:
        return f"more processes that read: data.num_workers={max(workers + 1, min(2 * workers, cores // devices))}"
    if settings.data.node.get("cache") is None:
        return f"all {cores} cores read already; keep what is decoded: data.cache=ram, or data.cache=disk where it does not fit"
    return (
        "all cores read, nothing is decoded twice; data.augment.photometric=0 and the like show what each change costs"
    )


def _of_optimizer(settings: Settings) -> str:
    if not settings.optimizer.node.get("fused"):
        return "+optimizer.fused=true steps all weights in one kernel (torch's Adam, AdamW, SGD)"
    return "fewer steps of more images: trainer.accumulate_grad_batches, or a larger data.batch_size"


def _of_computing(settings: Settings, device: torch.device) -> str | None:
    precision = str(settings.trainer.precision)
    if device.type == "cuda":
        if precision.startswith("32") and torch.cuda.is_bf16_supported():
            return "trainer.precision=bf16-mixed computes on tensor cores"
        used, there = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        if used < _HALF * there:
            batch = settings.data.batch_size
            return f"{used / there:.0%} of the memory is in use: data.batch_size={2 * batch} costs less an image"
        if not settings.compile:
            return "compile=true fuses kernels; the first steps take minutes"
    if device.type == "cpu" and precision.startswith("32") and has_bf16():
        return "this CPU multiplies in bfloat16: trainer.precision=bf16-mixed"
    return None


def has_bf16() -> bool:
    """Whether the CPU multiplies in bfloat16 itself, as far as torch says (from 2.12 on)."""
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
