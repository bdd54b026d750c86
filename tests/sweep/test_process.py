"""One job as a process group: real processes that end, hang, leave others behind or die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from src.files.atomic import write_atomically
from src.storage import run_folder
from src.sweep.process import STDERR, STDOUT, JobProcess, Start, environment, outcome, run_to_end
from tests.conftest import ROOT

# Starts a process that sleeps, says its number, and goes on as the case wants.
LEAVES_ONE_BEHIND = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
"""


@dataclass(frozen=True)
class Script(Start):
    """A job that runs a few lines of Python in place of a training."""

    script: str = ""

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.script]


def job(folder: Path, script: str, **given: object) -> Script:
    return Script(folder, ["seed=1"], [], [], script=script, **given)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def child_of(folder: Path) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (folder / STDOUT).is_file() and (said := (folder / STDOUT).read_text()).endswith("\n"):
            return int(said)
        time.sleep(0.02)
    raise AssertionError("the job said nothing")


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_what_a_job_left_behind_is_killed_at_its_end(tmp_path: Path) -> None:
    process = JobProcess(job(tmp_path, LEAVES_ONE_BEHIND))
    child = child_of(tmp_path)
    assert run_to_end(process, lambda: False, 1.0) == 0
    assert gone(child)


def test_a_job_that_does_not_stop_is_killed_after_its_grace(tmp_path: Path) -> None:
    deaf = f"{LEAVES_ONE_BEHIND}\nimport signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    process = JobProcess(job(tmp_path, deaf))
    child = child_of(tmp_path)
    assert run_to_end(process, lambda: True, 0.3) < 0
    assert gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_sweep_that_is_killed_outright_takes_its_jobs_with_it(tmp_path: Path) -> None:
    sweep = (
        "import time\nfrom pathlib import Path\nfrom tests.sweep.test_process import job\n"
        "from src.sweep.process import JobProcess\n"
        f"JobProcess(job(Path({str(tmp_path)!r}), 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'))\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", sweep], cwd=ROOT)
    pid = child_of(tmp_path)
    assert alive(pid)
    process.kill()
    process.wait()
    assert gone(pid)


def test_each_job_has_devices_and_a_port_of_its_own_and_no_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "SLURM_NTASKS", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_TMPDIR", "/scratch")
    one = environment(Start(tmp_path, [], [], [], devices=["2", "3"]))
    other = environment(Start(tmp_path, [], [], []))
    assert one["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert other.get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")
    assert one["MASTER_PORT"] != other["MASTER_PORT"] != "1"
    assert {"LOCAL_RANK", "WORLD_SIZE", "SLURM_NTASKS", "HYDRA_FULL_ERROR"}.isdisjoint(one)
    assert one["SLURM_TMPDIR"] == "/scratch"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in environment(Start(tmp_path, [], [], []))
    assert environment(Start(tmp_path, [], [], [], threads=3))["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment(Start(tmp_path, [], [], [], threads=3))["OMP_NUM_THREADS"] == "5"


def test_a_new_run_starts_clean_and_one_with_a_checkpoint_goes_on(tmp_path: Path) -> None:
    start = Start(tmp_path, ["seed=1"], ["hydra.job.num=0"], ["data.num_workers=2"])
    assert start.command()[3:] == ["hydra.job.num=0", "seed=1", "data.num_workers=2"]
    run_folder.write_metrics(tmp_path, {"status": "failed"})
    run_to_end(JobProcess(job(tmp_path, "")), lambda: False, 1.0)
    assert not (tmp_path / run_folder.METRICS).exists()
    assert yaml.safe_load((tmp_path / run_folder.OVERRIDES).read_text()) == ["seed=1"]
    write_atomically(tmp_path / run_folder.LAST, lambda stream: None)
    assert start.command()[3:] == [f"resume={tmp_path}", "data.num_workers=2"]


def test_what_a_run_said_itself_counts(tmp_path: Path) -> None:
    run_folder.write_metrics(tmp_path, {"status": "completed", "val": {"miou": 0.5}})
    assert outcome(tmp_path, "val/miou", 0, stopped=False) == ("completed", 0.5, None)
    assert outcome(tmp_path, "val/iou/dog", 0, stopped=False) == ("completed", None, "the run has no val/iou/dog")
    run_folder.write_metrics(tmp_path, {"status": "completed", "val": {"miou": float("nan")}})
    assert outcome(tmp_path, "val/miou", 0, stopped=False)[1] is None
    run_folder.write_metrics(tmp_path, {"status": "failed", "error": "two\nlines"})
    assert outcome(tmp_path, "val/miou", 1, stopped=False) == ("failed", None, "two lines")


@pytest.mark.parametrize(
    ("stderr", "code", "error"),
    [
        ("warning\nerror: data.root: must be given\n", 2, "data.root: must be given"),
        ("Traceback …\nMemoryError: 3 GiB\n", 1, "MemoryError: 3 GiB"),
        ("a warning\n", -signal.SIGKILL, "ended by SIGKILL (out of memory?)"),
        ("", 3, "ended with status 3 and without a word"),
    ],
)
def test_a_job_that_ended_without_a_word_gets_one(tmp_path: Path, stderr: str, code: int, error: str) -> None:
    (tmp_path / STDERR).write_text(stderr)
    assert outcome(tmp_path, "val/miou", code, stopped=False) == ("failed", None, error)
    assert json.loads((tmp_path / run_folder.METRICS).read_text()) == {"status": "failed", "error": error}


def test_a_job_that_the_sweep_stopped_is_interrupted(tmp_path: Path) -> None:
    assert outcome(tmp_path, "val/miou", -signal.SIGTERM, stopped=True) == ("interrupted", None, None)
