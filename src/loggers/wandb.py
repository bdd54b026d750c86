"""`logger=wandb`: Weights & Biases, online or as a folder to be sent later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from src.errors import UserError
from src.loggers.base import Board, Picture, Status, keep_id, kept_id, new_id, plain
from src.optional_packages import needs

EXTRA = ("wandb", "wandb")  # the module that must be there, and the extra that brings it
_KEPT = "wandb"


class WandB(WandbLogger, Board):
    """Lightning's logger of Weights & Biases, for runs that go on.

    A run that goes on is the same one there. W&B takes back no figure: those of the batches that are done again stand twice at
    their step.

    Args:
        run_dir: the run folder.
        save_dir: where W&B makes its folder `wandb`.
        project, entity, name, group, tags: as W&B calls them; without a name it is the run folder's.
        mode: "offline" sends nothing; `wandb sync` does so later.
        resumed_at: batches that were done when the run was gone on with; None for a new run.

    Raises:
        UserError: the package is not installed, or nobody is logged in or reached.
    """

    def __init__(
        self,
        run_dir: str,
        save_dir: str,
        project: str = "pixelwise",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: Literal["online", "offline"] = "offline",
        resumed_at: int | None = None,
    ) -> None:
        self._package: Any = needs(*EXTRA)
        self._run_dir, self._mode = Path(run_dir), mode
        given = kept_id(self._run_dir, _KEPT, resumed_at is not None) or new_id()
        super().__init__(
            project=project, name=name or self._run_dir.name or None, save_dir=save_dir, id=given, entity=entity, group=group,
            tags=tags, mode=mode,
        )  # fmt: skip

    @property
    def experiment(self) -> Any:
        try:
            return super().experiment
        except self._package.errors.Error as error:
            raise UserError(
                f"logger.wandb: W&B cannot be begun ({' '.join(str(error).split())}); log in (wandb login), or take "
                "logger.wandb.mode=offline and send it later: wandb sync RUN_DIR/wandb/offline-run-*"
            ) from error

    def describe(self, config: Mapping[str, object]) -> None:
        keep_id(self._run_dir, _KEPT, str(self.experiment.id))
        self.log_hyperparams({"config": dict(config)})

    def show(self, tag: str, picture: Picture, step: int) -> None:
        self.log_image(tag, [picture], step=step)

    def conclude(self, chosen: Mapping[str, object], scores: Mapping[str, float], step: int) -> None:
        self.log_hyperparams(plain(chosen))
        self.experiment.summary.update({f"best/{key}": value for key, value in scores.items()})

    @rank_zero_only
    def close(self, status: Status) -> None:
        self.experiment.finish(exit_code=0 if status in ("completed", "pruned") else 1)
