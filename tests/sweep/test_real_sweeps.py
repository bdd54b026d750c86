"""Sweeps of real runs, ranks and all, as a user starts, stops and goes on with them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src.storage import run_folder
from src.sweep.record import Record
from tests.conftest import SMALL, command, environment
from tests.same import assert_same_end

pytestmark = pytest.mark.slow
Run = Callable[..., subprocess.CompletedProcess[str]]
_OPTIONS = [option for option in SMALL if option != "trainer=cpu"]


def left_over(folder: Path) -> list[str]:
    """Command lines of processes that have to do with a folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            if f"{folder}/sweep".encode() in words:
                found.append((process / "cmdline").read_bytes().decode())
    return found


def statuses(folder: Path) -> list[str]:
    record = Record.read(folder)
    assert record is not None
    return [job.status for job in record.jobs]


def test_six_jobs_of_which_one_must_fail_and_two_have_two_ranks(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    first = run("src.train", *SMALL, "debug=fast", f"hydra.run.dir={tmp_path / 'first'}")
    assert first.returncode == 0, first.stderr
    for seed in (1, 2):
        for name in ("cpu-1", "auto-1", "cpu-2"):
            shutil.copy(tmp_path / "first" / run_folder.BEST, tmp_path / f"{seed}-{name}.ckpt")
    missing = tmp_path / "2-cpu-1.ckpt"
    missing.rename(tmp_path / "mend.ckpt")
    start = f"'{tmp_path}/${{seed}}-${{trainer.accelerator}}-${{trainer.devices}}.ckpt'"
    options = ["seed=1,2", "trainer=ddp_cpu,cpu,auto", "debug=fast", f"init_from={start}"]
    result = run("src.train", "-m", *_OPTIONS, *options, "launcher.jobs=4", f"sweep.dir={folder}", timeout=900)
    assert result.returncode == 1, result.stderr
    assert left_over(tmp_path) == []
    assert statuses(folder) == ["completed"] * 4 + ["failed", "completed"]
    assert {f.name for f in folder.iterdir() if f.name[0] != "."} == {"sweep.json", *"012345"}
    ended = {}
    for number in "012345":
        metrics = json.loads((folder / number / run_folder.METRICS).read_text())
        seed = 1 if number < "3" else 2
        assert f"seed={seed}" in (folder / number / run_folder.OVERRIDES).read_text()
        if number == "4":
            assert metrics["status"] == "failed" and str(missing) in metrics["error"]
        else:
            assert metrics["status"] == "completed" and metrics["seed"] == seed and 0 <= metrics["val"]["miou"] <= 1
            assert (folder / number / run_folder.BEST).is_file()
            ended[number] = (folder / number / run_folder.METRICS).stat().st_mtime_ns
    (tmp_path / "mend.ckpt").rename(missing)
    refused = run("src.train", f"sweep.resume={folder}", timeout=300)  # for all it knows, these are a stranger's words
    assert (
        refused.returncode == 2
        and "(init_from), which is not in the run folder; if that is right, say so" in refused.stderr
    )
    again = run("src.train", f"sweep.resume={folder}", f"init_from={start}", timeout=300)
    assert again.returncode == 0, again.stderr
    assert statuses(folder) == ["completed"] * 6
    assert {n: (folder / n / run_folder.METRICS).stat().st_mtime_ns for n in ended} == ended
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_sweep_leaves_no_process_and_its_runs_go_on_to_the_same_bits(
    run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    folder, options = tmp_path / "sweep", [*SMALL, "trainer.max_epochs=12", "callbacks.checkpoint.every_n_steps=1"]
    undisturbed = run("src.train", *options, "seed=1", f"hydra.run.dir={tmp_path / 'undisturbed'}")
    assert undisturbed.returncode == 0, undisturbed.stderr
    process = subprocess.Popen(
        command("src.train", "-m", *options, "seed=1,2", f"sweep.dir={folder}"), env=environment(), cwd=tmp_path
    )
    deadline = time.monotonic() + 200
    while not (folder / "0" / run_folder.PREVIOUS).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=100) == (130 if number == signal.SIGINT else -number)
    while left_over(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left_over(tmp_path) == []
    assert (run_folder.read_metrics(folder / "0") or {})["status"] == "interrupted"
    assert not (folder / "1").exists()
    resumed = run("src.train", f"sweep.resume={folder}")
    assert resumed.returncode == 0, resumed.stderr
    assert statuses(folder) == ["completed", "completed"]
    assert_same_end(folder / "0", tmp_path / "undisturbed")


def test_a_search_over_runs_of_two_ranks_prunes_them(run: Run, tmp_path: Path) -> None:
    options = [
        "sweep=optuna",
        "sweep.n=2",
        "trainer=ddp_cpu",
        "test=false",
        "optimizer.lr=1e-9,0.01",
        "optimized_metric=val/loss",
    ]
    options += ["sweep.pruner.n_startup_trials=1", "sweep.pruner.n_warmup_steps=0", "trainer.max_epochs=3"]
    # A seed of the sampler with which the good rate is tried before the bad one.
    result = run("src.train", *_OPTIONS, *options, "sweep.seed=1", f"sweep.dir={tmp_path / 'sweep'}", timeout=600)
    assert result.returncode == 0, result.stderr
    assert statuses(tmp_path / "sweep") == ["completed", "pruned"]
    metrics = run_folder.read_metrics(tmp_path / "sweep/1")
    assert metrics is not None and metrics["status"] == "pruned" and metrics["epochs"] < 3
    assert left_over(tmp_path) == []


def test_submitit_on_this_machine(run: Run, tmp_path: Path) -> None:
    options = ["launcher=submitit", "launcher.cluster=local", "launcher.jobs=2", "debug=fast"]
    result = run("src.train", "-m", *SMALL, *options, "init_from=null,/none.ckpt", f"sweep.dir={tmp_path / 'sweep'}")
    assert result.returncode == 1, result.stderr
    assert statuses(tmp_path / "sweep") == ["completed", "failed"]
    assert left_over(tmp_path) == []
