"""The embedded data set: the same scenes always, and scenes that colour alone cannot segment."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from src.data.shapes import Shapes

NAMES = Shapes.label_set.names
VOID = Shapes.label_set.ignore_index
Split = Literal["train", "val", "test"]
Pair = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def stack(split: Split, count: int) -> Pair:
    """The first samples of a split: images uint8 [N, H, W, 3] and masks uint8 [N, H, W]."""
    images, masks = zip(*map(Shapes(split).read, range(count)), strict=True)
    return torch.stack(images).permute(0, 2, 3, 1).numpy(), torch.stack(masks).numpy()


@pytest.fixture(scope="module")
def train() -> Pair:
    return stack("train", 300)


@pytest.fixture(scope="module")
def val() -> Pair:
    return stack("val", 100)


def same(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_a_sample_is_an_image_and_a_mask() -> None:
    shapes = Shapes("val", height=48, width=80)
    image, mask = shapes.read(0)
    assert image.dtype == mask.dtype == torch.uint8
    assert image.shape == (3, 48, 80)
    assert mask.shape == (48, 80)
    assert image.is_contiguous()
    assert mask.is_contiguous()


def test_a_sample_is_a_function_of_seed_split_and_index() -> None:
    shapes = Shapes("train")
    first = shapes.read(3)
    shapes.read(7)
    assert same(shapes.read(3), first)
    assert same(Shapes("train", train_length=5).read(3), first)  # neither order, instance nor length matters
    others = [Shapes("train").read(4), Shapes("train", seed=1).read(3), Shapes("val").read(3), Shapes("test").read(3)]
    assert not any(torch.equal(image, first[0]) or torch.equal(mask, first[1]) for image, mask in others)


def test_lengths_names_and_the_end() -> None:
    shapes = {split: Shapes(split, train_length=3, val_length=4, test_length=5) for split in ("train", "val", "test")}
    assert [len(shapes[split]) for split in ("train", "val", "test")] == [3, 4, 5]
    assert shapes["val"].name(2) == "val_00002"
    for index in (-1, 4):
        with pytest.raises(IndexError, match="'val' with 4 images"):
            shapes["val"].read(index)


def test_no_scene_comes_twice() -> None:
    scenes = [Shapes(split).read(i)[0].numpy().tobytes() for split in ("train", "val", "test") for i in range(50)]
    assert len(set(scenes)) == len(scenes)


def test_shares_of_the_classes(train: Pair) -> None:
    _, masks = train
    assert set(np.unique(masks)) == {*range(len(NAMES)), VOID}
    share = dict(
        zip(NAMES, np.bincount(masks[masks != VOID], minlength=len(NAMES)) / (masks != VOID).sum(), strict=True)
    )
    assert 0.005 < share["line"] < 0.02  # thin
    assert 0.01 < share["cross"] < 0.025  # rare
    assert min(share["disk"], share["rectangle"], share["ring"]) > 1.5 * share["cross"]
    assert share["background"] < 0.9
    assert 0.01 < (masks == VOID).mean() < 0.10


def test_lines_are_thin(train: Pair) -> None:
    """No 5 x 5 window lies in a line."""
    _, masks = train
    windows = np.lib.stride_tricks.sliding_window_view(masks == NAMES.index("line"), (5, 5), (1, 2))
    assert not windows.all((-1, -2)).any()


def test_void_lies_between_owners(train: Pair) -> None:
    """The band is thin: without it a mask has no void but shapes that are nearly hidden, and nothing else changes."""
    banded, bare = Shapes("train"), Shapes("train", void_width=0)
    hidden = 0.0
    for i in range(50):
        image, mask = banded.read(i)
        other_image, other_mask = bare.read(i)
        assert torch.equal(image, other_image)
        assert torch.equal(mask[mask != VOID], other_mask[mask != VOID])
        hidden += (other_mask == VOID).float().mean().item() / 50
    assert hidden < 0.01


def test_painters_order() -> None:
    """Owners count from the back, so nothing hides the last: it is seen, and never void."""
    for i in range(20):
        scene = Shapes("train").scene(i)
        assert scene.classes[0] == NAMES.index("background")
        assert scene.owner.max() == len(scene.classes) - 1
        assert 0 < scene.classes[-1] < len(NAMES)


def test_colour_alone_does_not_segment(train: Pair, val: Pair) -> None:
    """The best guess by a pixel's colour, with and without the classes' frequency, knows next to nothing."""

    def bins(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        bin_of: npt.NDArray[np.int64] = (images // 16).astype(np.int64) @ np.array([256, 16, 1])
        return bin_of

    k = len(NAMES)
    labelled, asked = train[1] != VOID, val[1] != VOID
    counts = np.zeros((4096, k))
    np.add.at(counts, (bins(train[0])[labelled], train[1][labelled]), 1)
    for scores in (counts, counts / counts.sum(0)):
        guess = scores.argmax(1)[bins(val[0])[asked]]
        confusion = np.bincount(val[1][asked] * k + guess, minlength=k * k).reshape(k, k)
        hits = confusion.diagonal()
        assert (hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean() < 0.25  # mIoU; the network passes 0.8
        assert (hits / confusion.sum(1)).mean() < 1.6 / k  # mean accuracy; chance is 1 / k
