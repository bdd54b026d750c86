"""A command line is taken apart once; what the process was started with stays as it was typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from src.cli.request import Request, as_typed
from src.errors import UserError
from tests.conftest import ROOT, environment


def test_what_training_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    request = Request.parse("train", ["resume=my run", "optimizer.lr=0.1", "trust=a,b.c"])
    assert request.resume == tmp_path / "my run" and request.trust == ("a", "b.c")
    assert request.arguments == ("optimizer.lr=0.1",) and request.is_one_run
    assert request.like is None and request.sweep is None and request.origin == []


def test_a_run_to_start_like_is_handed_on_to_jobs(tmp_path: Path) -> None:
    request = Request.parse("train", [f"like={tmp_path}", "-m", "seed=1,2", "trust=mine"])
    assert request.sweeps and not request.is_one_run
    assert request.origin == [f"like={tmp_path.resolve()}", "trust=mine"]
    assert request.arguments == ("-m", "seed=1,2")


def test_short_keys_and_options() -> None:
    request = Request.parse(
        "train", ["launcher.jobs=2", "sweep=seeds", "sweep.n=3", "--config-dir=/x", "model.semi=fixmatch"]
    )
    assert request.sweeps  # sweep= asks for one
    assert request.options == ["-m", "--config-dir", "/x"]
    assert request.overrides == [
        "hydra.launcher.jobs=2",
        "sweep=seeds",
        "hydra.sweeper.n=3",
        "model.semi.method=fixmatch",
    ]
    assert as_typed("hydra.sweeper.n: should be more") == "sweep.n: should be more"


def test_null_names_nothing() -> None:
    request = Request.parse("train", ["resume=null", "like=null", "trust=null"])
    assert request == Request("train", ("resume=null", "like=null"))


def test_of_a_checkpoint_trust_is_a_key_of_the_config() -> None:
    assert Request.parse("evaluate", ["ckpt=x", "trust=a,b"]).arguments == ("ckpt=x", "trust=[a,b]")


def test_trust_names_packages() -> None:
    with pytest.raises(UserError, match=r"trust: '\.\./x' is no package"):
        Request.parse("train", ["trust=../x"])


def test_the_folder_of_a_run_is_the_text_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b", "x=1, (2)", "it's", "${seed}"):
        (tmp_path / name).mkdir()
        assert Request.parse("train", [f"resume={name}"]).resume == tmp_path / name


@pytest.mark.slow
def test_the_command_line_is_not_rewritten(tmp_path: Path) -> None:
    """Lightning starts the other ranks with `sys.argv`: they read what the user typed, and come to the same request."""
    code = (
        "import json, sys; import src.train as train; import src.training.run as run\n"
        "run.run = lambda *a, **k: (print('ARGV', json.dumps(sys.argv[1:])), sys.exit(0))\n"
        "train.main()"
    )
    typed = ["launcher.jobs=2", "trust=mine", "network=tiny", "seed=3", f"hydra.run.dir={tmp_path}/a b"]
    done = subprocess.run(
        [sys.executable, "-c", code, *typed], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ARGV ")]
    assert json.loads(line.removeprefix("ARGV ")) == typed, done.stderr
    assert (tmp_path / "a b/.hydra/config.yaml").is_file()
