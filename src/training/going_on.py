"""What a run that is resumed goes on from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config import signatures
from src.config.changes import changed, check_place
from src.config.parts import Node
from src.config.schema import RESUMED
from src.config.settings import Settings
from src.data.trained_on import CHECKPOINT_KEY
from src.errors import UserError
from src.storage import checkpoint_states, checkpoints

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What a run goes on from: a checkpoint, the batches and steps it was made with, and what has changed since."""

    file: Path
    before: checkpoint_states.Counts
    values: dict[str, tuple[object, object]]
    batches: int

    @classmethod
    def of(cls, run_dir: Path, settings: Settings) -> Start:
        file, content = last_good(run_dir)
        before = content[CHECKPOINT_KEY]["config"]
        counts = checkpoint_states.counts_of(before, file)
        values = changed(before, settings.plain)
        place = content.get("SegmentationDataModule") or {}
        check_place(values, int(place.get("epoch", 0)), int(place.get("consumed", 0)), int(content["global_step"]))
        return cls(file, counts, values, checkpoint_states.batches_done(content, file))


def last_good(run_dir: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint that can be read, and its content; a damaged one is named and the one before it is taken."""
    for file in checkpoints.previous_of(run_dir):
        try:
            return file, checkpoints.read(file)
        except UserError as error:
            _log.warning("%s", error)
    raise UserError(f"resume: {run_dir} has no checkpoint to go on from; start the run anew")


def logging_on(loggers: Mapping[str, Node | None], done: int) -> dict[str, Node | None]:
    """Loggers that are told after how many batches the run goes on: what they have of later ones is run again."""
    return {name: node and {**node, **_told(str(node["_target_"]), done)} for name, node in loggers.items()}


def _told(target: str, done: int) -> dict[str, int]:
    if target.endswith("TensorBoardLogger"):
        return {"purge_step": done}
    signature = signatures.read(target)
    return {} if signature is None or RESUMED not in signature.parameters else {RESUMED: done}
