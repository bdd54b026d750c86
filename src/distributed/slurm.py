"""SLURM's part in a run that outlives its time limit: it is put back in the queue, and goes on in the same folder."""

from __future__ import annotations

import logging
import os
import subprocess

_log = logging.getLogger(__name__)


def requeue_after(stop: str) -> None:
    """Puts this SLURM job back in the queue if what stopped it was SIGUSR1, SLURM's warning that its time is nearly up
    (`#SBATCH --signal=USR1@120`); does nothing outside of a job. SLURM then ends the job's processes."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or stop != "SIGUSR1":
        return
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("SLURM did not put job %s back in the queue (%s)", job, getattr(error, "stderr", None) or error)
    else:
        _log.info("job %s is back in SLURM's queue", job)
