"""`folds=N`: what runs, what is pooled, what is gone on with. Jobs are stand-ins but for one sweep."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src import train
from src.cli.request import Request
from src.errors import UserError
from src.sweep.process import Start
from src.sweep.record import Record
from tests.conftest import ROOT, SMALL

Sweep = Callable[..., int]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    """Runs `python -m src.train <arguments>` in this process, its jobs as stand-ins; gives its status."""

    def command(start: Start) -> list[str]:
        return [sys.executable, "-m", "tests.sweep.stub_fold", str(start.folder), *start.overrides]

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["src/train.py", *arguments])
        try:
            train.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 0

    monkeypatch.setattr(Start, "command", command)
    monkeypatch.chdir(ROOT)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


def said(folder: Path) -> Any:
    return json.loads((folder / "folds.json").read_text())


def test_folds_is_short_for_a_sweep() -> None:
    expected = ["-m", "network=tiny", "sweep=folds", "hydra.sweeper.n=5"]
    for given in (
        ["folds=5", "network=tiny"],
        ["network=tiny", "-m", "folds=5"],
        ["sweep=folds", "network=tiny", "folds=5"],
    ):
        assert list(Request.parse("train", given).arguments) == expected
    with pytest.raises(UserError, match="folds: is a sweep of its own, and sweep=seeds another"):
        Request.parse("train", ["folds=5", "sweep=seeds"])
    assert list(Request.parse("evaluate", ["folds=5"]).arguments) == ["folds=5"]  # no such key there


def test_what_is_not_done_is_gone_on_with_and_then_pooled(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "broken").touch()
    assert sweep("folds=3", f"sweep.dir={folder}") == 1
    assert [job.status for job in record(folder).jobs] == ["completed", "failed", "completed"]
    assert [job.overrides[-2:] for job in record(folder).jobs] == [
        ["data.folds.n=3", f"data.folds.k={k}"] for k in range(3)
    ]
    assert not (folder / "folds.json").exists()
    assert "not all folds are completed" in capsys.readouterr().out
    (folder / "broken").unlink()
    kept = (folder / "0/metrics.json").stat().st_mtime_ns
    assert sweep(f"sweep.resume={folder}") == 0
    assert (folder / "0/metrics.json").stat().st_mtime_ns == kept
    (found,) = said(folder)["combinations"]
    assert found["run_of_image"] == {"image0": "0", "image1": "1", "image2": "2"}
    # of class a 30 of 35 true pixels are found, and nothing else is called a
    assert found["pooled"]["iou"]["a"] == pytest.approx(30 / 35)
    assert "3 folds: out-of-fold mIoU" in capsys.readouterr().out


def test_a_combination_has_folds_of_its_own(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    assert sweep("folds=2", "optimizer.lr=0.1,0.2", f"sweep.dir={folder}") == 0
    combinations = said(folder)["combinations"]
    assert [one["overrides"] for one in combinations] == [["optimizer.lr=0.1"], ["optimizer.lr=0.2"]]
    assert [list(one["run_of_image"].values()) for one in combinations] == [["0", "1"], ["2", "3"]]


@pytest.mark.parametrize(("arguments", "words"), [
    (["folds=1"], "sweep.n: "),
    (["folds=3", "data.folds.k=1,2"], "data.folds.k: folds=3 says it; leave it out"),
    (["folds=3", "test=false"], "test: the fold that is held out is scored by it"),
])  # fmt: skip
def test_mistakes_are_said_before_any_job(
    sweep: Sweep, tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*arguments, f"sweep.dir={tmp_path / 'sweep'}") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_real_folds(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Each image of the training split is predicted once, by the run that did not learn from it."""
    small = [*SMALL, "trainer.max_epochs=1", f"sweep.dir={tmp_path / 'sweep'}"]
    done = run("src.train", "folds=2", *small, timeout=600)
    assert done.returncode == 0, done.stderr
    (found,) = said(tmp_path / "sweep")["combinations"]
    assert sorted(found["run_of_image"]) == [f"train_{i:05d}" for i in range(24)]
    for each in found["folds"]["each"]:
        metrics = json.loads((tmp_path / "sweep" / each["run"] / "metrics.json").read_text())
        assert each["miou"] == pytest.approx(metrics["test"]["miou"], abs=1e-12)


def record(folder: Path) -> Record:
    found = Record.read(folder)
    assert found is not None
    return found
