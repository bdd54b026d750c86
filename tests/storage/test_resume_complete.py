"""To resume a run that is complete, by whatever ended it, changes nothing and says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src import train as command
from src.config.parts import Trainer
from src.errors import UserError
from src.storage import run_folder
from src.storage.resume import nothing_left
from src.train import train
from tests.conftest import settings


def run_of(run_dir: Path, *overrides: str) -> Path:
    """A run as a command leaves it, with its config."""
    given = settings(run_dir, "~logger", *overrides)
    (run_dir / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(given), run_dir / run_folder.CONFIG)
    train(given)
    return run_dir


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(f): (f.stat().st_mtime_ns, f.read_bytes() if f.is_file() else b"") for f in sorted(folder.rglob("*"))}


ENDS = {
    "epochs": ["trainer.max_epochs=1"],
    "steps within an epoch": ["trainer.max_epochs=null", "trainer.max_steps=4", "scheduler.warmup_steps=1"],
    "whichever comes first": ["trainer.max_epochs=3", "trainer.max_steps=6", "scheduler.warmup_steps=1"],
    "at least": ["trainer.max_epochs=2", "+trainer.min_epochs=1", "+trainer.min_steps=2"],
    "a callback": [
        "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping", "+callbacks.stop.monitor=val/miou",
        "+callbacks.stop.mode=max", "+callbacks.stop.stopping_threshold=0.0", "trainer.max_epochs=5",
    ],
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_whatever_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    run_dir = run_of(tmp_path / "run", "test=false", *ENDS[end])
    before = everything(run_dir)
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["train", f"resume={run_dir}", "data.num_workers=1"])
    command.main()
    said = capsys.readouterr()
    assert said.out.startswith(f"{run_dir} is complete after ") and len(said.out.splitlines()) == 1
    assert f"to train longer: python -m src.train resume={run_dir} trainer.max_" in said.out
    assert said.err == ""
    assert everything(run_dir) == before
    # A kill came after its last checkpoint and before its scores were written: then these are all that is left to do.
    (run_dir / run_folder.METRICS).unlink()
    kept = {
        name: (run_dir / name).read_bytes() for name in (run_folder.LAST, run_folder.BEST) if (run_dir / name).exists()
    }
    command.main()
    metrics = run_folder.read_metrics(run_dir)
    assert metrics is not None and metrics["status"] == "completed"
    assert kept == {name: (run_dir / name).read_bytes() for name in kept}


DONE = {"status": "completed", "epochs": 4, "steps": 24, "test": {"miou": 0.5}}


@pytest.mark.parametrize(
    ("metrics", "trainer", "given", "said"),
    [
        (DONE, {"max_epochs": 4}, [], "is complete after 4 epochs and 24 steps"),
        (DONE, {"max_epochs": 4}, [], "trainer.max_epochs=8"),
        (DONE, {"max_epochs": 4}, ["optimizer.lr"], "is complete"),
        (DONE, {"max_epochs": 4}, ["trainer.max_epochs"], "is complete"),
        (DONE, {"max_epochs": 5}, ["trainer.max_epochs"], None),
        (DONE, {"max_epochs": 9, "max_steps": 24}, ["trainer.max_epochs"], "trainer.max_steps=48"),
        (DONE, {"max_epochs": None, "max_steps": 30}, ["trainer.max_steps"], None),
        (DONE, {"max_epochs": 100}, [], "trainer.max_epochs=100"),  # a callback ended it
        (DONE, {"max_epochs": 100}, ["trainer.max_epochs"], None),
        (DONE | {"status": "pruned"}, {"max_epochs": 9}, [], "was pruned by its search after 4 epochs"),
        (DONE | {"status": "pruned"}, {"max_epochs": 9}, ["trainer.max_epochs"], None),
        ({k: v for k, v in DONE.items() if k != "test"}, {"max_epochs": 4}, [], None),
        (DONE | {"status": "failed"}, {"max_epochs": 4}, [], None),
        (DONE | {"status": "interrupted"}, {"max_epochs": 4}, [], None),
        (None, {"max_epochs": 4}, [], None),
    ],
)  # fmt: skip
def test_what_is_left(
    tmp_path: Path, metrics: dict[str, object] | None, trainer: dict[str, int], given: list[str], said: str | None
) -> None:
    if metrics is not None:
        run_folder.write_metrics(tmp_path, metrics)
    told = nothing_left(tmp_path, Trainer.of(trainer), True, given)
    assert told is None if said is None else said in (told or "")


def test_less_than_was_done_is_refused(tmp_path: Path) -> None:
    run_folder.write_metrics(tmp_path, DONE)
    with pytest.raises(UserError, match="has done 4 epochs and 24 steps already"):
        nothing_left(tmp_path, Trainer.of({"max_epochs": 3}), True, ["trainer.max_epochs"])
