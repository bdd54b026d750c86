"""The benchmark for a GPU runs dry on a CPU, and goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.few_labels_gpu import _ALL, _CAMVID, ARMS
from src.cli.command import compose
from src.config.check import check
from tests.conftest import ROOT, environment


@pytest.mark.slow
def test_dry(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/few_labels_gpu.py", "--dry", "--seeds", "1", "--threads", "1"]
    command += ["--output", str(tmp_path)]
    for _ in range(2):  # the second time nothing is left to run
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
        assert [line["arm"] for line in lines] == list(ARMS)
        assert all(line["steps"] == 2 for line in lines)
        assert all(f"| {arm} |" in done.stdout for arm in ARMS)


@pytest.mark.parametrize("arm", ARMS)
def test_what_runs_on_a_gpu_passes_the_check(arm: str) -> None:
    check(compose("train", [*_CAMVID.split(), *_ALL.split(), *ARMS[arm].split(), "data.root=/none"]))
