"""Turns, perspective and elastic changes move all maps of a sample together."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from src.config.inference import Inference
from src.data.augment.geometry import Geometry, Warp, as_dtype, happens
from src.data.augment.transforms import Augment
from src.data.samples import Pixels
from src.inference.protocol import seen_size
from tests.data.augment.painted import VOID, painted, together

CHANGES: list[dict[str, Any]] = [
    {"rotation": 1, "degrees": 30},
    {"rotation": 1, "degrees": 180},
    {"quarter_turns": 1},
    {"perspective": 1, "tilt": 0.3},
    {"elastic": 1, "bend": 3},
    {"rotation": 1, "quarter_turns": 1, "perspective": 1, "elastic": 1, "scale": [0.5, 2.0], "max_class_share": 0.9},
    {"short_side": 48, "long_side": 60, "rotation": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32], ids=str)
@pytest.mark.parametrize("crop", [None, [32, 48], [100, 80]], ids=str)
def test_maps_move_together(change: dict[str, Any], dtype: torch.dtype, crop: list[int] | None) -> None:
    augment = Augment(**change, flip=0.5)
    for seed in range(4):
        torch.manual_seed(seed)
        pixels = painted(dtype=dtype, depth=True, seed=seed)
        changed = augment(pixels, crop, VOID)
        assert changed.image.dtype == dtype and changed.mask.dtype == torch.uint8
        assert changed.image.shape[-2:] == changed.mask.shape
        if crop is not None:
            assert list(changed.mask.shape) == crop
        assert together(changed)
        assert set(changed.mask.unique().tolist()) <= {0, 1, 2, 3, VOID}
        assert not torch.equal(changed.mask, pixels.mask)


def turned(degrees: float, corners: Any = None) -> Pixels:
    mask = torch.zeros(65, 65, dtype=torch.uint8)
    mask[28:37, 48:] = 1  # at the right of the centre
    pixels = Pixels(mask.float()[None] * 9, mask)
    return Warp(degrees, corners, 0.0)(pixels, (0, 0), (65, 65), VOID)


def test_a_turn_is_counter_clockwise_about_the_centre() -> None:
    up = turned(90)
    assert (up.mask[:16, 28:37] == 1).all() and (up.mask[:, :28] != 1).all() and (up.mask[37:] != 1).all()
    torch.testing.assert_close(up.image[0, :16, 28:37], torch.full((16, 9), 9.0), atol=0.01, rtol=0)
    assert torch.equal(up.mask, turned(-270).mask)


def test_corners_are_moved_as_they_are_said_to_be() -> None:
    """The crop's corners come from where they were moved to: here a rectangle of half of the height."""
    squeezed = turned(0.0, torch.tensor([[0.0, 0.5], [0.0, 0.5], [0.0, -0.5], [0.0, -0.5]])).mask == 1
    rows = squeezed[:, 60].nonzero().flatten().tolist()
    assert 17 <= len(rows) <= 19 and abs(sum(rows) / len(rows) - 32) <= 0.5


def test_what_is_beyond_the_image_is_ignored_and_what_is_beyond_the_crop_is_seen() -> None:
    whole = Augment(flip=0, rotation=1, degrees=45)
    torch.manual_seed(3)
    pixels = painted((200, 200), depth=True)
    alone = whole(pixels, None, VOID)
    assert (alone.mask == VOID).any() and alone.depth is not None
    inside = Augment(flip=0, rotation=1, degrees=45, scale=[1.0, 1.0])
    ignored = []
    for seed in range(30):
        torch.manual_seed(seed)
        ignored.append(float((inside(pixels, [40, 40], VOID).mask == VOID).float().mean()))
    assert sum(share == 0 for share in ignored) > 15  # crops at the image's edge may reach over it


def test_a_quarter_turn_of_a_crop_keeps_its_shape_and_all_pixels() -> None:
    augment = Augment(flip=0, quarter_turns=1)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        pixels = painted((40, 40))
        changed = augment(pixels, None, VOID)
        turns = [k for k in range(4) if torch.equal(changed.mask, torch.rot90(pixels.mask, k))]
        assert turns and turns[0] != 0
        seen |= set(turns)
        assert augment(painted((40, 60)), None, VOID).mask.shape == (40, 60)
        assert augment(painted((70, 60)), [32, 48], VOID).mask.shape == (32, 48)
    assert seen == {1, 2, 3}


def test_how_often() -> None:
    torch.manual_seed(0)
    geometry = Geometry(rotation=0.3, degrees=10, perspective=0.2, tilt=0.1, elastic=0.1, bend=2)
    draws = [geometry.draw() for _ in range(2000)]
    assert sum(draw is None for draw in draws) / 2000 == pytest.approx(0.7 * 0.8 * 0.9, abs=0.04)
    turns = [draw.turn for draw in draws if draw is not None and draw.turn]
    assert len(turns) / 2000 == pytest.approx(0.3, abs=0.04)
    assert -10 < min(turns) < -8 and 8 < max(turns) < 10


def test_what_cannot_happen_draws_nothing() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert Geometry().draw() is None and not happens(0.0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("short", "long"), [(64, None), (64, 70), (20, 0)])
def test_short_side_is_that_of_scored_images(short: int, long: int | None) -> None:
    augment = Augment(flip=0, short_side=short, long_side=long)
    for size in ((40, 60), (33, 21), (64, 64), (50, 51)):
        expected = seen_size(*size, Inference(short_side=short, long_side=long))
        assert augment(painted(size), None, VOID).mask.shape == expected
    # a crop of it shows the same at the same scale
    torch.manual_seed(0)
    cropped = augment(painted((40, 60), depth=True), [200, 300], VOID)
    height, width = seen_size(40, 60, Inference(short_side=short, long_side=long))
    seen = cropped.mask != VOID
    assert abs(int(seen.any(dim=1).sum()) - height) <= 1 and abs(int(seen.any(dim=0).sum()) - width) <= 1
    assert together(cropped)


@pytest.mark.parametrize("size", [(40, 60), (33, 21), (64, 64)])
def test_a_fixed_size_is_that_of_scored_images(size: tuple[int, int]) -> None:
    augment = Augment(flip=0, resize=[48, 80])
    whole = augment(painted(size, depth=True), None, VOID)
    assert whole.mask.shape == seen_size(*size, Inference(resize=[48, 80])) == (48, 80)
    cropped = augment(painted(size, depth=True), [48, 80], VOID)
    assert torch.equal(cropped.image, whole.image) and torch.equal(cropped.mask, whole.mask)
    assert together(whole)


def test_integer_images_are_rounded_and_kept_in_range() -> None:
    values = torch.tensor([-3.0, 0.4, 0.6, 300.0])
    assert as_dtype(values, torch.uint8).tolist() == [0, 0, 1, 255]
    assert as_dtype(values, torch.int16).tolist() == [-3, 0, 1, 300]
    assert as_dtype(values, torch.float32) is values


def test_margins_hold_what_a_turn_reaches_for() -> None:
    assert Warp(0.0, None, 0.0).margin((30, 50)) == [0, 0]
    assert Warp(90.0, None, 0.0).margin((30, 50)) == [10, 0]
    assert Warp(45.0, None, 0.0).margin((30, 30)) == [math.ceil(15 * (math.sqrt(2) - 1))] * 2
    assert Warp(0.0, torch.full((4, 2), 0.25), 1.0).margin((30, 50)) == [7, 10]
