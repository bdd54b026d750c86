"""A trial of a search as its job knows it: the study is a file in the sweep folder that sweep and jobs share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hydra.utils import get_object

from src.errors import UserError
from src.files.foreign_folders import open_to_append
from src.files.untrusted import inside, open_regular, shown
from src.optional_packages import needs
from src.sweep.process import TRIAL

FILE, NAME = "optuna.log", "sweep"
_LARGEST = 256 << 20  # bytes of a study


def open_study(folder: Path, direction: Literal["minimize", "maximize"]) -> Any:
    """The study of a sweep folder, begun where there is none yet. What is there may be a stranger's.

    Raises:
        UserError: its file is no study's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _mend(folder)
    optuna = needs("optuna", "optuna")
    try:
        return optuna.create_study(storage=_storage(folder), study_name=NAME, direction=direction, load_if_exists=True)
    except Exception as error:  # replaying nonsense can end in any
        raise UserError(
            f"{folder / FILE}: is damaged or no study of Optuna's ({type(error).__name__}: {shown(str(error))}); refused"
        ) from None


def trial_message(folder: Path, trial: int | None, metric: str, pruner: Mapping[str, object] | None) -> str | None:
    """What a job gets in its environment; None where nothing would prune it."""
    if pruner is None:
        return None
    return json.dumps({"folder": str(folder), "trial": trial, "metric": metric, "pruner": pruner})


def current_trial() -> tuple[Any, str] | None:
    """The `optuna.Trial` that this process is, and the metric that it is pruned by; None where it is none."""
    if TRIAL not in os.environ:
        return None
    told = json.loads(os.environ[TRIAL])
    optuna, pruner = needs("optuna", "optuna"), dict(told["pruner"])
    made = get_object(pruner.pop("_target_"))(**pruner)
    storage = _storage(Path(told["folder"]))
    study = optuna.load_study(storage=storage, study_name=NAME, pruner=made)
    number = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(NAME), told["trial"])
    return optuna.trial.Trial(study, number), told["metric"]


def _storage(folder: Path) -> Any:
    optuna = needs("optuna", "optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / FILE)))


def _mend(folder: Path) -> None:
    """Drops a last line that a kill cut off: Optuna would read no further than it."""
    if not inside(folder, FILE).exists():
        return
    with open_regular(folder / FILE, _LARGEST) as file:
        content = file.read()
    if content and not content.endswith(b"\n"):
        with open_to_append(folder, FILE) as file:  # a kill here leaves the study as it was, or mended
            file.truncate(content.rfind(b"\n") + 1)
