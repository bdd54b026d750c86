"""`logger=mlflow`: a store in the run folder, or a tracking server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from src.errors import UserError
from src.loggers.base import Board, Picture, Status, flat, keep_id, kept_id, plain
from src.optional_packages import needs

EXTRA = ("mlflow", "mlflow")
_KEPT = "mlflow"
_STORE = "mlflow.db"
_LONGEST = 250  # characters of a parameter
_NOT_IN_KEYS = re.compile(r"[^\w. /-]+", re.ASCII)  # of pictures
_ENDS = {"completed": "FINISHED", "pruned": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflow(MLFlowLogger, Board):
    """Lightning's logger of MLflow, for runs that go on and without a server.

    Without one it writes an SQLite store and, beside it, the pictures: MLflow has given up its store of plain files. A run that
    goes on is the same one there. MLflow takes back no figure, so those of steps that it has are not written again.

    Args:
        run_dir: the run folder.
        save_dir: the folder of the store where there is no server; several runs may share one.
        server: address of a tracking server.
        experiment: its name.
        name: the run's; None takes the run folder's.
        resumed_at: batches that were done when the run was gone on with; None for a new run.

    Raises:
        UserError: the package is not installed, or the server's address is none of the web.
    """

    def __init__(
        self,
        run_dir: str,
        save_dir: str,
        server: str | None = None,
        experiment: str = "pixelwise",
        name: str | None = None,
        resumed_at: int | None = None,
    ) -> None:
        needs(*EXTRA)
        needs("sqlalchemy", "mlflow")
        if server is not None and not server.startswith(("http://", "https://")):
            raise UserError(f"logger.mlflow.server: should be http://… or https://…, not {server!r}")
        self._run_dir, self._resumed_at = Path(run_dir), resumed_at
        self._newest: dict[str, int] = {}
        local = Path(save_dir).absolute()
        if server is None:
            local.mkdir(parents=True, exist_ok=True)
        super().__init__(
            experiment_name=experiment, run_name=name or self._run_dir.name or None,
            tracking_uri=server or f"sqlite:///{local / _STORE}",
            artifact_location=None if server else (local / "artifacts").as_uri(),
            run_id=kept_id(self._run_dir, _KEPT, resumed_at is not None),
        )  # fmt: skip
        self._local = str(local)

    @property
    def save_dir(self) -> str:
        return self._local

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        new = {key: value for key, value in metrics.items() if (step or 0) > self._last(key)}
        if new:
            super().log_metrics(new, step)

    def _last(self, key: str) -> int:
        """The newest step at which a run that goes on has this figure already."""
        if self._resumed_at is None:
            return -1
        if key not in self._newest:
            history = self.experiment.get_metric_history(self.run_id, key) if self._is_name(key) else []
            self._newest[key] = max((point.step for point in history), default=-1)
        return self._newest[key]

    @staticmethod
    def _is_name(key: str) -> bool:
        return not _NOT_IN_KEYS.search(key)

    def describe(self, config: Mapping[str, object]) -> None:
        assert self.run_id is not None
        keep_id(self._run_dir, _KEPT, self.run_id)
        self.experiment.update_run(self.run_id, status="RUNNING")
        self.experiment.log_text(self.run_id, yaml.safe_dump(dict(config), sort_keys=False), "config.yaml")
        self._parameters(flat(config))

    def show(self, tag: str, picture: Picture, step: int) -> None:
        self.experiment.log_image(self.run_id, picture, key=_NOT_IN_KEYS.sub("_", tag), step=step)

    def conclude(self, chosen: Mapping[str, object], scores: Mapping[str, float], step: int) -> None:
        self._parameters(plain(chosen))
        super().log_metrics({f"best/{key}": value for key, value in scores.items()}, step)

    def _parameters(self, given: Mapping[str, object]) -> None:
        """Logs parameters; one that the run had with another value before it was gone on with, and which MLflow keeps, becomes
        a tag."""
        named = {_NOT_IN_KEYS.sub("_", key): str(value)[:_LONGEST] for key, value in given.items()}
        known = self.experiment.get_run(self.run_id).data.params
        self.log_hyperparams({key: value for key, value in named.items() if key not in known})
        for key, value in named.items():
            if known.get(key, value) != value:
                self.experiment.set_tag(self.run_id, key, value)

    @rank_zero_only
    def close(self, status: Status) -> None:
        self.experiment.set_terminated(self.run_id, _ENDS[status])
