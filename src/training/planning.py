"""Finds what a run should ask of a machine, by short runs of it: precision, batch size, worker processes, learning rate."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from src.callbacks.lr_finder import steepest
from src.callbacks.step_profiler import Share
from src.config.settings import Settings
from src.errors import UserError
from src.storage import run_folder
from src.sweep.devices import usable_cores
from src.sweep.process import JobProcess, Start, outcome, run_to_end
from src.training.step_advice import has_bf16

_BF16 = "bf16-mixed"
_RATES = 60  # learning rates that are tried
_FULL = 0.9  # of the memory: what would take more is not tried
_NO_MEMORY = re.compile(r"memory is full|out of memory|for want of memory|can't allocate memory|MemoryError")
# What a try leaves out of the run that it stands for.
_SHORT = (
    "trainer.profiler=steps", "trainer.max_epochs=1", "trainer.max_steps=-1", "trainer.limit_val_batches=1",
    "trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=1.0", "scheduler.warmup_steps=0", "test=false",
    "callbacks.pictures=null", "callbacks.dashboard=null", "logger=csv",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a short run came to.

    Attributes:
        seconds: of a step by share; empty where it did not fit into memory.
        memory: the most that it took, in GiB: of the GPU, else of the main process.
        on_gpu: whether that is the GPU's.
        run_dir: its run folder.
    """

    seconds: dict[Share, float] = field(default_factory=dict)
    memory: float = 0.0
    on_gpu: bool = False
    run_dir: Path = Path()

    @property
    def fits(self) -> bool:
        return bool(self.seconds)

    @property
    def step(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Choice:
    """A key, what it should be, and what was measured of it.

    Attributes:
        value: None where it stays what it is.
        why: in one line.
    """

    key: str
    value: object
    why: str


Try = Callable[[Sequence[str]], Tried]


def short_runs(overrides: Sequence[str], options: Sequence[str], folder: Path, steps: int) -> Try:
    """Makes a function that trains some steps with overrides beside those of the run, as a process of its own: what runs out
    of memory ends with it, and so do the ranks of a distributed run; it ends with this process.

    Args:
        overrides, options: of `python -m src.train` for the run, and of Hydra.
        folder: for the run folders.
        steps: batches of each run.
    """
    count = 0

    def run(changes: Sequence[str]) -> Tried:
        nonlocal count
        count += 1
        run_dir = folder / str(count)
        few = [*_SHORT, f"trainer.limit_train_batches={steps}"]
        process = JobProcess(Start(run_dir, [*overrides, *few], [*options, f"hydra.run.dir={run_dir}"], list(changes)))
        try:
            code = run_to_end(process, stopped=lambda: False, grace_seconds=0)
        except BaseException:
            process.kill()
            raise
        status, _, error = outcome(run_dir, "val/miou", code, stopped=False)
        metrics = run_folder.read_metrics(run_dir)
        if metrics is None or status != "completed":
            if _NO_MEMORY.search(error or ""):
                return Tried(run_dir=run_dir)
            raise UserError(f"a run of {steps} steps failed: {error}")
        found, peaks = metrics["profile"], metrics["memory"]
        return Tried(seconds=found["seconds"], memory=peaks.get("gpu_gib", peaks.get("process_gib", 0.0)),
                     on_gpu="gpu_gib" in peaks, run_dir=run_dir)  # fmt: skip

    return run


def choices(
    settings: Settings, attempt: Try, gain: float, samples: int, largest_batch: int | None, say: Callable[[str], None]
) -> Iterator[Choice]:
    """Tries one key after the other, each with what was chosen before it.

    Args:
        settings: of the run.
        attempt: trains some steps.
        gain: by how much faster something must be to be chosen, as a share.
        samples: of the training split; a larger batch makes no sense.
        largest_batch: the same, as the user says.
        say: is told of each try.

    Raises:
        UserError: not even one image fits into memory, or the run fails for another reason.
    """
    chosen: list[str] = []

    def tried(*changes: str) -> Tried:
        result = attempt([*chosen, *changes])
        told = (
            f"{1000 * result.step:.0f} ms a step, {result.memory:.1f} GiB" if result.fits else "does not fit in memory"
        )
        say(f"{' '.join(changes) or 'as it is'}: {told}")
        return result

    yield (choice := _precision(settings, tried, gain))
    chosen += _as_override(choice)
    ways = max(1, settings.trainer.processes or 1)
    limit = min(samples, largest_batch or samples)
    yield (choice := _batch(settings.data.batch_size, ways, tried, gain, limit))
    chosen += _as_override(choice)
    yield (choice := _workers(settings.data.num_workers or 0, ways, tried, gain))
    chosen += _as_override(choice)
    if settings.discriminator is None and ways == 1 and str(settings.trainer.precision) != "16-mixed":
        yield _rate(settings, tried)
    else:
        yield Choice("optimizer.lr", None, "not tried: rates are tried on one device and without a discriminator")


def _precision(settings: Settings, tried: Callable[..., Tried], gain: float) -> Choice:
    now = str(settings.trainer.precision)
    has = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else has_bf16()
    if not now.startswith("32"):
        return Choice("trainer.precision", None, f"{now}, as it was asked for")
    if not has:
        return Choice("trainer.precision", None, "32-true: the hardware does not multiply in bfloat16")
    plain, mixed = tried(), tried(f"trainer.precision={_BF16}")
    if mixed.fits and (not plain.fits or mixed.step * (1 + gain) <= plain.step):
        ratio = f"{mixed.step / plain.step:.2f} of the time of {now}" if plain.fits else f"{now} does not fit in memory"
        return Choice("trainer.precision", _BF16, ratio)
    if mixed.fits:
        return Choice("trainer.precision", None, f"{now}: {_BF16} takes {mixed.step / plain.step:.2f} of its time")
    return Choice("trainer.precision", None, f"{now}: {_BF16} does not fit in memory either")


def _batch(now: int, ways: int, tried: Callable[..., Tried], gain: float, limit: int) -> Choice:
    """Halves the batch until it fits, or doubles it while that makes an image cheaper and there is memory."""
    size, found = now, tried(f"data.batch_size={now}")
    while not found.fits:
        if size // 2 < ways:
            raise UserError(
                f"data.batch_size: not even {size} images fit in memory; take a smaller data.crop or network"
            )
        size //= 2
        found = tried(f"data.batch_size={size}")
    if size < now:
        return Choice("data.batch_size", size, f"the largest that fits of {now}, {now // 2} …: {found.memory:.1f} GiB")
    best, each, end = size, found.step / size, ""
    while not end:
        if 2 * size > limit:
            end = f"no more than {limit} images were to be tried"
        elif 2 * found.memory > _FULL * memory(found.on_gpu):
            end = f"{2 * size} images would take more than {_FULL:.0%} of the memory"
        else:
            size *= 2
            found = tried(f"data.batch_size={size}")
            if not found.fits:
                end = f"{size} do not fit in memory"
            elif found.step / size * (1 + gain) > each:
                end = f"with {size} an image takes {found.step / size / each:.2f} of its time"
            else:
                best, each = size, found.step / size
    why = f"an image takes {1000 * each:.1f} ms; {end}"
    if best == now:
        return Choice("data.batch_size", None, f"{now}: {why}")
    return Choice(
        "data.batch_size", best, f"{why}; a larger batch makes fewer steps of an epoch: mind trainer.max_epochs"
    )


def _workers(now: int, ways: int, tried: Callable[..., Tried], gain: float) -> Choice:
    """The fewest processes with which a step is as fast as with any number."""
    most = max(1, usable_cores() // ways)
    counts = sorted({0, now, most, *(1 << n for n in range(most.bit_length()))} & set(range(max(most, now) + 1)))
    steps = {count: tried(f"data.num_workers={count}") for count in counts}
    steps = {count: found for count, found in steps.items() if found.fits}
    if not steps:
        return Choice("data.num_workers", None, "nothing fits in memory any more")
    fastest = min(found.step for found in steps.values())
    best = next(count for count, found in steps.items() if found.step <= fastest * (1 + gain))
    told = ", ".join(f"{count}: {1000 * found.step:.0f}" for count, found in steps.items())
    waiting = steps[best].seconds["data"] / steps[best].step
    why = f"milliseconds of a step by their number: {told}; {waiting:.0%} of it waits for data"
    return Choice("data.num_workers", None if best == now else best, f"{best}, {why}")


def _rate(settings: Settings, tried: Callable[..., Tried]) -> Choice:
    found = tried("callbacks.lr_finder=true", f"callbacks.lr_finder.steps={_RATES}")
    now = settings.optimizer.lr
    rows = list(csv.DictReader((found.run_dir / run_folder.LR_CURVE).read_text().splitlines())) if found.fits else []
    rate = steepest([float(row["learning_rate"]) for row in rows], [float(row["smoothed"]) for row in rows])
    if rate is None:
        return Choice("optimizer.lr", None, f"{now:g}: the loss fell at none of {_RATES} rates from 1e-6 to 1")
    value = float(f"{rate:.1e}")
    why = f"where the loss falls fastest among {len(rows)} rising rates (Smith 2017); it was {now:g}"
    return Choice("optimizer.lr", value, why)


def memory(of_gpu: bool) -> float:
    """GiB that a run may take: the GPU's, or what the machine has left for this process."""
    if of_gpu:
        return float(torch.cuda.get_device_properties(0).total_memory / 2**30)
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) / 2**20
    except (OSError, KeyError, ValueError):
        return float("inf")  # no such file on this system: runs tell by themselves what does not fit


def _as_override(choice: Choice) -> list[str]:
    return [] if choice.value is None else [f"{choice.key}={choice.value}"]
