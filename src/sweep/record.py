"""What a sweep came to, job by job: `sweep.json` in the sweep folder, written whole at every change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from rich.table import Table
from rich.text import Text

from src.errors import UserError
from src.files import untrusted
from src.storage import run_folder

FILE = "sweep.json"
Status = Literal["waiting", "running", "completed", "pruned", "failed", "interrupted"]
DONE = ("completed", "pruned")
_LARGEST = 64 << 20  # bytes of sweep.json


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        number: its place in the sweep, from 0.
        overrides: what it is started with, without those of Hydra.
        folder: its run folder, relative to the sweep's.
        value: of the sweep's metric; None where the job has none (never NaN).
        seconds: that its last process took.
        devices: that it was given, as CUDA_VISIBLE_DEVICES names them.
        trial: its number in Optuna's study.
    """

    number: int
    overrides: list[str]
    folder: str = ""
    status: Status = "waiting"
    value: float | None = None
    seconds: float | None = None
    error: str | None = None
    devices: list[str] = field(default_factory=list)
    trial: int | None = None


@dataclass
class Record:
    """A sweep: what started it and its jobs.

    Attributes:
        folder: the sweep folder, absolute.
        arguments: the command line, `-m` left out.
        directory: where it was started; relative paths of its overrides count from there.
        metric: what the jobs are measured by, e.g. "val/miou".
        changes: overrides that a later `sweep.resume` gave.
        resuming: whether jobs that are there already are to be gone on with.
    """

    folder: Path
    arguments: list[str]
    directory: str
    metric: str = ""
    changes: list[str] = field(default_factory=list)
    resuming: bool = False
    jobs: list[Job] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record of a sweep folder, None where it has none. The folder may be a stranger's.

        Raises:
            UserError: it is none of ours, or a job's folder is not its own one below the sweep's.
        """
        file = untrusted.inside(folder, FILE)
        try:
            content = untrusted.read_json(file, _LARGEST)
        except FileNotFoundError:
            return None
        of = f"{file}: is damaged or none of this program's"
        if not isinstance(content, dict):
            raise UserError(f"{of} (it holds a {type(content).__name__})")
        try:
            text = json.dumps({**content, "folder": str(folder)}, allow_nan=False)
            record = _ADAPTER.validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{of} ({untrusted.shown(where)}: {untrusted.shown(first['msg'])})") from None
        except ValueError:
            raise UserError(f"{of} (it has a number that is none)") from None
        taken: set[str] = set()
        for number, job in enumerate(record.jobs):
            if job.number != number:
                raise UserError(f"{of} (its job {number} calls itself {job.number})")
            if not job.folder and job.status == "waiting":
                continue
            if untrusted.inside(folder, job.folder) == folder or job.folder in taken:
                raise UserError(f"{of} (job {number} has no folder of its own: {untrusted.shown(repr(job.folder))})")
            taken.add(job.folder)
        return record

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other processes from running this sweep too."""
        return run_folder.locked(self.folder, ".lock")

    def save(self) -> None:
        content = asdict(self)
        del content["folder"]
        run_folder.write_text(self.folder / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def job(self, number: int, overrides: Sequence[str]) -> Job:
        """The job of that number: as it was recorded, or a new one.

        Raises:
            UserError: another job was recorded under that number.
        """
        for job in self.jobs:
            if job.number == number:
                if job.overrides != list(overrides):
                    there, here = (
                        " ".join(set(a) - set(b)) for a, b in ((job.overrides, overrides), (overrides, job.overrides))
                    )
                    raise UserError(
                        f"{self.folder / FILE}: its job {number} has {there or 'less'!r} where this one has "
                        f"{here or 'less'!r}: it is of another sweep; take another sweep.dir"
                    )
                return job
        self.jobs.append(Job(number, list(overrides)))
        return self.jobs[-1]

    def count(self, *statuses: str) -> int:
        return sum(job.status in statuses for job in self.jobs)

    def differing(self, job: Job) -> list[str]:
        """The job's overrides, those left out that the whole sweep was given or all jobs have."""
        given = {argument.lower() for argument in self.arguments}
        own = [o for o in job.overrides if o.lower() not in given]
        return own if len(self.jobs) == 1 else [o for o in own if any(o not in other.overrides for other in self.jobs)]

    def table(self) -> Table:
        table = Table(title=f"{len(self.jobs)} jobs in {self.folder}", title_justify="left")
        table.add_column("job")
        table.add_column("overrides", overflow="fold")
        table.add_column("status")
        table.add_column(self.metric, justify="right")
        table.add_column("time", justify="right")
        table.add_column("error", overflow="fold")
        for job in self.jobs:
            value = "–" if job.value is None else f"{job.value:.4f}"
            seconds = "–" if job.seconds is None else f"{job.seconds:.0f} s"
            cells = (job.folder, " ".join(self.differing(job)), job.status, value, seconds, job.error or "")
            table.add_row(*(Text(untrusted.shown(cell, 1000)) for cell in cells))
        return table


_ADAPTER = TypeAdapter(Record)
