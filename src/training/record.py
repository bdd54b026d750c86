"""metrics.json of a run in the making: whatever ends the run, what it achieved until then stands in it."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from src.callbacks.checkpoint import RunCheckpoint
from src.callbacks.early_stopping import EarlyStopping
from src.callbacks.monitor import Monitor
from src.models.learner import Learner
from src.storage import run_folder

Status = Literal["completed", "pruned", "failed", "interrupted"]
_DONE = ("completed", "pruned")
_OF_TRAINING = ("parameters", "inference", "epochs", "steps", "train", "val", "memory")


class RunRecord:
    """Gathers what becomes metrics.json.

    Args:
        run_dir: the run folder.
        seed: the run's.
        resume: whether the run goes on: what it had achieved before is kept until there is something newer.

    Attributes:
        content: what is written.
    """

    def __init__(self, run_dir: Path, seed: int, resume: bool) -> None:
        self.run_dir, self._begun = run_dir, time.monotonic()
        self.content: dict[str, Any] = {"status": "failed", "seed": seed}
        self._before = _written(run_dir) if resume else {}
        self._trained: tuple[L.Trainer, Learner] | None = None

    def watch(self, trainer: L.Trainer, model: Learner) -> None:
        """From now on there is a training whose figures are to be had."""
        self._trained = trainer, model

    def close(self, status: Status, write: bool) -> None:
        """Completes the content for a run that came to its end, or was stopped, and writes it in the process that writes."""
        tested = {"test": self.content.pop("test")} if "test" in self.content else {}
        self.content |= self._training() | tested | {"status": status, "wall_seconds": self._seconds()}
        if write:
            run_folder.write_metrics(self.run_dir, self.content)

    def failed(self, words: str, status: int) -> None:
        """Writes how the run ended early, beside all that it had achieved; never over the record of a run that is done.

        Args:
            words: why.
            status: the process's exit status.
        """
        with contextlib.suppress(OSError):  # of a full disk; the message is on the screen too
            if _written(self.run_dir).get("status") in _DONE:
                return
            ended = {"status": "interrupted" if status == 130 else "failed", "error": words}
            now: dict[str, Any] = {}
            with contextlib.suppress(Exception):  # a trainer that has come to grief may not answer
                now = self._training()
            begun = bool(now.get("val")) or bool(now.get("steps"))
            before = {key: value for key, value in self._before.items() if key in _OF_TRAINING}
            same = not begun or now.get("steps") == before.get("steps")
            if same and "test" in self._before:
                before["test"] = self._before["test"]
            content = ended | before | self.content | (now if begun else {}) | ended | {"wall_seconds": self._seconds()}
            run_folder.write_metrics(self.run_dir, content)

    def _seconds(self) -> float:
        before = 0.0
        if self._trained is not None:
            checkpoint = self._trained[0].checkpoint_callback
            before = checkpoint.seconds_before if isinstance(checkpoint, RunCheckpoint) else 0.0
        return round(before + time.monotonic() - self._begun, 1)

    def _training(self) -> dict[str, object]:
        if self._trained is None:
            return {}
        trainer, model = self._trained
        checkpoint = trainer.checkpoint_callback
        monitor = next((c for c in trainer.callbacks if isinstance(c, Monitor)), None)  # type: ignore[attr-defined]
        stopping = [c.reason for c in trainer.callbacks if isinstance(c, EarlyStopping) and c.reason]  # type: ignore[attr-defined]
        stopped = {"stopped_early": "; ".join(stopping)} if stopping else {}
        best = checkpoint.best_results if isinstance(checkpoint, RunCheckpoint) else model.results.get("val", {})
        return {
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "train": {"images_per_second": monitor and monitor.images_per_second, "loss": monitor and monitor.loss},
            "val": dict(best),
            "memory": peak_memory(),
        } | stopped


def peak_memory() -> dict[str, float]:
    """Peaks of the main process since it started, in GiB: its resident memory, and its GPU's allocated one."""
    peaks = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
        peaks["process_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 3)
    if torch.cuda.is_available():
        peaks["gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return peaks


def _written(run_dir: Path) -> dict[str, object]:
    try:
        return run_folder.read_metrics(run_dir) or {}
    except (OSError, ValueError):
        return {}
