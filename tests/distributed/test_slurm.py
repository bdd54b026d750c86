"""What SLURM is asked when its job is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.distributed import slurm


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a stand-in for `scontrol` writes down its arguments."""
    file = tmp_path / "asked"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {file}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    return file


def test_the_warning_puts_the_job_back(asked: Path) -> None:
    slurm.requeue_after("SIGUSR1")
    assert asked.read_text() == "requeue 12\n"


def test_an_arrays_job_is_put_back_alone(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    slurm.requeue_after("SIGUSR1")
    assert asked.read_text() == "requeue 7_3\n"


@pytest.mark.parametrize("stop", ["SIGTERM", "SIGINT", ""])
def test_other_stops_do_not(asked: Path, stop: str) -> None:
    slurm.requeue_after(stop)
    assert not asked.exists()


def test_outside_of_a_job_nothing_is_asked(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    slurm.requeue_after("SIGUSR1")
    assert not asked.exists()


def test_a_refusal_is_told(asked: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    (asked.parent / "scontrol").write_text('#!/bin/sh\necho "requeue is disabled" >&2\nexit 1\n')
    slurm.requeue_after("SIGUSR1")
    assert "did not put job 12 back in the queue (requeue is disabled" in caplog.text
