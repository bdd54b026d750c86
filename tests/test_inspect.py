"""`python -m src.inspect`: what it counts, what it complains about."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.inspect import examine
from src.training.build import build_data
from tests.conftest import settings
from tests.data.formats.test_folder import NAMES, write

Run = Callable[..., subprocess.CompletedProcess[str]]


def arguments(root: Path) -> list[str]:
    return ["src.inspect", "data=folder", f"data.root={root}", f"data.dataset.names=[{','.join(NAMES)}]"]


def test_counts_are_numpys() -> None:
    source = build_data(settings(Path(), "data.cache=null")["data"], seed=0).source("val")
    findings = examine(source)
    masks = np.stack([source.read(index)[1].numpy() for index in range(len(source))])
    assert findings.pixels.tolist() == [int((masks == k).sum()) for k in range(6)]
    assert findings.images.tolist() == [int((masks == k).any(axis=(1, 2)).sum()) for k in range(6)]
    assert findings.void == int((masks == 255).sum())
    assert findings.sizes == [masks.shape[1:]] * len(source)
    assert findings.problems == []


def test_a_good_data_set_gets_a_table_and_a_contact_sheet(tmp_path: Path, run: Run) -> None:
    for split in ("train", "val"):
        write(tmp_path / "data", split, 3)
    done = run(*arguments(tmp_path / "data"), f"output={tmp_path}/sheets/sheet.png")
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in (*NAMES, "ignored pixels", "val stands for it"))
    assert np.asarray(Image.open(tmp_path / "sheets/sheet.png")).std() > 10
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "label"])
def test_what_is_wrong_is_listed_with_status_1(tmp_path: Path, run: Run, damage: str) -> None:
    for split in ("train", "val"):
        write(tmp_path / "data", split, 3)
    bad = sorted((tmp_path / "data/masks/val").iterdir())[1]
    if damage == "truncated":
        bad.write_bytes(bad.read_bytes()[:40])
    else:
        Image.fromarray(np.full_like(np.asarray(Image.open(bad)), 200)).save(bad)
    done = run(*arguments(tmp_path / "data"))
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and str(bad) in line
    assert "unreadable" in done.stdout
