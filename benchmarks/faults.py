"""Does everything to a run that a month on a cluster does, and looks whether it ends as if nothing had happened.

Kills (`kill -9`) small runs of both models at seeded random moments, some of them while a checkpoint is being written,
during validation and while the run starts; resumes, kills again, and at last lets the run finish. It must end like the
undisturbed one: weights, optimizer states, figures and TensorBoard's curves, to the bit. Then the other faults: signals,
damaged checkpoints, a full disk, a loss that becomes NaN, a rank that dies. Prints a table; exits with 1 if anything deviates.

    python benchmarks/faults.py [--folder DIR] [--kills 6] [--seed 0] [--only NAME …]     # 32 minutes on two busy cores
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch

from src.storage import run_folder
from tests.conftest import SMALL, environment
from tests.same import assert_same_end

EPOCHS, BATCHES = 10, 6
BOTH = [
    *SMALL, f"trainer.max_epochs={EPOCHS}", "trainer.log_every_n_steps=1", "data.augment.scale=[0.7,1.5]",
    "data.crop=[32,32]", "model.ema_decay=0.9", "callbacks.checkpoint.every_n_steps=2",
    "+callbacks.position._target_=benchmarks.faults.Position",
]  # fmt: skip
MODELS = {
    "cnn": BOTH,
    "gan": [
        *BOTH, "model=gan", "discriminator.depth=3", "model.noise.channels=2", "model.generated=gumbel",
        "model.semi=fixmatch", "model.semi.threshold=0.3", "data.labeled_fraction=1/2",
    ],
}  # fmt: skip
LIMIT = 240.0  # seconds for anything
WITHIN = 30.0  # seconds from a rank's end to the end of all


class Position(L.Callback):
    """Writes into files of the run folder how many batches were trained, and that validation is under way."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        (Path(trainer.default_root_dir) / "position").write_text(str(done))

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        (Path(trainer.default_root_dir) / "validating").touch()

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        (Path(trainer.default_root_dir) / "validating").unlink(missing_ok=True)


class Fail(L.Callback):
    """Runs out of memory on rank 1 in the third batch."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        if trainer.global_rank == 1 and done == 3:
            raise torch.OutOfMemoryError("out of memory, tried to allocate 20 GiB")


class Deviation(Exception):
    """A run did not do what it must."""


class Run:
    """A run folder and the process that is at work in it."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder, self.overrides = folder, overrides
        self.log = folder.with_suffix(".log")

    def start(self, *launcher: str) -> subprocess.Popen[bytes]:
        """Starts the run, or goes on with it where it has a checkpoint."""
        begin = launcher or (sys.executable,)
        anew, on = [*self.overrides, f"hydra.run.dir={self.folder}"], [f"resume={self.folder}", "trust=benchmarks"]
        told = on if self.saved() else anew
        (self.folder / "validating").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*begin, "-m", "src.train", *told], cwd=ROOT, env=environment(), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def saved(self) -> bool:
        return (self.folder / run_folder.LAST).exists()

    def position(self) -> int:
        try:
            return int((self.folder / "position").read_text())
        except (OSError, ValueError):
            return 0

    def finish(self) -> None:
        status = self.start().wait(LIMIT)
        if status:
            raise Deviation(f"resumed, exit status {status}")

    def must_say(self, *words: str) -> None:
        text = self.log.read_text()
        for word in words:
            if word not in text:
                raise Deviation(f"does not say {word!r}")

    def must_be(self, status: str) -> None:
        metrics = run_folder.read_metrics(self.folder) or {}
        if metrics.get("status") != status:
            raise Deviation(f"metrics.json says {metrics.get('status')}, not {status}")

    def until(self, reached: Callable[[], object], process: subprocess.Popen[bytes]) -> bool:
        """Waits until something is so; False if the run ended before."""
        end = time.monotonic() + LIMIT
        while process.poll() is None and time.monotonic() < end:
            if reached():
                return True
            time.sleep(0.0005)
        return False

    def half_written(self) -> list[Path]:
        return list((self.folder / run_folder.CHECKPOINTS).glob(".*.ckpt.*"))

    def processes(self) -> list[int]:
        """All processes that name the run folder in their command."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found


def kill_once(run: Run, kind: str, at: int, draw: random.Random) -> str | None:
    """Starts or resumes a run and kills it; what was hit, or None if the run ended before."""
    process = run.start()
    if kind == "start":
        time.sleep(draw.uniform(0.5, 8))
        hit = process.poll() is None
    else:
        hit = run.until(lambda: run.position() >= at, process)
        if kind == "validation":
            hit = hit and run.until((run.folder / "validating").exists, process)
        elif kind == "checkpoint":
            hit = hit and run.until(run.half_written, process)
        else:
            time.sleep(draw.uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not hit:
        return None
    if kind == "checkpoint" and not run.half_written():
        return "checkpoint (just renamed)"
    return kind


def killed(folder: Path, model: str, workers: int, kills: int, seed: int) -> str:
    """Kills and resumes one run again and again; gives what was hit."""
    draw = random.Random(f"{seed} {model} {workers}")
    run = Run(folder / f"{model}_{workers}_workers", *MODELS[model], f"data.num_workers={workers}")
    kinds = ["batch", "checkpoint", "validation", "checkpoint", "start"] + ["batch"] * kills
    kinds = draw.sample(kinds[:kills], kills)
    points = sorted(draw.sample(range(2, EPOCHS * BATCHES - BATCHES), kills))
    hits = [kill_once(run, kind, at, draw) for kind, at in zip(kinds, points, strict=True)]
    if None in hits:
        raise Deviation(f"only {[hit for hit in hits if hit]} were hit")
    run.finish()
    assert_same_end(run.folder, folder / model)
    if run.half_written():
        raise Deviation("half-written checkpoints are left")
    return f"killed at {', '.join(f'{hit} {at}' for hit, at in zip(hits, points, strict=True))}; same bits"


def signalled(folder: Path, number: signal.Signals, group: bool) -> str:
    run = Run(folder / f"{number.name}_{group}", *MODELS["cnn"], f"data.num_workers={2 if group else 0}")
    process = run.start()
    run.until(lambda: run.position() >= 20, process)
    os.killpg(process.pid, number) if group else process.send_signal(number)
    status = process.wait(LIMIT)
    run.must_be("interrupted")
    if status != 130:
        raise Deviation(f"exit status {status}")
    run.finish()
    assert_same_end(run.folder, folder / "cnn")
    return "interrupted, exit status 130; resumed: same bits"


def damaged(folder: Path, kind: str) -> str:
    run = Run(folder / kind, *MODELS["cnn"])
    process = run.start()
    run.until(lambda: run.position() >= 20, process)
    process.kill()
    process.wait()
    last = run.folder / run_folder.LAST
    content = last.read_bytes()
    last.unlink()  # previous.ckpt may be the same file
    if kind == "truncated":
        last.write_bytes(content[: len(content) * 2 // 3])
    else:
        torch.save({"weights": torch.zeros(3)}, last)
    run.finish()
    run.must_say(str(last), "damaged" if kind == "truncated" else "not a checkpoint of this program")
    assert_same_end(run.folder, folder / "cnn")
    return "named, the one before it used: same bits"


@contextlib.contextmanager
def small_disk(at: Path, megabytes: int) -> Iterator[bool]:
    """A file system of so many megabytes at a folder; gives whether this user may mount one."""
    at.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(at)], capture_output=True
    ).returncode == 0  # fmt: skip
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(at)], check=False)


def disk_full(folder: Path) -> str:
    """Another program fills the disk of a run that is under way, and later makes room again."""
    with small_disk(folder / "disk", 64) as mounted:
        run = Run(folder / "disk" / "run", *MODELS["cnn"])
        run.log = folder / "disk.log"
        process = run.start()
        run.until(lambda: run.position() >= 20, process)
        ballast = folder / "disk" / "ballast"
        if mounted:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
                while stream.write(bytes(1 << 16)):
                    pass
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as stream:
                while stream.write(bytes(1)):
                    pass
        else:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
        status = process.wait(LIMIT)
        run.must_say("is full")
        if "Traceback" in run.log.read_text():
            raise Deviation("a traceback")
        torch.load(run.folder / run_folder.LAST, weights_only=True)
        if status != 2:
            raise Deviation(f"exit status {status}")
        ballast.unlink(missing_ok=True)
        run.finish()
        assert_same_end(run.folder, folder / "cnn")
    return f"said in words, exit status 2 ({'small tmpfs' if mounted else 'RLIMIT_FSIZE'}); with room again: same bits"


def diverged(folder: Path) -> str:
    run = Run(folder / "nan", *MODELS["cnn"], "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant")
    if (status := run.start().wait(LIMIT)) != 2:
        raise Deviation(f"exit status {status}")
    run.must_be("failed")
    run.must_say("became NaN or infinite in step", "the last good checkpoint is")
    return "failed, exit status 2, names the step and the last good checkpoint"


def rank_ends(folder: Path, name: str, victim: int | None, *launcher: str) -> str:
    """A rank of two is killed or, where `victim` is None, runs out of memory: all must end soon and say why."""
    failing = ["+callbacks.fail._target_=benchmarks.faults.Fail"] if victim is None else []
    run = Run(folder / name, *MODELS["cnn"], "trainer=ddp_cpu", "trainer.max_epochs=1000", *failing)
    process = run.start(*launcher)
    began = time.monotonic()
    if victim is not None:
        run.until(lambda: run.position() >= 8, process)
        began = time.monotonic()
        os.kill(rank_process(run, process, victim, bool(launcher)), signal.SIGKILL)
    status = process.wait(LIMIT)
    while run.processes() and time.monotonic() - began < LIMIT:
        time.sleep(0.1)
    took = time.monotonic() - began
    if status == 0 or (victim is not None and took > WITHIN):
        raise Deviation(f"exit status {status} after {took:.0f} s")
    run.must_be("failed")
    words = (run_folder.read_metrics(run.folder) or {})["error"]
    run.must_say(words)
    torch.load(run.folder / run_folder.LAST, weights_only=True) if victim is not None else None
    return f"all ended{f' after {took:.1f} s' if victim is not None else ''}, exit status {status}: {words}"


def rank_process(run: Run, process: subprocess.Popen[bytes], rank: int, launched: bool) -> int:
    """The process of a local rank, not one of its loaders' workers."""
    if rank == 0 and not launched:
        return process.pid
    for pid in run.processes():
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if int(status[1]) == process.pid and f"LOCAL_RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text():
            return pid
    raise Deviation(f"there is no rank {rank}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("logs/faults"), help="emptied first")
    parser.add_argument("--kills", type=int, default=6, help="of each of the four runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="faults whose name contains one of these")
    given = parser.parse_args()
    folder = given.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # which tells of each resumed run's purged points
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    faults: dict[str, Callable[[], str]] = {
        f"{given.kills} kills, {model}, {workers} workers": lambda m=model, w=workers: killed(  # type: ignore[misc]
            folder, m, w, given.kills, given.seed
        )
        for model in MODELS
        for workers in (0, 2)
    }
    faults |= {
        "SIGTERM": lambda: signalled(folder, signal.SIGTERM, False),
        "SIGTERM to all, 2 workers": lambda: signalled(folder, signal.SIGTERM, True),
        "SIGINT to all, 2 workers": lambda: signalled(folder, signal.SIGINT, True),
        "truncated checkpoint": lambda: damaged(folder, "truncated"),
        "foreign checkpoint": lambda: damaged(folder, "foreign"),
        "disk full": lambda: disk_full(folder),
        "NaN": lambda: diverged(folder),
        "rank 1 killed": lambda: rank_ends(folder, "rank1", 1),
        "rank 0 killed": lambda: rank_ends(folder, "rank0", 0),
        "rank 1 out of memory": lambda: rank_ends(folder, "memory", None),
        "rank 1 killed, torchrun": lambda: rank_ends(folder, "torchrun1", 1, *torchrun),
        "rank 0 killed, torchrun": lambda: rank_ends(folder, "torchrun0", 0, *torchrun),
    }
    for model in MODELS:
        Run(folder / model, *MODELS[model]).finish()
    rows, deviations = [], 0
    for name, fault in faults.items():
        if given.only and not any(part in name for part in given.only):
            continue
        begun = time.monotonic()
        try:
            outcome, mark = fault(), "ok"
        except (Deviation, AssertionError, OSError, subprocess.TimeoutExpired) as error:
            outcome, mark = f"{type(error).__name__}: {error}".splitlines()[0][:200], "DEVIATES"
            deviations += 1
        print(f"{mark:8}  {name:28}  {outcome}  ({time.monotonic() - begun:.0f} s)", flush=True)
        rows.append((name, mark, outcome))
    (folder / "table.md").write_text(
        "| fault | | what came out |\n|---|---|---|\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)
    )
    print(f"{len(rows)} faults, {deviations} deviations; {folder}/table.md")
    sys.exit(1 if deviations else 0)


if __name__ == "__main__":
    main()
