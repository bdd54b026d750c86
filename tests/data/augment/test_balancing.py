"""Rare-class sampling, mixing and crop sizes: drawn from the seed, the same on any number of workers and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.config.check import check
from src.data.augment.mixing import Mix, mixed
from src.data.augment.rare_classes import RareClasses, pixels_by_class
from src.data.datamodule import SegmentationDataModule
from src.data.samplers import KeyWithCrop, TrainingBatches
from src.data.samples import Pixels
from src.errors import UserError
from src.training.build import build_data
from tests.conftest import settings

VOID = 255
SETTINGS = ["data.dataset.train_length=24", "data.dataset.height=48", "data.dataset.width=64", "data.crop=[32,32]"]


def data(tmp_path: Path, *overrides: str, small: list[str] = SETTINGS) -> SegmentationDataModule:
    datamodule = build_data(settings(tmp_path, *small, "data.batch_size=4", *overrides)["data"], seed=3)
    datamodule.prepare()
    return datamodule


def batches(datamodule: SegmentationDataModule) -> list[dict[str, Any]]:
    return list(datamodule.train_dataloader())


def equal(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return len(one) == len(other) and all(
        a["id"] == b["id"] and torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])
        for a, b in zip(one, other, strict=True)
    )


class TestRareClasses:
    # three classes: everywhere; in images 1 and 3; in image 3 only, and there in too few pixels
    PIXELS = np.array([[1000, 0, 0], [900, 100, 0], [1000, 0, 0], [799, 200, 1]])

    def test_probabilities_are_the_papers(self) -> None:
        rare = RareClasses(self.PIXELS, 0, temperature=0.5)
        share = self.PIXELS.sum(axis=0) / self.PIXELS.sum()
        expected = np.exp((1 - share) / 0.5)
        assert rare.chance == pytest.approx(expected / expected.sum())

    def test_an_image_shows_the_class_that_it_is_drawn_for(self) -> None:
        rare = RareClasses(self.PIXELS, 7, temperature=0.5)
        drawn = [rare.draw(number) for number in range(4000)]
        counts = np.zeros((3, 4))
        for chosen, index in drawn:
            counts[chosen, index] += 1
        assert counts.sum(axis=1) / 4000 == pytest.approx(rare.chance, abs=0.03)
        assert (counts > 0).tolist() == [[True] * 4, [False, True, False, True], [False, False, False, True]]
        assert counts[1, 1] / counts[1].sum() == pytest.approx(0.5, abs=0.06)
        assert drawn[:50] == [RareClasses(self.PIXELS, 7, 0.5).draw(number) for number in range(50)]
        assert drawn[:50] != [RareClasses(self.PIXELS, 8, 0.5).draw(number) for number in range(50)]

    def test_a_class_that_is_nowhere_is_never_drawn(self) -> None:
        rare = RareClasses(np.array([[10, 0, 5], [10, 0, 0]]), 0, temperature=0.01)
        assert rare.chance[1] == 0
        assert {rare.draw(number)[0] for number in range(200)} == {2}  # cold: the rarest only

    def test_counts_are_kept(self, tmp_path: Path) -> None:
        source = data(tmp_path).source("train")
        counted = pixels_by_class(source, tmp_path / "kept/pixels.npz")
        for index in (0, 7):
            mask = source.read(index)[1].numpy()
            assert counted[index].tolist() == [(mask == k).sum() for k in range(source.label_set.num_classes)]
        source.read = None  # type: ignore[assignment,method-assign]
        assert np.array_equal(pixels_by_class(source, tmp_path / "kept/pixels.npz"), counted)

    def test_crops_show_what_is_rare(self, tmp_path: Path) -> None:
        pixels = pixels_by_class(data(tmp_path).source("train")).sum(axis=0)
        rarest = int(np.argmin(np.where(pixels > 0, pixels, pixels.max())))

        def shown(*overrides: str) -> float:
            masks = torch.cat([b["mask"] for b in batches(data(tmp_path, *overrides))])
            return float((masks == rarest).flatten(1).any(dim=1).float().mean())

        assert shown("data.rare_classes=0.001") > 0.9 > 0.7 > shown()


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.rare_classes=0.1"],
        ["data.mix=cutmix", "data.mix_probability=1"],
        ["data.mix=classmix"],
        ["data.mix=copy_paste", "data.rare_classes=1"],
        ["data.crop_sizes=[1,3]"],
        ["data.rare_classes=0.1", "data.mix=cutmix", "data.crop_sizes=[1,2]", "data.labeled_fraction=1/3"],
    ],
    ids=" ".join,
)
def test_drawn_from_the_seed_alone(tmp_path: Path, overrides: list[str]) -> None:
    whole = batches(data(tmp_path, *overrides))
    assert not equal(whole, batches(data(tmp_path, *(o for o in overrides if "labeled" in o))))
    assert equal(whole, batches(data(tmp_path, *overrides, "data.num_workers=2")))
    resumed = data(tmp_path, *overrides)
    resumed.load_state_dict({"epoch": 0, "consumed": 2})
    assert equal(whole[2:], batches(resumed))


def test_ranks_share_what_one_device_would_draw() -> None:
    given = {"rare": RareClasses(TestRareClasses.PIXELS, 0, 0.5), "crop": [64, 96], "sizes": [0.5, 2.0]}
    one = list(TrainingBatches(4, 4, 5, batches=6, **given))  # type: ignore[arg-type]
    two = [list(TrainingBatches(4, 4, 5, rank, 2, batches=6, **given)) for rank in (0, 1)]  # type: ignore[arg-type]
    assert one == [[*a, *b] for a, b in zip(*two, strict=True)]
    sizes = [{key.crop for key in batch if isinstance(key, KeyWithCrop)} for batch in one]
    assert all(len(of_batch) == 1 for of_batch in sizes) and len(set.union(*sizes)) > 2
    assert all(side % 32 == 0 for of_batch in sizes for crop in of_batch for side in crop)


def test_batches_differ_in_size(tmp_path: Path) -> None:
    datamodule = data(tmp_path, "data.crop_sizes=[1,3]")
    shapes = {tuple(batch["image"].shape[-2:]) for batch in batches(datamodule)}
    assert shapes <= {(32, 32), (64, 64), (96, 96)} and len(shapes) > 1
    assert datamodule.smallest_crop == (32, 32)


def pair() -> tuple[Pixels, Pixels]:
    """An image of zeros of class 0, and one of class 1, 2 and 3 (few pixels), with ignored pixels; each pixel is its class."""
    other = torch.ones(40, 50, dtype=torch.uint8)
    other[10:25] = 2
    other[30:32, :3] = 3
    other[-4:] = VOID
    mask = torch.zeros_like(other)
    return Pixels(mask.expand(3, -1, -1), mask), Pixels(other.expand(3, -1, -1), other)


class TestMixing:
    @pytest.mark.parametrize("kind", ["cutmix", "classmix", "copy_paste"])
    def test_a_pixel_keeps_its_label(self, kind: Mix) -> None:
        torch.manual_seed(0)
        results = [mixed(kind, *pair(), VOID) for _ in range(30)]
        assert all((result.image == result.mask).all() for result in results)
        assert all(((result.mask == 0) | (result.mask == pair()[1].mask)).all() for result in results)
        assert any((result.mask != 0).any() for result in results)

    def test_cutmix_pastes_a_box(self) -> None:
        torch.manual_seed(0)
        for _ in range(50):
            pasted = mixed("cutmix", *pair(), VOID).mask != 0
            rows, columns = pasted.any(dim=1), pasted.any(dim=0)
            assert torch.equal(pasted, rows[:, None] & columns)

    def test_classmix_pastes_half_of_the_classes_whole(self) -> None:
        torch.manual_seed(0)
        seen = set()
        for _ in range(50):
            mask = mixed("classmix", *pair(), VOID).mask
            classes = tuple(mask.unique().tolist())
            assert len(classes) == 3 and VOID not in classes
            assert all(torch.equal(mask == k, pair()[1].mask == k) for k in classes if k)
            seen.add(classes)
        assert len(seen) == 3

    def test_copy_paste_takes_one_class_the_rare_one_most(self) -> None:
        torch.manual_seed(0)
        pasted = [mixed("copy_paste", *pair(), VOID).mask.unique().tolist()[1:] for _ in range(100)]
        assert {len(classes) for classes in pasted} == {1}
        assert pasted.count([3]) > 90

    @pytest.mark.parametrize("kind", ["classmix", "copy_paste"])
    def test_nothing_of_what_is_ignored(self, kind: Mix) -> None:
        pixels, other = pair()
        assert mixed(kind, pixels, Pixels(other.image, torch.full_like(other.mask, VOID)), VOID) is pixels


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.mix=cutmix", "data.crop=null"], "data.mix: needs data.crop"),
        (["data.crop_sizes=[1,2]", "data.crop=null"], "data.crop_sizes: needs data.crop"),
        (["data.crop_sizes=[2,1]"], r"data.crop_sizes: should be \[smallest, largest\]"),
        (["data.mix=mixup"], "data.mix: should be 'cutmix', 'classmix' or 'copy_paste'"),
        (["data.mix_probability=2"], "data.mix_probability"),
        (["data.rare_classes=0"], "data.rare_classes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_cannot_be(tmp_path: Path, overrides: list[str], said: str) -> None:
    def start() -> None:
        given = settings(tmp_path, *SETTINGS, *overrides)
        check(given)
        build_data(given["data"], 0)

    with pytest.raises(UserError, match=said):
        start()
