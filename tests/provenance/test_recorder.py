"""The record of a run is made once its first step is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from src.data.formats.shapes import Shapes
from src.provenance import record, recorder
from src.provenance.record import Record
from src.provenance.recorder import Recorder
from src.storage import run_folder


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setattr(recorder, "_FIRST_STEP", 300)
    monkeypatch.setattr(recorder, "made_with", lambda *_: Record())
    monkeypatch.setattr(recorder, "packages_of", lambda *_: [])
    sources: Any = {"train": Shapes("train", train_length=2)}
    return Recorder(tmp_path, {}, (), sources, None, "auto", lambda made: made, False)


def written(folder: Path) -> Record | None:
    return record.read(folder) if (folder / run_folder.PROVENANCE).is_file() else None


def test_it_waits_for_the_first_step(started: Recorder, tmp_path: Path) -> None:
    started._thread.join(0.2)
    assert started._thread.is_alive() and written(tmp_path) is None
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight]).step()
    started._thread.join(60)
    made = written(tmp_path)
    assert made is not None and made.data is not None and made.data["train"].samples == 2
    started.close(wait=True)


def test_a_run_without_a_step_has_one_too(started: Recorder, tmp_path: Path) -> None:
    started.close(wait=True)
    assert written(tmp_path) is not None
