"""What was achieved stands in metrics.json, whatever goes wrong after it."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from src import evaluate
from src.cli.command import compose
from src.errors import Interrupted, UserError
from src.storage import run_folder
from src.storage.trust import OWN
from src.train import train
from src.training import run
from src.training.record import RunRecord
from tests.conftest import settings


class Unwell(L.Callback):
    """Fails in the farewell of a training that is done."""

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        raise OSError(errno.EIO, "the tracking server is gone")


class Breaks(L.Callback):
    """Fails within the second epoch."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 8:
            raise ValueError("a mistake in someone's callback")


def metrics_of(run_dir: Path) -> dict[str, Any]:
    metrics = run_folder.read_metrics(run_dir)
    assert metrics is not None
    return metrics


def failing(*errors: Exception) -> Any:
    left = list(errors)

    def fail(*_: Any, **__: Any) -> Any:
        raise left.pop(0) if len(left) > 1 else left[0]

    return fail


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("score_table", UnicodeEncodeError("ascii", "–", 0, 1, "no such letter")),
        ("score_table", BrokenPipeError(errno.EPIPE, "Broken pipe")),
        ("log_hparams", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_nothing_that_comes_after_the_scores_changes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    monkeypatch.setattr(run, step, failing(error))
    outcome = train(settings(tmp_path, "trainer.max_epochs=1"))
    metrics = metrics_of(tmp_path)
    assert outcome.status == metrics["status"] == "completed"
    assert metrics["test"]["miou"] == outcome.metrics["test"]["miou"]


def test_a_signal_after_the_scores_does_not_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "score_table", failing(Interrupted("SIGTERM")))
    with pytest.raises(Interrupted):
        train(settings(tmp_path, "trainer.max_epochs=1"))
    assert metrics_of(tmp_path)["status"] == "completed"


def test_a_farewell_that_fails_leaves_the_training_done(tmp_path: Path) -> None:
    train(
        settings(tmp_path, "trainer.max_epochs=1", "+callbacks.unwell._target_=tests.training.test_end.Unwell"),
        trust=OWN,
    )
    metrics = metrics_of(tmp_path)
    assert metrics["status"] == "completed"
    assert {"miou", "loss"} <= metrics["val"].keys() & metrics["test"].keys()


def test_what_an_ended_training_had_achieved_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="someone's callback"):
        train(settings(tmp_path, "+callbacks.breaks._target_=tests.training.test_end.Breaks"), trust=OWN)
    metrics = metrics_of(tmp_path)
    assert metrics["status"] == "failed"
    assert "someone's callback" in metrics["error"]
    assert (metrics["epochs"], metrics["steps"]) == (1, 8)
    assert metrics["val"]["miou"] > 0


def test_a_test_that_fails_keeps_the_training_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(tmp_path, "trainer.max_epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(run, "test_best", failing(UserError("images/test/1.png: cannot be read as an image")))
        with pytest.raises(UserError, match=r"cannot be read as an image\nthe training itself is done"):
            train(given)
    failed = metrics_of(tmp_path)
    assert failed["status"] == "failed" and failed["error"].startswith("images/test/1.png: cannot be read")
    assert failed["val"]["miou"] > 0 and "test" not in failed
    # A mistake on the way to the second try costs nothing of it either.
    with monkeypatch.context() as patch:
        patch.setattr("src.training.build.build_data", failing(UserError("data.root: there is no such folder")))
        with pytest.raises(UserError, match=r"data\.root"):
            train(given, resume=True)
    again = metrics_of(tmp_path)
    assert again["error"] == "data.root: there is no such folder"
    assert {k: again[k] for k in ("val", "steps", "epochs")} == {k: failed[k] for k in ("val", "steps", "epochs")}
    checkpoint = (tmp_path / run_folder.LAST).read_bytes()
    train(given, resume=True)
    metrics = metrics_of(tmp_path)
    assert metrics["status"] == "completed" and metrics["test"]["miou"] > 0 and "error" not in metrics
    assert {k: metrics[k] for k in ("val", "steps", "epochs")} == {k: failed[k] for k in ("val", "steps", "epochs")}
    assert (tmp_path / run_folder.LAST).read_bytes() == checkpoint


@pytest.mark.parametrize("status", ["completed", "pruned"])
def test_no_other_process_unwrites_a_record_that_is_done(tmp_path: Path, status: str) -> None:
    run_folder.write_metrics(tmp_path, {"status": status, "test": {"miou": 0.5}})
    RunRecord(tmp_path, 42, resume=False).failed("rank 1 was killed (SIGKILL)", 1)
    assert metrics_of(tmp_path) == {"status": status, "test": {"miou": 0.5}}


def test_evaluate_keeps_the_scores_of_the_splits_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(settings(tmp_path / "run", "trainer.max_epochs=1", "test=false", "~logger"))
    asked = compose("evaluate", [f"ckpt={tmp_path}/run", "trainer.accelerator=cpu"])
    asked["paths"]["output_dir"] = str(tmp_path / "scores")
    with monkeypatch.context() as patch:
        patch.setattr("src.training.score_table.score_table", failing(BrokenPipeError(errno.EPIPE, "Broken pipe")))
        with pytest.raises(BrokenPipeError):  # of a notebook's output; a command's breaks in silence
            evaluate.evaluate(asked)
    metrics = metrics_of(tmp_path / "scores")
    assert metrics["status"] == "completed"
    assert {"val", "test"} <= metrics.keys()
    shutil.rmtree(tmp_path / "scores")
    with monkeypatch.context() as patch:
        patch.setattr(L.Trainer, "test", failing(UserError("images/test/1.png: cannot be read as an image")))
        with pytest.raises(UserError):
            evaluate.evaluate(asked)
    kept = metrics_of(tmp_path / "scores")
    assert kept["status"] == "failed" and "1.png" in kept["error"]
    assert kept["val"] == metrics["val"] and "test" not in kept
