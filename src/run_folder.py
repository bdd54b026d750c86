"""The run folder: its layout, and writing into it so that nothing is ever half there."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

CHECKPOINTS = "checkpoints"
BEST = f"{CHECKPOINTS}/best.ckpt"
LAST = f"{CHECKPOINTS}/last.ckpt"
PREVIOUS = f"{CHECKPOINTS}/previous.ckpt"  # the last one before the last: used if that is damaged
METRICS = "metrics.json"
TENSORBOARD = "tensorboard"
CONFIG = ".hydra/config.yaml"
OVERRIDES = ".hydra/overrides.yaml"
HYDRA = ".hydra/hydra.yaml"
LOG = "train.log"


def write_atomically(file: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes to a temporary name beside `file`, flushes to disk, then renames: readers see the old or the new file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def keep_previous(last: Path, previous: Path) -> None:
    """Gives the file at `last` a second name, `previous`, so that it outlives its replacement."""
    if last.exists():
        spare = previous.with_name(f".{previous.name}.link")
        spare.unlink(missing_ok=True)
        os.link(last, spare)
        spare.replace(previous)


def clear(run_dir: Path) -> None:
    """Removes what an earlier try of the run left: how it ended, and what a kill let it write half."""
    (run_dir / METRICS).unlink(missing_ok=True)
    for half in [*(run_dir / CHECKPOINTS).glob(".*.ckpt.*"), *run_dir.glob(f".{METRICS}.*")]:
        half.unlink(missing_ok=True)


def write_metrics(run_dir: Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json; numbers that JSON has no word for become null."""
    write_text(run_dir / METRICS, json.dumps(_plain(metrics), indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    write_atomically(file, lambda stream: _write(stream, text))


def _write(stream: BinaryIO, text: str) -> None:
    stream.write(text.encode())


def read_metrics(run_dir: Path) -> dict[str, Any] | None:
    """metrics.json of a run, None where the run has not ended."""
    try:
        content: dict[str, Any] = json.loads((run_dir / METRICS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


def score(metrics: Mapping[str, Any], name: str) -> float | None:
    """A figure of metrics.json by its name, e.g. "val/miou"; None where there is none."""
    stage, _, key = name.partition("/")
    value = (metrics.get(stage) or {}).get(key)
    return None if value is None else float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
