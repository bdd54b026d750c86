"""A checkpoint is not scored, and a run not gone on with, on another draw of the same images without a word."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from src.cli.command import compose
from src.data.formats.folder import Folder
from src.data.layout import splits
from src.data.trained_on import check_unseen
from src.errors import UserError
from src.evaluate import evaluate
from src.storage import run_folder
from src.train import train
from tests.conftest import settings
from tests.data.formats.test_folder import NAMES, write

DRAWN = ["data.dataset.images=images/train", "data.dataset.masks=masks/train", "data.dataset.val_fraction=0.3"]


def run_on(root: Path, run_dir: Path, *options: str) -> dict[str, Any]:
    given = [
        "data=folder", f"data.root={root}", f"data.dataset.names=[{','.join(NAMES)}]", "data.crop=[16,16]", "network=tiny",
        "trainer=cpu", "trainer.max_epochs=1", "data.batch_size=2", "scheduler.warmup_steps=0", "test=false", "~logger",
    ]  # fmt: skip
    composed = settings(run_dir, *given, *options, small=False)
    train(composed)
    return composed


def scored(folder: Path, *options: str) -> dict[str, Any]:
    composed = compose("evaluate", [*options, "splits=[val]"])
    composed["paths"]["output_dir"] = str(folder)
    return evaluate(composed)


def test_images_that_another_rule_drew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data", count=10)
    ordered = splits.ordered
    with monkeypatch.context() as patch:
        patch.setattr(splits, "ordered", lambda groups, seed: ordered(groups, seed + 1))
        given = run_on(tmp_path / "data", tmp_path / "run", *DRAWN)
        assert scored(tmp_path / "scores", f"ckpt={tmp_path}/run")
    with pytest.raises(UserError, match=r"ckpt: the validation data of .*best\.ckpt has other names than it had in training, "
                       r"and the split 'val' is drawn \(by another rule before version 0\.2\).* like=RUN_DIR"):  # fmt: skip
        scored(tmp_path / "scores", f"ckpt={tmp_path}/run")
    with pytest.raises(UserError, match=r"other names than it had when the run began; .* version 0\.1, which drew splits by "
                       r"another rule, .* like=RUN_DIR"):  # fmt: skip
        train(given, resume=True)
    own = ["data=folder", f"data.root={tmp_path}/data", f"data.dataset.names=[{','.join(NAMES)}]"]
    assert scored(tmp_path / "scores", f"ckpt={tmp_path}/run", *own, *DRAWN)  # what the user says is the user's to know
    content = torch.load(tmp_path / "run" / run_folder.BEST, weights_only=True)
    del content["SegmentationDataModule"]["samples"]
    (tmp_path / "run" / run_folder.BEST).unlink()
    torch.save(content, tmp_path / "run" / run_folder.BEST)
    assert scored(tmp_path / "scores", f"ckpt={tmp_path}/run")


def test_data_that_merely_changed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "val"):
        write(tmp_path / "data", split, count=4)
    run_on(tmp_path / "data", tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        scored(tmp_path / "scores", f"ckpt={tmp_path}/run")
        assert "in training" not in caplog.text
        write(tmp_path / "data", "val", count=5)
        scored(tmp_path / "scores", f"ckpt={tmp_path}/run")
    assert "best.ckpt has 5 samples where it had 4 in training; its scores then were of those" in caplog.text


def test_test_splits(tmp_path: Path) -> None:
    """One that is drawn while val has a folder goes by the training images; one with a folder is known to no checkpoint."""
    write(tmp_path, "train", count=10)
    write(tmp_path, "val")

    def source_of(**keys: Any) -> Any:
        return lambda split: Folder(split, str(tmp_path), NAMES, **keys)

    other = {"training": [8, "another digest"], "validation": [3, "another digest"]}
    with pytest.raises(
        UserError, match=r"the training data of x has other names than it had in training, and the split 'te"
    ):
        check_unseen(source_of(test_fraction=0.2), ["test"], other, "x")
    (note,) = check_unseen(source_of(test_fraction=0.2), ["test"], {}, "x")
    assert note.startswith("x does not say which images were its test data; they are drawn, and may be others now")
    write(tmp_path, "test", count=4)
    assert check_unseen(source_of(), ["test"], other, "x") == []
    assert check_unseen(source_of(), ["val", "test"], {}, "x") == []
