"""sweep.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.errors import UserError
from src.sweep.record import FILE, Record


def record(folder: Path) -> Record:
    made = Record(folder, ["network=tiny", "seed=1,2"], str(folder), metric="val/miou")
    for number in (0, 1):
        job = made.job(number, ["network=tiny", f"seed={number + 1}"])
        job.folder = str(number)
    return made


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = record(tmp_path)
    written.jobs[0].status, written.jobs[0].value = "completed", 0.5
    written.jobs[1].status, written.jobs[1].error = "failed", "out of [memory]"
    written.save()
    assert Record.read(tmp_path) == written
    assert Record.read(tmp_path / "none") is None
    assert written.count("failed") == 1


def test_a_job_is_found_again_and_another_one_in_its_place_is_refused(tmp_path: Path) -> None:
    made = record(tmp_path)
    assert made.job(1, ["network=tiny", "seed=2"]) is made.jobs[1]
    with pytest.raises(UserError, match="its job 1 has 'seed=2' where this one has 'seed=3': it is of another sweep"):
        made.job(1, ["network=tiny", "seed=3"])


def test_only_what_differs_is_shown(tmp_path: Path) -> None:
    made = record(tmp_path)
    assert made.differing(made.jobs[1]) == ["seed=2"]
    del made.jobs[0]
    assert made.differing(made.jobs[0]) == ["seed=2"]


def test_nan_is_never_written(tmp_path: Path) -> None:
    made = record(tmp_path)
    made.jobs[0].value = float("nan")
    with pytest.raises(ValueError):
        made.save()
    assert not (tmp_path / FILE).exists()
