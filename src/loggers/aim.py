"""`logger=aim`: a local repository of Aim."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from src.loggers.base import Board, Picture, Status, keep_id, kept_id, plain
from src.optional_packages import needs

EXTRA = ("aim", "aim")
_KEPT = "aim"


class Aim(Logger, Board):
    """Writes to a repository of Aim, where a run that goes on is the same one, and a step that is done again replaces what it
    was.

    Aim's own logger of Lightning takes no pictures and puts figures apart by prefixes that ours have not. No terminal output
    and no system's figures are taken.

    Args:
        run_dir: the run folder.
        save_dir: where the repository is, or is made; several runs may share one: `aim up --repo DIR`.
        experiment: its name.
        name: the run's; None takes the run folder's.
        resumed_at: batches that were done when the run was gone on with; None for a new run.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(
        self,
        run_dir: str,
        save_dir: str,
        experiment: str = "pixelwise",
        name: str | None = None,
        resumed_at: int | None = None,
    ) -> None:
        super().__init__()
        self._package = needs(*EXTRA)
        self._run_dir, self._repository, self._experiment_name = Path(run_dir), Path(save_dir), experiment
        self._name = name or self._run_dir.name
        self._known = kept_id(self._run_dir, _KEPT, resumed_at is not None)
        self._run: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Aim's `Run`."""
        if self._run is None:
            self._repository.mkdir(parents=True, exist_ok=True)
            self._run = self._package.Run(
                self._known, repo=str(self._repository), experiment=self._experiment_name, force_resume=True,
                system_tracking_interval=None, log_system_params=False, capture_terminal_logs=False,
            )  # fmt: skip
            self._known = self._run.hash
            self._run.name = self._name
        return self._run

    @property
    def name(self) -> str:
        return self._experiment_name

    @property
    def version(self) -> str:
        return self._known or ""

    @property
    def save_dir(self) -> str:
        return str(self._repository)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for key, value in metrics.items():
            name, context = _placed(key)
            self.experiment.track(float(value), name=name, step=step or 0, context=context)

    @rank_zero_only
    def log_hyperparams(self, params: object, *_: object, **__: object) -> None:
        """What Lightning hands over of a model's own hyper-parameters; there are none here."""

    def describe(self, config: Mapping[str, object]) -> None:
        keep_id(self._run_dir, _KEPT, str(self.experiment.hash))
        self.experiment["config"] = dict(config)

    def show(self, tag: str, picture: Picture, step: int) -> None:
        name, context = _placed(tag)
        self.experiment.track(self._package.Image(picture), name=name, step=step, context=context)

    def conclude(self, chosen: Mapping[str, object], scores: Mapping[str, float], step: int) -> None:
        self.experiment["hparams"] = plain(chosen)
        self.experiment["best"] = dict(scores)

    @rank_zero_only
    def close(self, status: Status) -> None:
        self.experiment["status"] = status
        self.experiment.close()
        self._run = None


def _placed(key: str) -> tuple[str, dict[str, str]]:
    """A figure's name and, as Aim groups curves, the stage that it is of."""
    stage, slash, name = key.partition("/")
    return (name, {"subset": stage}) if slash and stage in ("train", "val", "test") else (key, {})
