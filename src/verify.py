"""Verifies a run: `python -m src.verify RUN_DIR [data.root=…]` scores its best checkpoint again and names what differs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from omegaconf import DictConfig
from pydantic import Field

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.check import check_keys, check_node
from src.config.evaluation import ChosenData
from src.config.parts import Accelerator, Config, Node, Precision, Trainer, types_of
from src.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Where:
    """Keys of `trainer` where no option of it is chosen; None is as the run was trained."""

    accelerator: Accelerator | None = None
    precision: Precision | None = None


@dataclass(frozen=True, kw_only=True)
class Verification(Asked):
    """What a verification is told.

    Attributes:
        run: the run folder.
        data, trainer, trust: as `src.evaluate` takes them.
        tolerance: how far a score may be from the recorded one; None is 0 where both are made on one CPU device, else 0.001.
    """

    run: str
    data: Node
    trainer: Node
    tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None
    trust: list[str] | None = None

    def check(self) -> None:
        check_keys(self.data, types_of(ChosenData), "data")
        if "_target_" not in self.trainer:
            check_keys(self.trainer, types_of(Where), "trainer")
            return
        check_node("trainer", self.trainer)
        trainer = Trainer.of(self.trainer)
        if trainer.strategy != "auto" or trainer.devices not in (1, "auto"):
            raise UserError("trainer: a run is verified on one device; take trainer=cpu or trainer=gpu")


def verify(settings: Config | Verification) -> bool:
    """Scores a run's best checkpoint again, and prints whether its recorded scores come out, and what is different now.

    Returns:
        Whether they do.

    Raises:
        UserError: the run has no scores or no checkpoint, or its data cannot be opened.
    """
    asked = settings if isinstance(settings, Verification) else Verification.of(settings)
    from src.training.verifying import verified

    trainer = {key: asked.trainer.get(key) for key in ("accelerator", "precision")}
    return verified(asked.run, asked.data, trainer, asked.tolerance, asked.trust)


def _task(asked: Verification, _: DictConfig) -> None:
    if not verify(asked):
        sys.exit(1)


if __name__ == "__main__":
    start("verify", _task, Verification.of)
