"""Loaders, checks before a run, and class counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.data.datamodule import SegmentationDataModule
from src.data.dataset import Samples
from src.data.formats.shapes import Shapes
from src.data.sources import DerivedSource, Subset
from src.errors import UserError
from src.training.build import build_data
from src.training.class_weights import class_weights
from tests.conftest import settings
from tests.data.formats.test_folder import NAMES, write


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


@pytest.mark.parametrize(("workers", "drawn"), [(0, 3 * 8), (1, 3 * 20)])
def test_samples_that_are_computed_wait_for_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, drawn: int
) -> None:
    scenes: list[str] = []
    read = Shapes.read
    monkeypatch.setattr(Shapes, "read", lambda self, index: scenes.append(self.name(index)) or read(self, index))  # type: ignore[func-returns-value]
    lengths = [f"data.dataset.{split}_length=20" for split in ("train", "val", "test")]
    node = settings(tmp_path, *lengths, f"data.num_workers={workers}", small=False)["data"]
    datamodule = build_data(node, seed=0)
    datamodule.prepare()
    assert len(scenes) == len(set(scenes)) == drawn
    for _ in range(2):
        source = datamodule.source("train")
        first = [source.read(index)[0] for index in range(20)]
        assert all(torch.equal(a, read(Shapes("train"), index)[0]) for index, a in enumerate(first))
    assert len(scenes) == len(set(scenes))


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
    batches: Any = iter(datamodule.train_dataloader())
    with pytest.raises(UserError) as caught:
        list(batches)
    batches._shutdown_workers()  # the garbage collector's turn would come after the queues', and wait in vain for 20 s
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
    with pytest.raises(UserError, match="2 for 3 classes"):
        class_weights([1, 2], source)


def test_a_limit_takes_the_first_samples(tmp_path: Path) -> None:
    datamodule = build_data(folder_data(tmp_path, "data.limit=4"), seed=0)
    datamodule.prepare()
    assert sorted(name for batch in datamodule.train_dataloader() for name in batch["id"]) == ["00", "01", "02", "03"]


def subset(*overrides: str, seed: int = 0, use_unlabeled: bool = False) -> SegmentationDataModule:
    """The embedded data with 1/8 of 24 samples labelled, 4 a batch."""
    node = settings(Path(), "data.cache=null", "data.labeled_fraction=1/8", *overrides)["data"]
    return build_data(node, seed, use_unlabeled)


def chosen(datamodule: SegmentationDataModule) -> list[int]:
    source = datamodule.source("train")
    assert isinstance(source, Subset)
    return [int(index) for index in source.indices]


def test_which_samples_are_labeled_is_the_datas_own_choice() -> None:
    camvid = ["data.dataset.train_length=367", "data.labeled_fraction=0.125"]
    labeled = chosen(subset(*camvid))
    assert len(set(labeled)) == 46
    assert chosen(subset(*camvid, seed=7, use_unlabeled=True)) == labeled
    assert chosen(subset(*camvid, "data.labeled_seed=1")) != labeled
    assert chosen(subset(*camvid[:1])) == labeled  # 1/8 is 0.125


def test_labeled_and_unlabeled_are_disjoint_and_complete() -> None:
    datamodule = subset(use_unlabeled=True)
    rest = datamodule.unlabeled
    assert isinstance(rest, Subset)
    assert len(datamodule.source("train")) == 3
    assert sorted([*chosen(datamodule), *rest.indices.tolist()]) == list(range(24))
    assert subset().unlabeled is None
    names = [source.name(0) for source in (datamodule.source("train"), rest)]
    assert names[0] != names[1]


def test_a_subset_keeps_the_epochs_length_and_changes_a_sample_anew_each_time() -> None:
    datamodule = subset("data.augment.photometric=1")
    batches = list(datamodule.train_dataloader())
    assert len(batches) == datamodule.batches_per_epoch() == 6
    images: dict[str, list[bytes]] = {}
    for batch in batches:
        for name, image in zip(batch["id"], batch["image"], strict=True):
            images.setdefault(name, []).append(image.numpy().tobytes())
    assert [len(seen) for seen in images.values()] == [8, 8, 8]
    assert all(len(set(seen)) == 8 for seen in images.values())


def test_batches_carry_unlabeled_images_when_asked_for() -> None:
    options = ["data.unlabeled_batch_size=2", "data.crop=[40,40]", "data.augment.vertical_flip=0"]
    datamodule = subset(*options, use_unlabeled=True)  # images are 32 x 48
    datamodule.prepare()
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["unlabeled_image"].shape == batch["unlabeled_strong"].shape == (2, 3, 40, 40)
    assert batch["unlabeled_image"].dtype == batch["unlabeled_strong"].dtype == torch.uint8
    assert batch["unlabeled_mask"].shape == (2, 40, 40)
    padding = batch["unlabeled_mask"] == 255  # and nothing else is told: no labels
    assert padding[:, 32:].all() and not padding[:, :32].any()
    assert not batch["unlabeled_mask"][:, :32].any()
    assert not torch.equal(batch["unlabeled_image"], batch["unlabeled_strong"])
    assert next(iter(subset().train_dataloader())).keys() == {"image", "mask", "id"} == batch.keys() - {
        "unlabeled_image", "unlabeled_strong", "unlabeled_mask", "unlabeled_truth",
    }  # fmt: skip


def test_the_truth_of_unlabeled_images_fits_them_and_changes_no_draw() -> None:
    """It is for figures: what is cut out and flipped is as it would be without."""
    options = ["data.crop=[40,40]", "data.augment.scale=[0.7,1.4]", "data.dataset.void_width=0"]
    datamodule = subset(*options, use_unlabeled=True)
    datamodule.prepare()
    batch = next(iter(datamodule.train_dataloader()))
    truth, padding = batch["unlabeled_truth"], batch["unlabeled_mask"] == 255
    assert truth.dtype == torch.uint8 and (truth[padding] == 255).all()
    assert truth[~padding].unique().numel() > 2  # and more than a background
    assert datamodule.unlabeled is not None
    blind = Samples(Blind(datamodule.unlabeled), unlabeled=Blind(datamodule.unlabeled), augment=datamodule.augment,
                    strong=datamodule.strong, crop=datamodule.crop)  # fmt: skip
    seeing = Samples(datamodule.unlabeled, unlabeled=datamodule.unlabeled, augment=datamodule.augment,
                     strong=datamodule.strong, crop=datamodule.crop)  # fmt: skip
    for index in range(3):
        a, b = (samples[(0, index, "unlabeled")] for samples in (blind, seeing))
        assert all(torch.equal(a[key], b[key]) for key in ("image", "strong", "mask"))
        assert not torch.equal(a["truth"], b["truth"])


class Blind(DerivedSource):
    """A source whose masks say nothing."""

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = self.source.read(index)
        return image, torch.zeros_like(mask)


def test_a_second_strong_view_is_drawn_where_a_method_takes_two_and_changes_nothing_else() -> None:
    node = settings(Path(), "data.cache=null", "data.labeled_fraction=1/8")["data"]
    one, two = (next(iter(build_data(node, 0, True, strong_views=n).train_dataloader())) for n in (1, 2))
    assert two.keys() - one.keys() == {"unlabeled_strong2"}
    assert all(torch.equal(one[key], two[key]) for key in one if key != "id")
    assert not torch.equal(two["unlabeled_strong"], two["unlabeled_strong2"])


def test_a_strong_change_moves_nothing() -> None:
    """Without colour and blur the strong image is the weak one, whatever the crop and flips."""
    still = [f"data.strong.{key}=0" for key in ("photometric", "gray", "blur")]
    for batch in subset(*still, "data.crop=[32,32]", use_unlabeled=True).train_dataloader():
        assert torch.equal(batch["unlabeled_image"], batch["unlabeled_strong"])


def test_any_number_of_workers_gives_the_same_batches() -> None:
    alone, with_workers = (subset(f"data.num_workers={n}", use_unlabeled=True).train_dataloader() for n in (0, 2))
    for a, b in zip(alone, with_workers, strict=True):
        assert a["id"] == b["id"]
        assert all(torch.equal(a[key], b[key]) for key in a if key != "id")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.labeled_fraction=1/100"], "data.labeled_fraction: 0.01 of 24 training samples leaves none labelled; "),
        (["data.labeled_fraction=null"], "model.semi.method: every training image is labelled; leave some without"),
        (["data.labeled_fraction=1"], "model.semi.method: every training image is labelled; leave some without"),
        (["data.batch_size=25"], "data.batch_size: 25 is more than the 24 training samples"),
    ],
)
def test_a_subset_that_cannot_be(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        subset(*overrides, use_unlabeled=True).prepare()
    assert said in str(caught.value)
