"""Sweep folders that a stranger has made: nothing that they say is run, built, read or written elsewhere."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from src import train
from src.errors import UserError
from src.storage import run_folder
from src.sweep.foreign_sweeps import check_arguments, check_overrides
from src.sweep.process import JobProcess, Start, outcome
from src.sweep.record import FILE, Job, Record
from src.sweep.trial import open_study
from tests.conftest import ROOT

HERE = ROOT
EVIL = "{_target_: os.system, command: touch evil}"
# Of a command line: what is refused, and a word of why.
REFUSED = [
    # what Hydra itself would build, load or do
    (f"hydra.sweeper.params={{x: {EVIL}}}", "is no key of the config"),
    (f"+hydra.sweeper.params={{seed: {EVIL}}}", "decides what Hydra does"),
    (f"+hydra.sweeper.params={{seed: [1, {EVIL}]}}", "decides what Hydra does"),
    ("hydra.sweeper.params={hydra.sweeper._recursive_: true}", "decides what Hydra does"),
    ("hydra.sweeper._recursive_=true", "decides what Hydra does"),
    ("hydra.sweeper._target_=hydra_plugins.x.Y", "decides what Hydra does"),
    (f"+hydra.sweeper.x={EVIL}", "decides what Hydra does"),
    (f"+hydra.sweeper.sampler.x={EVIL}", "decides what Hydra does"),
    (f"hydra.launcher.devices=[{EVIL}]", "decides what Hydra does"),
    (f"hydra.launcher.jobs={EVIL}", "decides what Hydra does"),
    ("hydra.launcher.parameters={slurm_setup: [touch evil]}", "decides what Hydra does"),
    ("+hydra.launcher.parameters.slurm_srun_args=[--x]", "decides what Hydra does"),
    ("hydra.launcher._target_=hydra_plugins.x.Y", "decides what Hydra does"),
    ("hydra.callbacks.x._target_=os.system", "decides what Hydra does"),
    ("hydra.job_logging.handlers.file.filename=/evil", "decides what Hydra does"),
    ("hydra.job.env_set.LD_PRELOAD=/evil", "decides what Hydra does"),
    ("hydra.searchpath=[file:///evil]", "decides what Hydra does"),
    ("hydra.run.dir=/evil", "decides what Hydra does"),
    ("hydra.mode=RUN", "decides what Hydra does"),
    ("hydra.output_subdir=/evil", "decides what Hydra does"),
    ("hydra/launcher=../../../evil", "decides what Hydra does"),
    ("hydra/launcher=evil", "decides what Hydra does"),
    ("hydra/sweeper=basic", "decides what Hydra does"),
    ("hydra/job_logging=evil", "decides what Hydra does"),
    ("hydra/sweeper/sampler=/evil/x", "decides what Hydra does"),
    ("hydra.sweep.subdir='${oc.env:HOME}'", "decides what Hydra does"),
    ("hydra.sweep.subdir='${hydra.job.num}${x:1}'", "decides what Hydra does"),
    # where configs come from
    ("data=../../../evil", "names a file elsewhere"),
    ("network=/evil/x", "names a file elsewhere"),
    ("experiment=camvid_cnn,../../evil", "names a file elsewhere"),
    ("data@hydra.sweeper=shapes", "is no key of the config"),
    ("+evil@network=x", "is no key of the config"),
    ("paths.output_dir=/evil", "is no key of the config"),
    ("resume=/evil", "is no key of the config"),
    ("+trust=os", "is no key of the config"),
    # resolvers, places
    ("seed='${oc.env:SEED}'", "has an interpolation"),
    ("seed=1,'${oc.env:SEED}'", "has an interpolation"),
    ("network.encoder='\\${oc.env:SEED}'", "has an interpolation"),
    ("network.encoder={a: [1, '${x:y}']}", "has an interpolation"),
    ("seed='${oc.env:${seed}}'", "has an interpolation"),
    ("init_from='/x/${seed}${hydra.runtime.cwd}'", "has an interpolation"),
    ("init_from='${paths.output_dir}'", "has an interpolation"),
    ("init_from='\\\\${seed}'", "has an interpolation"),
    ("init_from='${..seed}'", "has an interpolation"),
    ("data.root=s3://evil/x", "names a place on a network"),
    ("data.root=local:/evil", "names a place on a network"),
    ("init_from=https://evil/x.ckpt", "names a place on a network"),
    ("data.cache_dir=/evil", "names a folder to write to"),
    ("+data.dataset.cache_dir=/evil", "names a folder to write to"),
    # nonsense
    ("seed=range(100000000000)", "makes more than 10,000 jobs"),
    ("seed=[1", "which is no override"),
    ("evil", "which is no override"),
    ("\x1b[2J=1", "which is no override"),
    ("seed=" + "[" * 500, "which is no override"),
    ("seed=" + "[" * 500_000, "has an override of"),
]
ALLOWED = [
    "seed=1,2", "network=unet,fpn", "network=glob(*)", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "data.root='/a b/c, d'",
    "data.root=C:/x", "+network.width=8", "~logger",
    "~data.augment", "data.crop=[64,64]", "experiment=camvid_cnn", "sweep=seeds",
    "init_from=/run", "data.cache_dir=null", "hydra/launcher=joblib", "hydra/sweeper=optuna", "hydra/sweeper/pruner=median",
    "hydra.launcher.devices=[0,1]", "hydra.launcher.jobs=2", "hydra.sweeper.n=5", "hydra.sweeper.sampler.n_startup_trials=2",
    "hydra.sweeper.params={optimizer.lr: 'tag(log,interval(1e-4,1e-1))', seed: '1,2'}", "hydra.sweep.subdir=run",
    "hydra.sweep.subdir='${hydra.job.num}_x'", "hydra.sweep.dir=/x", "hydra.mode=MULTIRUN", "hydra.sweeper.pruner=null",
    "seed=range(5)", "monitor=val/iou/car", "init_from='/x/${seed}-${trainer.accelerator}.ckpt'", "optimizer.lr=${seed}",
]  # fmt: skip


@pytest.mark.parametrize(("argument", "why"), REFUSED)
def test_what_a_command_line_may_not_say(argument: str, why: str) -> None:
    with pytest.raises(UserError) as refused:
        check_arguments(["seed=1", argument], "of", ())
    said = str(refused.value)
    assert why in said and said.isprintable() and len(said) < 700
    if "override" not in why:
        key = argument.partition("=")[0].lstrip("+")
        check_arguments([argument], "of", [key])  # what the user says again is theirs


@pytest.mark.parametrize("argument", ALLOWED)
def test_what_people_start_sweeps_with(argument: str) -> None:
    check_arguments([argument], "of", ())


@pytest.mark.parametrize(
    "override", ["hydra.job.chdir=true", "seed=1,2", "seed='${x:1}'", "data=../x", "data.cache_dir=/x"]
)
def test_what_a_job_may_not_say(override: str) -> None:
    with pytest.raises(UserError, match="refused"):
        check_overrides([override], "of")


def resume(monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> int:
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "argv", ["src/train.py", f"sweep.resume={folder}", *more])
    with pytest.raises(SystemExit) as end:
        train.main()
    return int(str(end.value.code))


URL = "data.root='${data.dataset.names.0}:${data.dataset.names.1}'"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["network._target_=os.system", "seed=1,2"], "wants to build 'os.system'"),
        ([f"+hydra.sweeper.params={{seed: {EVIL}}}"], "decides what Hydra does; refused"),
        (["hydra.sweeper._recursive_=true", "seed=1,2"], "decides what Hydra does; refused"),
        (["--config-dir", "/stranger", "seed=1,2"], "started with --config-dir /stranger; say so too"),
        (["hydra.sweep.subdir=../../x", "seed=1,2"], "is no folder below the sweep's"),
        (["callbacks.checkpoint.run_dir=/x", "seed=1,2"], "would write to '/x'"),
        (
            ["data=folder", "data.dataset.names=[s3,'//b/x']", URL, "seed=1,2"],
            "names 's3://b/x' (data.root), and no URL",
        ),
        (["hydra/sweeper=optuna", "seed=1,2", "hydra.sweeper.pruner._target_=os.system"], "one of optuna.pruners"),
    ],
)
def test_a_strangers_sweep_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (tmp_path / "sweep").mkdir()
    Record(tmp_path / "sweep", arguments, str(HERE)).save()
    assert resume(monkeypatch, tmp_path / "sweep") == 2
    assert said in capsys.readouterr().err
    assert not (HERE / "evil").exists()
    assert [file.name for file in (tmp_path / "sweep").iterdir() if not file.name.startswith(".")] == ["sweep.json"]


GOOD: dict[str, Any] = {
    "arguments": ["seed=1,2"], "directory": str(HERE), "metric": "val/miou", "changes": [], "resuming": False,
    "jobs": [{"number": 0, "overrides": ["seed=1"], "folder": "0", "status": "failed"}],
}  # fmt: skip
JOB = GOOD["jobs"][0]


WRONG: list[dict[str, Any]] = [
    {"folder": "../x"}, {"folder": "/x"}, {"folder": ""}, {"folder": "."}, {"folder": "a/../../x"}, {"folder": 1},
    {"folder": "link"}, {"folder": "link/x"}, {"folder": "a\0b"}, {"number": "0"}, {"number": -1}, {"number": 5},
    {"number": 10**400}, {"status": "done"}, {"status": ["failed"]}, {"overrides": [{}]}, {"overrides": None},
    {"value": "0.5"}, {"value": float("nan")}, {"seconds": float("inf")}, {"devices": [0]}, {"devices": "0"},
    {"trial": 0.5}, {"error": 1},
]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        [], 1, "x", None, {}, GOOD | {"jobs": 1},
        GOOD | {"jobs": [1]}, GOOD | {"arguments": "seed=1"}, GOOD | {"arguments": [1]},
        GOOD | {"changes": None}, GOOD | {"directory": 1}, GOOD | {"metric": ["x"]}, GOOD | {"resuming": "yes"},
        *(GOOD | {"jobs": [JOB | wrong]} for wrong in WRONG),
        GOOD | {"jobs": [JOB, JOB]}, GOOD | {"jobs": [JOB, JOB | {"number": 1}]},
    ],
)  # fmt: skip
def test_a_record_that_is_none(tmp_path: Path, content: Any) -> None:
    (tmp_path / "link").symlink_to("/tmp")
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"sweep\.json|leads out|is a link"):
        Record.read(tmp_path)


def test_a_record_that_is_one(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps(GOOD))
    record = Record.read(tmp_path)
    assert record is not None and record.jobs == [Job(0, ["seed=1"], "0", "failed")]
    for text in ("[" * 100_000, '{"jobs": ' + "9" * 5000 + "}", "\x00"):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(UserError, match="damaged or no JSON"):
            Record.read(tmp_path)


@pytest.mark.parametrize(
    "place", ["sweep.json", ".lock", "0", "0/stdout.txt", "0/metrics.json", "optuna.log", ".submitit"]
)
def test_no_sweep_is_gone_on_with_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    folder, dear = tmp_path / "sweep", tmp_path / "dear"
    dear.mkdir()
    (dear / "file").write_text(json.dumps(GOOD))
    folder.mkdir()
    (folder / FILE).write_text(json.dumps(GOOD))
    at = folder / place
    at.unlink(missing_ok=True)
    at.parent.mkdir(exist_ok=True)
    at.symlink_to(dear if place in ("0", ".submitit") else dear / "file")
    assert resume(monkeypatch, folder) == 2
    assert f"{at}: is a link" in capsys.readouterr().err
    assert [file.name for file in dear.iterdir()] == ["file"] and (dear / "file").read_text() == json.dumps(GOOD)


def test_a_lock_that_optuna_left_stands_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "optuna.log.lock").symlink_to(tmp_path / "optuna.log")
    (tmp_path / "0/wandb").mkdir(parents=True)
    (tmp_path / "0/wandb/latest").symlink_to("/tmp")
    run_folder.check_own(tmp_path)


@pytest.mark.parametrize("place", ["stdout.txt", "stderr.txt", ".hydra", ".hydra/overrides.yaml", "metrics.json"])
def test_a_job_writes_into_its_own_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "dear").mkdir()
    (tmp_path / "dear/file").write_text("dear")
    at = tmp_path / "job" / place
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(tmp_path / ("dear" if place == ".hydra" else "dear/file"))
    with pytest.raises(UserError, match="is a link"):
        JobProcess(Start(tmp_path / "job", [], [], []))
    assert (tmp_path / "dear/file").read_text() == "dear"


@pytest.mark.parametrize("content", ["[]", "{", '{"status": "mine"}', '{"status": 1}', '{"val": {"miou": 1}}'])
def test_a_job_whose_metrics_are_none_has_failed(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    (tmp_path / "stderr.txt").write_text("x" * (1 << 20) + "\nerror: \x1b[2Jit broke\n")
    assert outcome(tmp_path, "val/miou", 1, stopped=False)[0] == "failed"
    (tmp_path / "metrics.json").write_text('{"status": "completed", "val": {"miou": "1"}, "error": [1]}')
    assert outcome(tmp_path, "val/miou", 0, stopped=False)[:2] == ("completed", None)


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    "content",
    [
        b"{}\n", b"[1]\n", b'{"op_code": 0}\n', b'{"op_code": 99, "worker_id": "x"}\n', b"\xff\xfe\n", b"null\n",
        pickle.dumps(_Evil()) + b"\n{}\n", b"[" * 5000 + b"\n{}\n",
    ],
)  # fmt: skip
def test_a_study_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "optuna.log").write_bytes(content)
    with pytest.raises(UserError, match="is damaged or no study"):
        open_study(tmp_path, "maximize").get_trials()
    assert not Path("evil").exists()


def test_a_study_is_no_link_and_no_pickle_is_read_out_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dear").write_text("dear")
    (tmp_path / "optuna.log").symlink_to(tmp_path / "dear")
    with pytest.raises(UserError, match="is a link"):
        open_study(tmp_path, "maximize")
    assert (tmp_path / "dear").read_text() == "dear"
    (tmp_path / "optuna.log").unlink()
    (tmp_path / "optuna.log").write_text("")
    arguments = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.sampler={_target_: optuna.samplers.CmaEsSampler}",
        "optimizer.lr=0.1,0.2",
    ]
    Record(tmp_path, arguments, str(HERE)).save()
    assert resume(monkeypatch, tmp_path) == 2
    assert "decides what Hydra does" in capsys.readouterr().err
    Record(
        tmp_path, [arguments[0], "hydra.sweeper.sampler._target_=optuna.samplers.CmaEsSampler", arguments[2]], str(HERE)
    ).save()
    assert resume(monkeypatch, tmp_path) == 2
    assert "this one reads pickles" in capsys.readouterr().err
