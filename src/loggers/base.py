"""What a run's loggers hold beside numbers, and the name under which a logger goes on with a run."""

from __future__ import annotations

import json
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from src.errors import UserError
from src.files.untrusted import inside, read_json
from src.storage import run_folder

Picture = npt.NDArray[np.uint8]  # [H, W, 3]
Status = Literal["completed", "pruned", "failed", "interrupted"]
_ID = re.compile(r"[A-Za-z0-9]{6,40}")


class Board(ABC):
    """A logger that takes more than Lightning's loggers have a method for. Only the first device asks."""

    @abstractmethod
    def describe(self, config: Mapping[str, object]) -> None:
        """Takes the run's whole config, plain containers."""

    @abstractmethod
    def show(self, tag: str, picture: Picture, step: int) -> None:
        """Takes a picture."""

    @abstractmethod
    def conclude(self, chosen: Mapping[str, object], scores: Mapping[str, float], step: int) -> None:
        """Takes what was chosen, and the scores of the best checkpoint, which stand under `best/`."""

    @abstractmethod
    def close(self, status: Status) -> None:
        """Nothing more comes."""


def plain(chosen: Mapping[str, object]) -> dict[str, int | float | str | bool]:
    """Hyper-parameters as every logger takes them."""
    return {key: value if isinstance(value, int | float | str | bool) else str(value) for key, value in chosen.items()}


def flat(config: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A config's keys with dots, and their values."""
    found: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def kept_id(run_dir: Path, logger: str, going_on: bool) -> str | None:
    """The id under which a logger knows the run that goes on in this folder; None where it knows none."""
    if not going_on:
        return None
    found = _ids(run_dir).get(logger)
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


def keep_id(run_dir: Path, logger: str, name: str) -> None:
    """Writes down for later under which id a logger knows the run."""
    known = _ids(run_dir)
    if known.get(logger) != name:
        run_folder.write_text(run_dir / run_folder.LOGGERS, json.dumps(known | {logger: name}) + "\n")


def new_id() -> str:
    return secrets.token_hex(8)


def _ids(run_dir: Path) -> dict[str, object]:
    try:
        content = read_json(inside(run_dir, run_folder.LOGGERS))
    except (OSError, ValueError, UserError):
        return {}
    return content if isinstance(content, dict) else {}
