"""The run folder: its layout, and writing into it so that nothing is ever half there."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.files import untrusted
from src.files.atomic import TEMPORARY, write_atomically
from src.files.foreign_folders import find_foreign, open_to_append

CHECKPOINTS = "checkpoints"
BEST = f"{CHECKPOINTS}/best.ckpt"
LAST = f"{CHECKPOINTS}/last.ckpt"
PREVIOUS = f"{CHECKPOINTS}/previous.ckpt"  # the last one before the last: used if that is damaged
CALIBRATED = f"{CHECKPOINTS}/calibrated.ckpt"  # the best one with a temperature, by `src.evaluate calibrate=true`
SWA = f"{CHECKPOINTS}/swa.ckpt"  # the mean of the last epochs, by `callbacks.swa`
TOP = f"{CHECKPOINTS}/top"  # the best few, by `callbacks.top_k`
LR_CURVE, LR_PICTURE = "lr_finder.csv", "lr_finder.png"  # by `callbacks.lr_finder`
METRICS = "metrics.json"
TENSORBOARD = "tensorboard"
CONFIG = ".hydra/config.yaml"
OVERRIDES = ".hydra/overrides.yaml"
HYDRA = ".hydra/hydra.yaml"
LOG = "train.log"
ROOT = ".root.json"  # of the data, signed by the user who made the run
CHANGES = "changes.yaml"  # of the config, while the run was gone on with
CLASS_COUNTS = "class_counts.txt"  # of the training masks, by `model.class_weights=balanced`
PIXELS_BY_CLASS = "pixels_by_class.npz"  # of each training mask, by `data.rare_classes`
EVALUATION = "evaluation"  # a folder for each split, by `src.evaluate metrics=…`
PROVENANCE = "provenance.json"  # with what it was made; of a run that was gone on with also provenance.1.json …
LOGGERS = "loggers.json"  # under which ids loggers know the run
PATCH = "code.patch"  # what of the code was in no commit
OWN = (".hydra", CHECKPOINTS, TENSORBOARD, METRICS, LOG, CHANGES, CLASS_COUNTS, PIXELS_BY_CLASS, PROVENANCE, PATCH,
       LOGGERS, LR_CURVE, LR_PICTURE)  # fmt: skip
_LOCK = f"{CHECKPOINTS}/.lock"
_SECONDS_TO_END = 10  # for a killed process to be gone
# What has links by its nature, and nothing here opens: a logger's folder, and the lock of Optuna's file, which it removes.
_OTHERS_OWN = ("wandb", "optuna.log.lock")
# what `write_atomically` began, now and in earlier versions
_HALF = re.compile(rf"{TEMPORARY}|\.(metrics\.json|[^/]*\.ckpt)\.[^/]*")


def make(run_dir: Path) -> Path:
    """Makes a new folder: `run_dir`, or, where that is there already, the same with a number behind it.

    Raises:
        UserError: it cannot be made.
    """
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = run_dir if number == 1 else run_dir.with_name(f"{run_dir.name}_{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise UserError(f"hydra.run.dir: {run_dir} cannot be made ({error.strerror}); name another folder") from None
    raise AssertionError


def check_own(run_dir: Path, parts: Sequence[str] | None = None) -> None:
    """Checks that a folder, which may be a stranger's, holds files and folders only, so that nothing that is opened, written or
    removed in it lies elsewhere. The folder itself may be a link.

    Args:
        run_dir: of a run or a sweep; it need not be there.
        parts: look only at these names in it, e.g. those of `OWN`; None for all.

    Raises:
        UserError: the first link, pipe or device in it.
    """
    if found := find_foreign(run_dir, parts, _OTHERS_OWN):
        file, kind = found
        raise UserError(
            f"{untrusted.shown(str(file))}: is {kind}, and a run folder, which may be someone else's, has files and "
            "folders only; put the file itself there (the run folder as a whole may be a link)"
        )


def refuse_taken(run_dir: Path) -> None:
    """A new run takes no folder that holds another's checkpoints, nor one that leads elsewhere.

    Raises:
        UserError: this one does.
    """
    check_own(run_dir, OWN)
    if any((run_dir / file).is_file() for file in (LAST, PREVIOUS)):
        raise UserError(
            f"hydra.run.dir: {run_dir} holds a run already; go on with it (python -m src.train resume={run_dir}), or name "
            "another folder"
        )


@contextlib.contextmanager
def locked(folder: Path, lock: str = _LOCK) -> Iterator[None]:
    """Keeps other processes out of a run's or a sweep's folder, by a lock on the file `lock` in it: the kernel lifts it when
    this process ends, however it does, and its children do not hold it. Where the file system has no locks there is none.

    Raises:
        UserError: another process is at work in the folder.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open_to_append(folder, lock) as file:
        until = time.monotonic() + _SECONDS_TO_END
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    break
            else:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                file.flush()
                break
            if time.monotonic() > until:
                file.seek(0)
                who = untrusted.shown(file.read(400).decode(errors="replace")) or "another process"
                raise UserError(f"{folder}: {who} is at work in this folder; wait for it or end it")
            time.sleep(0.2)
        yield


def keep_previous(last: Path, previous: Path) -> None:
    """Gives the file at `last` a second name, `previous`, so that it outlives its replacement."""
    if last.exists():
        spare = previous.with_name(f".{previous.name}.link")
        spare.unlink(missing_ok=True)
        os.link(last, spare)
        spare.replace(previous)


def clear(run_dir: Path, resume: bool) -> None:
    """Removes what an earlier try of the run left: how it ended, what a kill let it write half, and, unless the run goes
    on, its curves, its best checkpoint and what it counted."""
    for folder in (run_dir, untrusted.inside(run_dir, CHECKPOINTS)):
        for half in _entries(folder):
            if _HALF.fullmatch(half.name) and half.is_file(follow_symlinks=False):
                Path(half.path).unlink(missing_ok=True)
    (run_dir / METRICS).unlink(missing_ok=True)
    if not resume:
        untrusted.inside(run_dir, TENSORBOARD)
        shutil.rmtree(run_dir / TENSORBOARD, ignore_errors=True)
        for file in (BEST, CALIBRATED, SWA, CHANGES, CLASS_COUNTS, PIXELS_BY_CLASS, PROVENANCE, PATCH, LOGGERS):
            (run_dir / file).unlink(missing_ok=True)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def write_metrics(run_dir: Path, metrics: Mapping[str, object]) -> None:
    """Writes metrics.json; numbers that JSON has no word for become null."""
    write_text(run_dir / METRICS, json.dumps(_plain(metrics), indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    content = text.encode()
    write_atomically(file, lambda stream: stream.writelines([content]))


def read_metrics(run_dir: Path) -> dict[str, Any] | None:
    """metrics.json of a run, None where the run has not ended.

    Raises:
        UserError: it is damaged, or none of ours.
    """
    file = untrusted.inside(run_dir, METRICS)
    try:
        content = untrusted.read_json(file)
    except FileNotFoundError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("status"), str):
        raise UserError(f"{file}: says no status; it is damaged or none of this program's")
    return content


def score(metrics: Mapping[str, object], name: str) -> float | None:
    """A figure of metrics.json by its name, e.g. "val/miou"; None where there is none."""
    stage, _, key = name.partition("/")
    scores = metrics.get(stage)
    value = scores.get(key) if isinstance(scores, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
