"""Run folders as they are found: finished, failed, half-written, being written, or a stranger's.

Nothing is followed or waited for in one, and what is in its files is bounded and checked: what is refused is said of the run,
and the others are shown all the same.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from src.errors import UserError
from src.files import untrusted
from src.files.untrusted import TEXT_LIMIT, shown
from src.metrics.names import falls
from src.reporting import events
from src.storage import run_folder

Status = Literal["completed", "pruned", "interrupted", "failed", "running", "stopped"]
_ENDS = ("completed", "pruned", "interrupted", "failed")
_QUIET = 15 * 60.0  # seconds without a word after which a run without an end counts as stopped
_SLACK = 60.0  # seconds in which an ending run may still write
_PARTS = {".hydra", run_folder.CHECKPOINTS, run_folder.TENSORBOARD}
_DEEPEST = 100  # folders inside one another that are looked through
_KEYS = 2_000  # of a config, or of all scores
_LONGEST = 1e10  # seconds


@dataclass(frozen=True)
class Run:
    """One run folder. What is missing or cannot be read is empty.

    Attributes:
        name: the folder below the one that was searched.
        status: as in metrics.json; without an end there, `running` where something was written in the last 15 minutes,
            else `stopped` (killed, or its machine died).
        config: as composed, interpolations not resolved.
        overrides: the command line's, by key without a leading `+`.
        choices: the option chosen of each config group.
        metrics: metrics.json.
        problems: what of the folder was not read, and why, a line each.

    All text is as a terminal may be given it: control characters are escaped.
    """

    folder: Path
    name: str
    status: Status
    config: Mapping[str, object]
    overrides: Mapping[str, str]
    choices: Mapping[str, object]
    metrics: Mapping[str, object]
    problems: list[str] = field(default_factory=list)

    @cached_property
    def events(self) -> events.Events:
        found = events.read(self.folder / run_folder.TENSORBOARD)
        self.problems.extend(found.problems)
        return found

    @property
    def seed(self) -> int | None:
        return _whole(self.config.get("seed", self.metrics.get("seed")))

    @property
    def ended(self) -> float:
        """When metrics.json was written, in seconds of the clock."""
        return _time(self.folder / run_folder.METRICS)

    @property
    def error(self) -> str:
        return str(self.metrics.get("error") or "") if self.status == "failed" else ""

    def score(self, stage: Literal["val", "test"], metric: str) -> float | None:
        """A score of the best checkpoint; of a run without an end, of the best validation so far."""
        scores = _mapping(self.metrics.get(stage)) if self.status in _ENDS else {}
        return self._best_so_far(metric) if stage == "val" and not scores else number(scores.get(metric))

    def metrics_known(self) -> set[str]:
        """Names of the scores that this run has."""
        names = {key for stage in ("val", "test") for key in _mapping(self.metrics.get(stage))}
        return names | {tag.removeprefix("val/") for tag in self.events.scalars if tag.startswith("val/")}

    @property
    def seconds(self) -> float | None:
        given = number(self.metrics.get("wall_seconds")) if self.status in _ENDS else None
        seconds = given if given is not None else self.events.seconds
        return seconds if 0 < seconds < _LONGEST or given == 0 else None

    @property
    def epochs(self) -> int | None:
        return _whole(self.metrics.get("epochs"))

    @property
    def images_per_second(self) -> float | None:
        given = number(_mapping(self.metrics.get("train")).get("images_per_second"))
        return given if given is not None else self._newest("train/images_per_second")

    @property
    def memory(self) -> float | None:
        """Peak GiB: of the GPU's memory where the run had one, else of the process."""
        memory = _mapping(self.metrics.get("memory"))
        for given in (memory.get("gpu_gib"), self._newest("train/gpu_memory_gib"), memory.get("process_gib")):
            if number(given):
                return number(given)
        return None

    def _newest(self, tag: str) -> float | None:
        values = self.events.scalars.get(tag)
        return number(values[max(values)]) if values else None

    def _best_so_far(self, metric: str) -> float | None:
        key, mode = str(self.config.get("monitor", "val/miou")), self.config.get("monitor_mode")
        monitored = self.events.scalars.get(key, {})
        finite = {step: value for step, value in monitored.items() if math.isfinite(value)}
        if not finite:
            return None
        smallest = mode == "min" if mode else falls(key.removeprefix("val/"))
        best = (min if smallest else max)(finite, key=finite.__getitem__)
        return number(self.events.scalars.get(f"val/{metric}", {}).get(best))


def find(root: Path) -> list[Run]:
    """All training runs in and below a folder, by name. Folders that `src.evaluate` wrote are none."""
    runs = []
    for at, folders, files in os.walk(root):
        folder = Path(at)
        if len(folder.parts) - len(root.parts) > _DEEPEST:
            folders.clear()
        if ".hydra" in folders or run_folder.METRICS in files or run_folder.TENSORBOARD in folders:
            run = read(folder, str(folder.relative_to(root)) if folder != root else folder.resolve().name)
            if not _is_evaluation(run):
                runs.append(run)
            folders[:] = [f for f in folders if f != run_folder.EVALUATION]
        folders[:] = sorted(f for f in folders if f not in _PARTS)
    # "sweep/10" after "sweep/9": every other part is a number
    return sorted(runs, key=lambda run: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", run.name)])


def read(folder: Path, name: str) -> Run:
    problems: list[str] = []
    metrics = _mapping(_load(folder, run_folder.METRICS, problems))
    overrides = _load(folder, run_folder.OVERRIDES, problems)
    pairs = [str(o).partition("=") for o in overrides] if isinstance(overrides, list) else []
    runtime = _mapping(_mapping(_mapping(_load(folder, run_folder.HYDRA, problems)).get("hydra")).get("runtime"))
    return Run(
        folder=folder,
        name=shown(name, 500),
        status=_status(folder, metrics),
        config=_mapping(_load(folder, run_folder.CONFIG, problems)),
        overrides={key.lstrip("+"): value for key, _, value in pairs},
        choices=_mapping(runtime.get("choices")),
        metrics=metrics,
        problems=problems,
    )


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _status(folder: Path, metrics: Mapping[str, Any]) -> Status:
    status = metrics.get("status")
    newest = max((_time(Path(f)) for part in ("", *_PARTS) for f in _files(folder / part)), default=0.0)
    # A run that ended early may have been resumed since.
    went_on = status != "completed" and newest > _time(folder / run_folder.METRICS) + _SLACK
    if status in _ENDS and not went_on:
        return status  # type: ignore[no-any-return]
    return "running" if time.time() - newest < _QUIET else "stopped"


def _time(file: Path) -> float:
    try:
        return file.lstat().st_mtime
    except OSError:
        return 0.0


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        yield from (entry for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))
    except OSError:
        return


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_evaluation(run: Run) -> bool:
    return "checkpoint" in run.metrics or "ckpt" in run.config


def _load(folder: Path, name: str, problems: list[str]) -> object:
    """A file of the folder as plain data; None where it is not there, and where it is refused, which `problems` then says."""
    try:
        file = untrusted.inside(folder, name)
        content = untrusted.read_json(file) if file.suffix == ".json" else untrusted.read_yaml(file)
        if _leaves(content) > _KEYS:
            raise UserError(f"{file}: has more than {_KEYS:,} values; left out")
    except FileNotFoundError:
        return None
    except UserError as error:
        problems.append(shown(str(error), 500))
        return None
    return _printable(content)


def _leaves(value: object) -> int:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else None
    return 1 if inner is None else sum(_leaves(v) for v in inner)


def _printable(value: object) -> object:
    if isinstance(value, Mapping):
        return {shown(k, TEXT_LIMIT): _printable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_printable(v) for v in value]
    return shown(value, TEXT_LIMIT) if isinstance(value, str) else value


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
