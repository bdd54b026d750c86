"""Loaders, checks before a run, and class counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.build import build_data, class_weights
from src.errors import UserError
from tests.conftest import settings
from tests.data.test_folder import NAMES, write


def folder_data(tmp_path: Path, *overrides: str, counts: tuple[int, int] = (6, 3)) -> dict[str, Any]:
    for split, count in zip(("train", "val"), counts, strict=True):
        write(tmp_path, split, count)
    options = [
        f"data.root={tmp_path}",
        f"data.dataset.names=[{','.join(NAMES)}]",
        "data.crop=[16,16]",
        "data.batch_size=2",
    ]
    node: dict[str, Any] = settings(tmp_path, "data=folder", *options, "network=tiny", *overrides, small=False)["data"]
    return node


def test_loaders_give_the_batch_that_is_promised(tmp_path: Path) -> None:
    datamodule = build_data(folder_data(tmp_path, "data.num_workers=1"), seed=0)
    datamodule.prepare()
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (2, 3, 16, 16)
    assert batch["mask"].shape == (2, 16, 16)
    assert all(isinstance(name, str) for name in batch["id"])
    evaluated = [name for batch in datamodule.val_dataloader() for name in batch["id"]]
    assert evaluated == ["00", "01", "02"]
    assert datamodule.source("test") is datamodule.source("val")


def test_samples_in_memory_are_the_same(tmp_path: Path) -> None:
    first, second = (build_data(folder_data(tmp_path, f"data.cache={cache}"), seed=0) for cache in ("null", "ram"))
    for datamodule in (first, second):
        datamodule.prepare()
    for a, b in zip(first.train_dataloader(), second.train_dataloader(), strict=True):
        assert torch.equal(a["image"], b["image"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.batch_size=7"], "data.batch_size: 7 is more than the 6 training samples"),
        (["data.crop=null"], "data.crop: random scaling needs a crop"),
        (["data.crop=[16]"], "data.crop: should be [height, width]"),
    ],
)
def test_what_only_the_data_can_tell(tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        build_data(folder_data(tmp_path, *overrides), seed=0).prepare()
    assert said in str(caught.value)


def test_a_bad_file_is_named_from_a_worker_too(tmp_path: Path) -> None:
    datamodule = build_data(folder_data(tmp_path, "data.num_workers=2"), seed=0)
    datamodule.prepare()
    bad = tmp_path / "images/train/04.png"
    bad.write_bytes(b"damaged since it was checked")
    with pytest.raises(UserError) as caught:
        list(datamodule.train_dataloader())
    assert str(caught.value).startswith(f"{bad}: cannot be read as an image")
    assert "\n" not in str(caught.value)


def test_class_weights(tmp_path: Path) -> None:
    source = build_data(folder_data(tmp_path), seed=0).source("train")
    keep = tmp_path / "counts.txt"
    weights = class_weights("balanced", source, keep)
    assert weights is not None
    rows = np.array([8, 8, 7])  # of 23 labelled rows
    np.testing.assert_allclose(weights.numpy(), np.median(rows / 23) / (rows / 23), rtol=1e-6)
    keep.write_text("1\n2\n1\n")
    kept = class_weights("balanced", source, keep)
    assert kept is not None
    assert kept.tolist() == [1.0, 0.5, 1.0]  # counted once, then kept
    given = class_weights([1, 2, 3], source)
    assert given is not None
    assert given.tolist() == [1, 2, 3]
    assert class_weights(None, source) is None
    with pytest.raises(UserError, match="2 weights for 3 classes"):
        class_weights([1, 2], source)


def test_a_limit_takes_the_first_samples(tmp_path: Path) -> None:
    datamodule = build_data(folder_data(tmp_path, "data.limit=4"), seed=0)
    datamodule.prepare()
    assert sorted(name for batch in datamodule.train_dataloader() for name in batch["id"]) == ["00", "01", "02", "03"]
