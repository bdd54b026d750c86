"""Which devices the jobs of a sweep get, and how many jobs run at once."""

from __future__ import annotations

import os
import shutil
import subprocess

from src.config.parts import Trainer
from src.errors import UserError


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without importing torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.split() if answer.returncode == 0 else []


_ALL_AT_ONCE = 10_000


class DeviceQueue:
    """Hands devices out to jobs, first come, first served.

    Args:
        devices: their names; one that is listed twice takes two jobs at once. None: the GPUs of this machine.
        per_job: how many each job gets; None: as many as its `trainer.devices` asks for.
        jobs: at most so many jobs at once; None: as many as the devices allow, one where there are none.
    """

    def __init__(self, devices: list[str] | None = None, per_job: int | None = None, jobs: int | None = None) -> None:
        self._given = devices is not None
        self._all = visible_gpus() if devices is None else list(devices)
        self._free = list(self._all)
        self._per_job = per_job
        self.slots = jobs or max(1, len(self._all))
        self._running = 0
        if per_job is not None and per_job > len(self._all):
            raise UserError(f"launcher.devices_per_job: {per_job}, and there are {len(self._all)} (launcher.devices)")

    def wanted(self, trainer: Trainer) -> int:
        """How many devices a job with these settings of `trainer` gets.

        Raises:
            UserError: more than there are, or not what the job would use.
        """
        asked = trainer.devices
        if not self._all or (trainer.accelerator == "cpu" and not self._given):
            return 0
        if isinstance(asked, list):
            raise UserError(
                f"trainer.devices: {asked}; which devices a job of a sweep gets is launcher.devices' to say, how many "
                f"is trainer.devices={len(asked)}'s"
            )
        if asked == "auto" or asked == -1:
            return self._per_job or len(self._all)
        if self._per_job not in (None, asked):
            raise UserError(
                f"launcher.devices_per_job: {self._per_job}, and the job would use {asked} of them; take "
                f"trainer.devices={self._per_job} (with e.g. trainer=ddp), or leave launcher.devices_per_job out"
            )
        if asked > len(self._all):
            raise UserError(f"trainer.devices: {asked}, and the sweep has {len(self._all)} (launcher.devices)")
        return int(asked)

    @property
    def has_room(self) -> bool:
        return self._running < self.slots and (bool(self._free) or not self._all)

    def take(self, number: int) -> list[str] | None:
        """So many devices for a job, different ones; None while there are not enough."""
        chosen = list(dict.fromkeys(self._free))[:number]
        if self._running >= self.slots or len(chosen) < number:
            return None
        self._running += 1
        for name in chosen:
            self._free.remove(name)
        return chosen

    def give_back(self, devices: list[str]) -> None:
        self._running -= 1
        self._free += devices

    def threads(self, ranks: int) -> int | None:
        """CPU threads for each of a job's ranks, so that jobs side by side do not wait for one another's cores; None, as many
        as torch takes, where one job runs at a time."""
        at_once = min(self.slots, max(1, len(self._all) // ranks)) if self._all else self.slots
        return None if at_once == 1 else max(1, usable_cores() // at_once // ranks)

    def names(self, devices: list[str]) -> list[str] | None:
        """What CUDA_VISIBLE_DEVICES is to be for a job with these; None leaves it as it is."""
        return devices or None


class ClusterQueue(DeviceQueue):
    """A cluster's: which devices a job gets is the cluster's to say, how many is asked of it."""

    def __init__(self, per_job: int | None = None, jobs: int | None = None) -> None:
        super().__init__([], None, jobs or _ALL_AT_ONCE)
        self._per_job = per_job

    def wanted(self, trainer: Trainer) -> int:
        asked = trainer.devices
        if trainer.accelerator == "cpu":
            return 0
        if asked in (-1, "auto") and self._per_job is None:
            raise UserError(
                "trainer.devices: how many a job is to ask the cluster for is not said; take trainer.devices=N"
            )
        if isinstance(asked, list):
            raise UserError(f"trainer.devices: {asked}; a cluster chooses; take trainer.devices={len(asked)}")
        return self._per_job or int(asked)

    def take(self, number: int) -> list[str] | None:
        if self._running >= self.slots:
            return None
        self._running += 1
        return ["?"] * number

    def give_back(self, devices: list[str]) -> None:
        self._running -= 1

    def threads(self, ranks: int) -> None:
        return None

    def names(self, devices: list[str]) -> None:
        return None


def usable_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
