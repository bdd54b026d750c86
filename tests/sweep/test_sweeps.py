"""Sweeps from the command line on: what runs, what is recorded, what is gone on with. Jobs are stand-ins but for two."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from src import train
from src.storage import run_folder
from src.sweep.process import Start
from src.sweep.record import Job, Record
from tests.conftest import ROOT, environment

Sweep = Callable[..., tuple[int, list[Job]]]
_COMMAND = Start.command
STUB = Path(__file__).with_name("stub_job.py")


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    """Runs `python -m src.train <arguments>` in this process, its jobs as stand-ins; gives its status and jobs."""

    def command(start: Start) -> list[str]:
        return [sys.executable, "-m", "tests.sweep.stub_job", str(start.folder), *start.overrides, *start.changes]

    def run(*arguments: str) -> tuple[int, list[Job]]:
        monkeypatch.setattr(sys, "argv", ["src/train.py", *arguments])
        status = 0
        try:
            train.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        record = Record.read(tmp_path / "sweep")
        return status, record.jobs if record else []

    monkeypatch.setattr(Start, "command", command)
    monkeypatch.chdir(ROOT)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def where(tmp_path: Path) -> str:
    return f"sweep.dir={tmp_path / 'sweep'}"


def statuses(jobs: list[Job]) -> list[str]:
    return [job.status for job in jobs]


@pytest.mark.slow
def test_a_failing_job_spoils_no_other_and_only_it_is_run_again(
    sweep: Sweep, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, jobs = sweep(where, "optimizer.lr=0.1,0.2", "-m", "test=true,false", "launcher.jobs=2")
    assert status == 1
    assert statuses(jobs) == ["completed", "failed", "completed", "failed"]
    assert [job.value for job in jobs] == [0.1, None, 0.2, None]
    assert [job.error for job in jobs] == [None, "test: was to fail"] * 2
    assert f"sweep.resume={tmp_path / 'sweep'}" in capsys.readouterr().out.replace("\n", "")
    failed = run_folder.read_metrics(tmp_path / "sweep/1")
    assert failed == {"status": "failed", "error": "test: was to fail"}
    assert (tmp_path / "sweep/1" / run_folder.OVERRIDES).read_text() == "- optimizer.lr=0.1\n- test=False\n"
    kept = (tmp_path / "sweep/0" / run_folder.METRICS).stat().st_mtime_ns
    (tmp_path / "sweep/mended").touch()
    status, jobs = sweep(f"sweep.resume={tmp_path / 'sweep'}", "data.num_workers=1")
    assert status == 0 and statuses(jobs) == ["completed"] * 4
    assert (tmp_path / "sweep/0" / run_folder.METRICS).stat().st_mtime_ns == kept
    again = json.loads((tmp_path / "sweep/1" / run_folder.METRICS).read_text())
    assert again["overrides"] == ["optimizer.lr=0.1", "test=False", "data.num_workers=1"]


def test_jobs_have_devices_of_their_own(sweep: Sweep, where: str) -> None:
    options = ["launcher.devices=[4,5,6,7]", "launcher.devices_per_job=2", "trainer=ddp_cpu"]
    status, jobs = sweep("-m", where, "optimizer.lr=0.1,0.2,0.3", *options, "sweep.subdir=run")
    assert status == 0
    assert [job.folder for job in jobs] == ["run", "run_1", "run_2"]
    assert {tuple(job.devices) for job in jobs[:2]} == {("4", "5"), ("6", "7")}
    assert tuple(jobs[2].devices) in {("4", "5"), ("6", "7")}


@pytest.mark.parametrize("launcher", ["process", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_stopped_sweep_leaves_jobs_to_go_on_with(sweep: Sweep, where: str, tmp_path: Path, launcher: str) -> None:
    def interrupt() -> None:
        deadline = time.monotonic() + 60
        said = [tmp_path / "sweep" / job / "stdout.txt" for job in "01"]
        while not all(file.exists() and file.read_text() for file in said) and time.monotonic() < deadline:
            time.sleep(0.05)
        for number in (signal.SIGTERM, signal.SIGHUP):  # as a terminal does that is closed
            os.kill(os.getpid(), number)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    options = [f"launcher={launcher}", "launcher.jobs=2", "data.batch_size=4"]
    status, jobs = sweep("-m", where, "optimizer.lr=0.1,0.2,0.3", *options)
    interrupter.join()
    assert status == 130
    assert statuses(jobs) == ["interrupted", "interrupted", "waiting"]
    for job in "01":
        assert run_folder.read_metrics(tmp_path / "sweep" / job) == {"status": "interrupted", "saved": True}
    (tmp_path / "sweep/mended").touch()
    status, jobs = sweep(f"sweep.resume={tmp_path / 'sweep'}")
    assert status == 0 and [job.value for job in jobs] == [0.1, 0.2, 0.3]


def test_seeds(sweep: Sweep, where: str) -> None:
    status, jobs = sweep(where, "sweep=seeds", "sweep.n=2", "seed=7", "optimizer.lr=0.1,0.2", "launcher=joblib")
    assert status == 0
    assert [job.overrides[1:] for job in jobs] == [
        [f"optimizer.lr={lr}", f"seed={seed}"] for lr in (0.1, 0.2) for seed in (7, 8)
    ]


SEARCH = [
    "sweep=optuna",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "loss=ce,dice",
    "sweep.sampler.n_startup_trials=2",
]


def study(folder: Path) -> Any:
    backend = JournalFileBackend(str(folder / "optuna.log"))
    return optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend))


@pytest.mark.slow
def test_a_search_prunes_what_falls_behind(sweep: Sweep, where: str, tmp_path: Path) -> None:
    options = [*SEARCH, "sweep.pruner.n_startup_trials=1", "sweep.pruner.n_warmup_steps=0"]
    status, jobs = sweep(where, *options, "sweep.n=5")
    assert status == 0
    best = 0.0
    for job in jobs:  # a run of constant score is pruned when it is below the median of those before it
        rate = float(job.overrides[-2].partition("=")[2])
        assert 1e-4 <= rate <= 1e-1 and job.overrides[-1] in ("loss=ce", "loss=dice")
        assert job.value == rate
        if job.status == "completed":
            best = max(best, rate)
    assert "pruned" in statuses(jobs) and set(statuses(jobs)) == {"completed", "pruned"}
    trials = study(tmp_path / "sweep").trials
    assert [trial.state.name.replace("COMPLETE", "COMPLETED").lower() for trial in trials] == statuses(jobs)
    assert study(tmp_path / "sweep").best_value == best


@pytest.mark.slow
def test_a_search_goes_on_as_if_it_had_never_stopped(sweep: Sweep, where: str, tmp_path: Path) -> None:
    options = [*SEARCH, "sweep.pruner.n_startup_trials=1", "sweep.pruner.n_warmup_steps=0"]
    _, jobs = sweep(where, *options, "sweep.n=5")
    other = tmp_path / "other"
    sweep(f"sweep.dir={other}", *options, "sweep.n=3")
    arguments = Record.read(other)
    assert arguments is not None
    arguments.arguments = [a.replace("n=3", "n=5") for a in arguments.arguments]
    arguments.save()
    sweep(f"sweep.resume={other}")
    resumed = Record.read(other)
    assert resumed is not None
    assert [job.overrides for job in resumed.jobs] == [job.overrides for job in jobs]


@pytest.mark.slow
def test_a_failed_trial_is_told_as_failed_and_tried_again_in_its_folder(
    sweep: Sweep, where: str, tmp_path: Path
) -> None:
    status, jobs = sweep(where, *SEARCH, "sweep.n=2", "test=false")
    assert status == 1 and statuses(jobs) == ["failed", "failed"]
    assert [trial.state.name for trial in study(tmp_path / "sweep").trials] == ["FAIL", "FAIL"]
    (tmp_path / "sweep/mended").touch()
    status, again = sweep(f"sweep.resume={tmp_path / 'sweep'}")
    assert status == 0 and statuses(again) == ["completed", "completed"]
    assert [job.overrides for job in again] == [job.overrides for job in jobs]
    assert [trial.state.name for trial in study(tmp_path / "sweep").trials[2:]] == ["COMPLETE", "COMPLETE"]


def test_a_run_without_a_score_is_no_number_for_the_search(sweep: Sweep, where: str, tmp_path: Path) -> None:
    status, jobs = sweep(where, *SEARCH, "sweep.n=1", "network=tiny", "sweep.pruner=null")
    assert status == 0
    assert (jobs[0].status, jobs[0].value, jobs[0].error) == ("completed", None, "the run has no val/miou")
    assert study(tmp_path / "sweep").trials[0].state.name == "FAIL"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "seed=1,2", "launcher.jbs=2"], "launcher.jbs: no such key, did you mean 'jobs'?"),
        (["-m", "seed=1,2", "launcher.jobs=two"], "launcher.jobs: should be a valid integer"),
        (["-m", "seed=1,2", "data.batch_size=0"], "data.batch_size: should be greater than 0"),
        (["-m", "network=unet,fpnn"], "network=fpnn: no such option, did you mean 'fpn'?"),
        (["-m", "seed=1,2", "optimized_metric=val/mIoU"], "optimized_metric: no metric is called 'val/mIoU'"),
        (["sweep=optuna"], "sweep=optuna: nothing to search"),
        (["sweep=optuna", "data.batch_size=4,0"], "data.batch_size: should be greater than 0"),
        (["sweep=optuna", "seed=1,2", "optimized_metric=test/miou"], "test/miou is no validation score"),
        (["sweep=seeds", "seed=1,2"], "seed: sweep=seeds counts it up"),
        (["sweep.resume=nowhere"], "nowhere is no sweep's folder"),
    ],
)
def test_a_mistake_common_to_all_jobs_is_said_before_anything_is_written(
    sweep: Sweep, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    status, _ = sweep(*arguments, *([] if "sweep.resume=nowhere" in arguments else [where]))
    printed = capsys.readouterr()
    assert status == 2 and said in printed.err and len(printed.err.strip().splitlines()) <= 2
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        (["experiment=camvid_cnn,voc_fcn_r50", "data.root=conf/data/../model"], ""),
        (["data=camvid,voc", "data.root=/x", "data.download=null"], None),
        (["model=cnn,gan", "discriminator=patchgan", "test=true"], "gan"),
        (["network=unet,tiny", "network.encoder=resnet18", "optimizer.lr=0.2"], "unet"),
        (["network=unet,tiny", "network.width=8", "sweep=seeds", "sweep.n=1"], "tiny"),
    ],
)
def test_over_groups_each_job_is_judged_on_its_own_config(
    sweep: Sweep, where: str, tmp_path: Path, arguments: list[str], folders: str | None,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Jobs are not started here: what each would run with is looked at, and what the sweep says before."""
    monkeypatch.setattr("src.sweep.launcher.ProcessLauncher._drive", lambda self, jobs: list(jobs) and [])
    status, jobs = sweep("-m", where, *arguments)
    said = capsys.readouterr().err
    if folders is None:
        assert (status, jobs) == (2, []) and said.startswith("error: data.download: ")
        return
    assert (status, len(jobs)) == (0, 2) and said == ""
    assert [job.folder for job in jobs] == ["0", "1"]
    fixed = [a.replace("true", "True") for a in arguments[1:] if not a.startswith("sweep")]
    assert all(set(fixed) <= set(job.overrides) for job in jobs)
    record = Record.read(tmp_path / "sweep")
    assert record is not None and not any("choice(" in argument for argument in record.arguments)


@pytest.mark.slow
def test_over_groups_a_mistake_of_one_job_is_its_own(
    sweep: Sweep, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job that cannot be composed is started as it is, and says what is wrong with it."""
    stub, real = Start.command, _COMMAND
    monkeypatch.setattr(Start, "command", lambda start: (real if "network=tiny" in start.overrides else stub)(start))
    status, jobs = sweep("-m", where, "network=tiny,unet", "network.encoder=resnet18", "optimizer.lr=0.2")
    assert status == 1 and statuses(jobs) == ["failed", "completed"] and [job.folder for job in jobs] == ["0", "1"]
    assert jobs[0].error == "network.encoder: no such key; keys of network: _target_, width"
    assert sorted(file.name for file in (tmp_path / "sweep/0").iterdir()) == [
        ".hydra", "metrics.json", "stderr.txt", "stdout.txt",
    ]  # fmt: skip


def test_over_groups_a_mistake_of_all_is_said_first(
    sweep: Sweep, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", where, "network=small,tiny", "network.encodr=resnet18")[0] == 2
    assert capsys.readouterr().err.startswith("error: network.encodr: no such key, did you mean 'encoder'?")
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_that_is_at_work_is_left_alone(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    Record(folder, ["optimizer.lr=0.1,0.2"], str(Path.cwd())).save()
    before = (folder / "sweep.json").read_bytes()
    code = (
        "import time; from pathlib import Path; from src.sweep.record import Record\n"
        f"with Record.read(Path({str(folder)!r})).locked():\n    print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        monkeypatch.setattr(run_folder, "_SECONDS_TO_END", 0.2)
        status, _ = sweep(f"sweep.resume={folder}")
        assert status == 2
        assert f"{folder}: process {other.pid} on" in capsys.readouterr().err.replace("\n", "")
        assert (folder / "sweep.json").read_bytes() == before
    finally:
        other.kill()


def test_another_sweep_in_the_same_folder_and_a_changed_one_are_refused(
    sweep: Sweep, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep("-m", where, "optimizer.lr=0.1")
    assert sweep("-m", where, "optimizer.lr=0.2")[0] == 2
    assert "is a sweep's folder already" in capsys.readouterr().err
    assert sweep(f"sweep.resume={tmp_path / 'sweep'}", "optimizer.lr=0.2")[0] == 2
    assert "optimizer.lr: a resumed sweep keeps its config" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "package"), [("launcher=submitit", "submitit"), ("sweep=optuna", "optuna")])
def test_a_package_that_is_not_there_is_named_with_its_extra(
    sweep: Sweep,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert sweep("-m", where, option, "seed=1,2")[0] == 2
    assert f'pip install -e ".[{package}]"' in capsys.readouterr().err
