"""One job of a sweep as a fresh process group, and what it came to."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, get_args

import yaml

from src.errors import UserError
from src.files import untrusted
from src.files.foreign_folders import open_to_write
from src.storage import run_folder
from src.sweep.record import Status

_LAST_BYTES = 1 << 16  # of what a job said
STDOUT, STDERR = "stdout.txt", "stderr.txt"
TRIAL = "PIXELWISE_TRIAL"  # tells a job which trial of which study it is
# What a process of a distributed run is told; a job starts its own ranks and must not take itself for one of others.
_OF_RANKS = ("MASTER_", "NODE_RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "RANK", "GROUP_RANK", "ROLE_", "WORLD_SIZE",
             "TORCHELASTIC_", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "PL_GLOBAL_SEED",
             "HYDRA_FULL_ERROR", "PIXELWISE_TRIAL")  # fmt: skip
_PORTS = range(20000, 30000)  # below those that systems give to whoever asks for any
_SET_DEATH_SIGNAL = 1  # prctl(2)


@dataclass(frozen=True)
class Start:
    """All that it takes to start a job, here or on another machine.

    Attributes:
        folder: the job's run folder, absolute.
        overrides: for a new run, those of its config.
        hydra: for a new run, those of Hydra.
        changes: for a run that goes on.
        devices: for CUDA_VISIBLE_DEVICES; None leaves it as it is.
        trial: what Optuna's callback is told.
        trust: for a run that goes on, packages that its config may name.
        threads: for OMP_NUM_THREADS, unless that is set; None leaves it as it is.
    """

    folder: Path
    overrides: list[str]
    hydra: list[str]
    changes: list[str]
    devices: list[str] | None = None
    trial: str | None = None
    trust: list[str] = field(default_factory=list)
    threads: int | None = None

    def command(self) -> list[str]:
        """A job that left a checkpoint goes on from it."""
        train = [sys.executable, "-m", "src.train"]
        if self.can_go_on:
            trust = [f"trust={','.join(self.trust)}"] if self.trust else []
            return [*train, f"resume={self.folder}", *self.changes, *trust]
        return [*train, *self.hydra, *self.overrides, *self.changes]

    @property
    def can_go_on(self) -> bool:
        return any((self.folder / file).is_file() for file in (run_folder.LAST, run_folder.PREVIOUS))


class Running(Protocol):
    """A job that was started, wherever it runs."""

    def poll(self) -> int | None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class JobProcess:
    """A running job: the process, and all that it starts, in a group of its own that ends with it."""

    def __init__(self, start: Start) -> None:
        folder = start.folder
        folder.mkdir(parents=True, exist_ok=True)
        run_folder.check_own(folder)
        (folder / run_folder.METRICS).unlink(missing_ok=True)
        if not start.can_go_on:
            with open_to_write(folder, run_folder.OVERRIDES) as overrides:
                overrides.write(yaml.safe_dump([*start.overrides, *start.changes]).encode())
        with open_to_write(folder, STDOUT) as out, open_to_write(folder, STDERR) as err:
            self._process = subprocess.Popen(
                start.command(), env=environment(start), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True, preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )  # fmt: skip

    def poll(self) -> int | None:
        """The exit status once the job has ended; whatever is left of its group is then killed."""
        code = self._process.poll()
        if code is not None:
            self._kill_group()
        return code

    def stop(self) -> None:
        """Asks the job to save and end; only its first process: the others follow, or are killed after it."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        self._kill_group()
        self._process.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            os.killpg(self._process.pid, signal.SIGKILL)


def run_to_end(process: Running, stopped: Callable[[], bool], grace_seconds: float) -> int:
    """Waits for a job; from when `stopped` it has the grace to save and end by itself."""
    asked_at: float | None = None
    while (code := process.poll()) is None:
        if asked_at is None and stopped():
            asked_at = time.monotonic()
            process.stop()
        if asked_at is not None and time.monotonic() - asked_at > grace_seconds:
            process.kill()
        time.sleep(0.1)
    return code


def environment(start: Start) -> dict[str, str]:
    """This process's, with the job's own devices and, for the ranks that it may start, a port of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OF_RANKS)}
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    if start.devices is not None:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(start.devices)
    if start.trial is not None:
        own[TRIAL] = start.trial
    if start.threads is not None:
        inherited.setdefault("OMP_NUM_THREADS", str(start.threads))
    return inherited | own


_used: set[int] = set()


def _free_port() -> int:
    """One that no other job of this sweep was given: jobs use theirs only seconds after it was chosen."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        if port in _used and len(_used) < len(_PORTS) // 2:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _used.add(port)
            return port


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """In the new process: a sweep that is killed outright takes its jobs with it, which then save and end."""
    assert _libc is not None
    _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)


def outcome(folder: Path, metric: str, code: int | None, stopped: bool) -> tuple[Status, float | None, str | None]:
    """What an ended job came to: status, value of the metric, error.

    A job that ended without a word (killed, or before its run began) gets a metrics.json that says so.

    Args:
        folder: the job's.
        metric: e.g. "val/miou".
        code: the exit status, negative for a signal; None where it is not known.
        stopped: whether the sweep asked the job to end.
    """
    try:
        metrics = run_folder.read_metrics(folder)
    except UserError:
        metrics = None
    if metrics is None or metrics["status"] not in get_args(Status):
        status: Status = "interrupted" if stopped else "failed"
        metrics = {"status": status, "error": None if stopped else _last_words(folder, code)}
        run_folder.write_metrics(folder, metrics)
    value = run_folder.score(metrics, metric)
    error = metrics.get("error")
    if metrics["status"] == "completed" and value is None:
        error = f"the run has no {metric}"
    if value is not None and not math.isfinite(value):
        value = None
    return metrics["status"], value, error and " ".join(str(error).split())[:500]


def _last_words(folder: Path, code: int | None) -> str:
    try:
        with untrusted.open_regular(folder / STDERR) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LAST_BYTES))
            lines = stream.read(_LAST_BYTES).decode(errors="replace").split("\n")
    except (FileNotFoundError, UserError):
        lines = []
    said = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return said[-1] if said else f"ended with status {code} and without a word"
