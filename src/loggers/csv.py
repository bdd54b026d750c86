"""`logger=csv`: one table of all figures, a row for each step that has any."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import yaml
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from src.errors import UserError
from src.files.untrusted import inside, read_bytes
from src.loggers.base import Board, Picture, Status, plain
from src.storage import run_folder

_FILE, _CHOSEN, _STEP = "metrics.csv", "hparams.yaml", "step"
_LARGEST = 1 << 30  # bytes of a table that is gone on with


class CSV(Logger, Board):
    """Writes `metrics.csv`, whole or not at all, at every checkpoint, and `hparams.yaml` at the end. It holds no pictures.

    Args:
        save_dir: the folder of both.
        resumed_at: batches that were done when the run was gone on with; later rows are dropped. None for a new run.

    Raises:
        UserError: the table that a run goes on with is none of ours.
    """

    def __init__(self, save_dir: str, resumed_at: int | None = None) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._rows: dict[int, dict[str, float]] = {} if resumed_at is None else self._read(resumed_at)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    def _read(self, before: int) -> dict[int, dict[str, float]]:
        try:
            file = inside(self._folder, _FILE)
            text = read_bytes(file, _LARGEST).decode("utf-8")
        except FileNotFoundError:
            return {}
        rows = csv.DictReader(io.StringIO(text, newline=""))
        try:
            known = {int(row.pop(_STEP)): {key: float(value) for key, value in row.items() if value} for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"logger.csv: {file} is damaged ({error}); move it away, and the run goes on") from None
        return {step: row for step, row in known.items() if step < before}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._rows.setdefault(step or 0, {}).update({key: float(value) for key, value in metrics.items()})

    @rank_zero_only
    def log_hyperparams(self, params: object, *_: object, **__: object) -> None:
        """What Lightning hands over of a model's own hyper-parameters; there are none here."""

    @rank_zero_only
    def save(self) -> None:
        if not self._rows:
            return
        names = sorted({key for row in self._rows.values() for key in row})
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, [_STEP, *names], lineterminator="\n")
        table.writeheader()
        table.writerows({_STEP: step, **self._rows[step]} for step in sorted(self._rows))
        self._write(_FILE, text.getvalue())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def describe(self, config: Mapping[str, object]) -> None:
        """The run folder has the config beside this table."""

    def show(self, tag: str, picture: Picture, step: int) -> None:
        """A table holds none."""

    def conclude(self, chosen: Mapping[str, object], scores: Mapping[str, float], step: int) -> None:
        content = plain(chosen) | {f"best/{key}": value for key, value in scores.items()}
        self._write(_CHOSEN, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def close(self, status: Status) -> None:
        self.save()

    def _write(self, name: str, text: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        run_folder.write_text(self._folder / name, text)
