"""Truths that show nothing or one class are named, and do not turn scores into zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.data import warn_once
from src.data.datamodule import SegmentationDataModule
from src.data.formats.nifti import Nifti
from src.data.sources import Subset
from src.errors import UserError
from src.metrics.truths import Truths, words
from src.train import train
from tests.conftest import settings
from tests.data.volumes import phantom, write_nifti
from tests.inference.test_scores_of_predictions import TINY, VOLUMES


def volumes(root: Path, val: dict[str, np.ndarray[Any, Any]]) -> Path:
    for split, labels in {"train": {"t": phantom()[1]}, "val": val}.items():
        for name, label in labels.items():
            write_nifti(root / f"images/{split}/{name}.nii", phantom()[0])
            write_nifti(root / f"masks/{split}/{name}.nii", label)
    return root


IGNORED, EMPTY = (np.full_like(phantom()[1], value) for value in (9, 0))
OPTIONS = ["data=nifti", *TINY, *VOLUMES, "data.dataset.ignore=[9]"]


def test_volumes_with_little_to_score_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once._said.clear()
    root = volumes(tmp_path / "data", {"a": phantom()[1], "b": IGNORED, "c": EMPTY, "d": EMPTY})
    options = [*OPTIONS, f"data.root={root}", "trainer.limit_val_batches=1.0", "trainer.max_epochs=2"]
    outcome = train(settings(tmp_path / "run", *options, small=False))
    assert caplog.text.count("val: 1 of 4 truths (b) without a labelled pixel, which count in no score") == 1
    assert caplog.text.count("val: 2 of 4 truths (c, d) labelled background only") == 1
    assert int(outcome.model.matrices["val"].sum()) == 3 * phantom()[1].size


@pytest.mark.parametrize("cache", ["null", "ram"])
def test_a_split_without_a_labelled_pixel_is_refused_at_once(tmp_path: Path, cache: str) -> None:
    root = volumes(tmp_path / "data", {"b": IGNORED})
    with pytest.raises(UserError, match="no pixel of the split 'val' is labelled"):
        train(settings(tmp_path / "run", *OPTIONS, f"data.root={root}", f"data.cache={cache}", small=False))


def test_and_at_the_end_of_an_evaluation_where_not_all_of_it_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = volumes(tmp_path / "data", {"b": IGNORED})
    monkeypatch.setattr("src.data.mask_check._DECODED_AT_MOST", 3)  # as of a large split
    options = [*OPTIONS, f"data.root={root}"]
    with pytest.raises(UserError, match="no pixel of the split 'val' is labelled"):
        train(settings(tmp_path / "run", *options, "trainer.limit_val_batches=1.0", small=False))
    train(settings(tmp_path / "part", *options, "trainer.limit_val_batches=2", small=False))  # the rest may have some


def test_unlabelled_samples_need_no_label(tmp_path: Path) -> None:
    root = volumes(tmp_path, {"b": IGNORED})
    source = Subset(Nifti("val", str(root), {"one": 1, "two": 2}, ignore=[9], window=[0, 2000]), range(3))
    datamodule = SegmentationDataModule(lambda split: source, cache="ram")
    assert len(datamodule._cached(source)) == 3
    with pytest.raises(UserError, match="no pixel of the split 'test' is labelled"):
        datamodule._cached(source, "test")


def test_a_truth_is_that_of_all_its_slices() -> None:
    truths = Truths(3)
    masks = torch.tensor([[[0, 255]], [[255, 255]], [[1, 1]], [[255, 255]]], dtype=torch.uint8)
    truths.add(["v", "w", "v", "w"], masks)
    truths.add(["x"], masks[2:3])
    found = truths.finish()
    assert found == {"v": [0, 1], "w": [], "x": [1]}
    assert truths.finish() == {}
    assert words(found, "abc", "test") == [
        "test: 1 of 3 truths (w) without a labelled pixel, which count in no score",
        "test: 1 of 3 truths (x) labelled b only",
    ]
