"""Scores a checkpoint: `python -m src.evaluate ckpt=FILE_OR_RUN_DIR [data=… data.root=…] [metrics=[classes,…]]`."""

from __future__ import annotations

from collections.abc import Collection

from omegaconf import DictConfig

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start, task_overrides
from src.cli.imports import importing_torch
from src.config.evaluation import Evaluation
from src.config.parts import Config


def evaluate(settings: Config | Evaluation, typed: Collection[str] | None = None) -> dict[str, dict[str, float]]:
    """Scores of each split, as in metrics.json; `src.training.scoring.score` says more.

    Args:
        settings: what the evaluation is told, or the whole config as plain containers.
        typed: the keys that the user typed.
    """
    asked = settings if isinstance(settings, Evaluation) else Evaluation.of(settings)
    with importing_torch():
        from src.training.scoring import score

    return score(asked, typed)


def _task(asked: Evaluation, _: DictConfig) -> None:
    with importing_torch():
        from src.data.trained_on import typed_keys
        from src.training.scoring import score

    score(asked, typed_keys(task_overrides()))


if __name__ == "__main__":
    start("evaluate", _task, Evaluation.of)
