"""Cross-validation as a sweep: a job for each fold, and what they say together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from src.errors import UserError
from src.evaluation import matrices
from src.evaluation.folds import FILE, Fold, pooled, told
from src.files import untrusted
from src.storage import run_folder
from src.sweep.launcher import NAMESPACE
from src.sweep.record import Job, Record
from src.sweep.sweepers import GridSweeper

_N, _K = "data.folds.n", "data.folds.k"


class FoldsSweeper(GridSweeper):
    """Each fold of the training split held out once; with values of other keys, each combination over all folds.

    Args:
        n: folds.
        params: values by key, as they would be written on the command line.
    """

    __module__ = NAMESPACE
    keys: Mapping[str, object] = {"params": dict[str, object] | None, "n": Annotated[int, Field(ge=2)]}

    def __init__(self, n: int = 5, params: Mapping[str, object] | None = None) -> None:
        super().__init__(params)
        self.n = n

    def written(self, arguments: list[str]) -> list[str]:
        given = super().written(arguments)
        if said := next((o for o in self.parsed(given) if o.get_key_element() in (_N, _K)), None):
            raise UserError(f"{said.get_key_element()}: folds={self.n} says it; leave it out")
        return [*given, f"{_N}={self.n}", f"{_K}={','.join(map(str, range(self.n)))}"]

    def finished(self) -> None:
        record = self.launcher.record
        found: list[dict[str, Any]] = []
        for overrides, jobs in _combinations(record).items():
            if len(jobs) < self.n or any(job.status != "completed" for job in jobs):
                print(
                    f"{' '.join(overrides)}{': ' if overrides else ''}not all folds are completed, so nothing is pooled"
                )
                continue
            of_all = pooled([_fold(record, job) for job in jobs]).plain()
            found.append({"overrides": list(overrides), **of_all})
            print(f"{' '.join(overrides)}{': ' if overrides else ''}{told(of_all)}")
        if found:
            run_folder.write_text(
                record.folder / FILE, json.dumps({"n": self.n, "combinations": found}, indent=1) + "\n"
            )
            print(f"written to {record.folder / FILE}")


def _combinations(record: Record) -> dict[tuple[str, ...], list[Job]]:
    """The jobs by their overrides but for the fold, each in the order of the folds."""
    found: dict[tuple[str, ...], list[Job]] = {}
    for job in record.jobs:
        own = [o for o in record.differing(job) if not o.startswith((f"{_N}=", f"{_K}="))]
        found.setdefault(tuple(own), []).append(job)
    return {overrides: sorted(jobs, key=_number) for overrides, jobs in found.items()}


def _number(job: Job) -> int:
    return next((int(o.partition("=")[2]) for o in job.overrides if o.startswith(f"{_K}=")), 0)


def _fold(record: Record, job: Job) -> Fold:
    file = untrusted.inside(record.folder, f"{job.folder}/{run_folder.EVALUATION}/test/{matrices.FILE}")
    try:
        return Fold(job.folder, matrices.read(file))
    except FileNotFoundError:
        raise UserError(
            f"{file}: is missing, so nothing can be pooled; python -m src.evaluate ckpt={record.folder / job.folder} "
            "splits=[test] metrics=[classes] makes it"
        ) from None
