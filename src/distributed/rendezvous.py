"""Processes that torchrun or srun started: they agree on one run folder before Hydra makes one each."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from typing import NamedTuple

from src.errors import UserError

_WAIT = timedelta(minutes=5)  # for the slowest node to start
_APART = 7000  # from SLURM's port of the process group (15000 to 24999) to that of this agreement


class Place(NamedTuple):
    """This process among all that torchrun or srun started."""

    rank: int
    world_size: int


def place() -> Place | None:
    """Where this process stands if torchrun or srun started it and others; None if not."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        found = Place(int(environment["RANK"]), int(environment["WORLD_SIZE"]))
    elif "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        found = Place(int(environment.get("SLURM_PROCID", "0")), int(environment["SLURM_NTASKS"]))
    else:
        return None
    return found if found.world_size > 1 else None


def agree(run_dir: str, place: Place) -> str:
    """Rank zero's run folder, in every process: time stamps differ from process to process.

    Raises:
        UserError: the processes do not find each other.
    """
    from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

    host, port, hosted = _meeting_point()
    key = f"run_dir/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        store = TCPStore(host, port, is_master=place.rank == 0 and not hosted, wait_for_workers=False, timeout=_WAIT)
        if place.rank > 0:
            agreed = str(json.loads(store.get(key)))
            store.add(f"{key}/read", 1)
            return agreed
        store.set(key, json.dumps(run_dir))
        until = time.monotonic() + _WAIT.total_seconds()
        while store.add(f"{key}/read", 0) < place.world_size - 1 and time.monotonic() < until:
            time.sleep(0.05)
    except (DistError, RuntimeError) as error:
        raise UserError(
            f"rank {place.rank} of {place.world_size} finds no rank 0 at {host}:{port} ({str(error).splitlines()[0]}); "
            "check the address and that no firewall is between the nodes"
        ) from None
    return run_dir


def _meeting_point() -> tuple[str, int, bool]:
    """Host and port of rank zero, and whether torchrun's agent serves a store there already."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        port = int(os.environ["MASTER_PORT"])
        hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return os.environ["MASTER_ADDR"], port if hosted else port + 1, hosted
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    slurm = SLURMEnvironment(auto_requeue=False)
    return slurm.main_address, slurm.main_port + _APART, False
