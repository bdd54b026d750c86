"""Whether a run has anything left to do when it is resumed, found without torch and without touching its folder; and what was
changed of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from src.config.changes import LIMITS
from src.config.parts import Trainer
from src.errors import UserError
from src.files import untrusted
from src.storage import run_folder


def nothing_left(run_dir: Path, trainer: Trainer, test: bool, given: Collection[str]) -> str | None:
    """What to tell of a run that is complete, by whatever ended it; None of one that has something left to do: to train,
    because it was stopped or is asked to train longer, or to be tested.

    Args:
        trainer: the run's, with what is given.
        test: whether the run is to be tested at its end.
        given: the keys that the user gives now.

    Raises:
        UserError: the run is to train less than it has.
    """
    metrics = _metrics(run_dir)
    status = metrics.get("status")
    if status not in ("completed", "pruned"):
        return None
    epochs, steps = (int(value) if isinstance(value := metrics.get(key), int) else 0 for key in ("epochs", "steps"))
    limits = (trainer.max_epochs, trainer.max_steps)
    most_epochs, most_steps = (math.inf if limit in (None, -1) else int(limit) for limit in limits)
    if set(LIMITS) & set(given):
        if most_epochs < epochs or most_steps < steps:
            raise UserError(
                f"resume: {run_dir} has done {epochs} epochs and {steps} steps already; give more than that, or start anew: "
                f"python -m src.train like={run_dir} …"
            )
        if most_epochs > epochs and most_steps > steps:
            return None
    if status == "completed" and test and "test" not in metrics:
        return None
    longer = "trainer.max_steps" if steps >= most_steps else "trainer.max_epochs"
    now, most = (steps, most_steps) if steps >= most_steps else (epochs, most_epochs)
    limit = f"{longer}={most if now < most < math.inf else max(2 * now, 1)}"
    how = "is complete" if status == "completed" else "was pruned by its search"
    return (
        f"{run_dir} {how} after {epochs} epochs and {steps} steps, and nothing in it was changed; to train longer: "
        f"python -m src.train resume={run_dir} {limit}"
    )


def record(
    run_dir: Path, values: Mapping[str, tuple[object, object]], config: str | None, epoch: int, step: int
) -> None:
    """Adds a change to those in the run folder, with where it happened, and writes the config that holds from there on.

    Args:
        values: each changed key, with its value before and now.
        config: the new text of its file; None where it is as it was.
        epoch, step: how many were done.
    """
    file = untrusted.inside(run_dir, run_folder.CHANGES)
    try:
        known = untrusted.read_yaml(file)
    except FileNotFoundError:
        known = []
    known = known if isinstance(known, list) else []
    new = [
        {"epoch": epoch, "step": step, "key": key, "before": before, "now": now}
        for key, (before, now) in values.items()
    ]
    added = [change for change in new if change not in known]  # it may have been killed before its next checkpoint
    if added:
        run_folder.write_text(file, yaml.safe_dump([*known, *added], sort_keys=False, allow_unicode=True))
    if config is not None:
        run_folder.write_text(untrusted.inside(run_dir, run_folder.CONFIG), config)


def _metrics(run_dir: Path) -> dict[str, object]:
    try:
        metrics = untrusted.read_json(run_dir / run_folder.METRICS)
    except FileNotFoundError:
        return {}
    return metrics if isinstance(metrics, dict) else {}
