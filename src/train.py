"""Trains a segmenter: `python -m src.train [overrides]`, `python -m src.train resume=RUN_DIR`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from src import cli
from src.config.check import check
from src.errors import UserError

if TYPE_CHECKING:  # importing torch takes seconds: --help and a config error do without
    from src.session import Outcome

_MAY_CHANGE = (
    "data.root",
    "data.num_workers",
    "data.cache",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.strategy",
)


def train(settings: Mapping[str, Any], resume: bool = False) -> Outcome:
    """Trains, tests the best checkpoint and writes metrics.json.

    Args:
        settings: the whole config as plain containers, interpolations resolved.
        resume: go on from the last checkpoint in the config's run folder.

    Raises:
        UserError: bad config or data, or the loss diverged.
    """
    check(settings)
    from src.session import run

    return run(settings, resume=resume)


def _task(config: DictConfig) -> float | None:
    outcome = train(cli.plain(config))
    if outcome.status == "interrupted":
        sys.exit(130)
    return outcome.optimized


def _resume(arguments: list[str]) -> None:
    """Goes on with a run, in its folder, with its config; only where and how fast it runs may change."""
    from src.checkpoints import run_config

    run_dir = Path(next(a for a in arguments if a.startswith("resume=")).partition("=")[2]).expanduser().resolve()
    settings = OmegaConf.create(run_config(run_dir))
    for override in arguments:
        key, _, value = override.partition("=")
        if key == "resume":
            continue
        if key not in _MAY_CHANGE:
            raise UserError(
                f"{key}: a resumed run keeps its config (only {', '.join(_MAY_CHANGE)} may change); to start anew from its "
                f"weights: python -m src.train init_from={run_dir} …"
            )
        OmegaConf.update(settings, key, OmegaConf.select(OmegaConf.from_dotlist([f"value={value}"]), "value"))
    logging.basicConfig(
        level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S",
        handlers=[logging.StreamHandler(sys.stdout), logging.FileHandler(run_dir / "train.log")],
    )  # fmt: skip
    if train(cli.plain(settings), resume=True).status == "interrupted":
        sys.exit(130)


def main() -> None:
    arguments = sys.argv[1:]
    if any(a.startswith("resume=") and a != "resume=null" for a in arguments):
        cli.report_user_errors(lambda: _resume(arguments))
    else:
        cli.start("train", _task, check)


if __name__ == "__main__":
    main()
