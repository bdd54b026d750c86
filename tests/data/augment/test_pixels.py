"""Gamma, noise, JPEG artefacts, erased boxes and changes by lot: images change, nothing moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from src.data.augment.transforms import Augment
from src.data.samples import Pixels
from src.errors import UserError
from tests.data.augment.painted import VOID, painted

CHANGES: list[dict[str, Any]] = [
    {"clahe": 1, "clahe_limit": 0.5},
    {"gamma": 1, "gamma_range": [0.3, 0.6]},
    {"noise": 1, "noise_strength": 0.2},
    {"jpeg": 1, "jpeg_quality": [5, 20]},
    {"erase": 1},
    {"rand": 3, "rand_strength": 1},
]
ANY_DTYPE = [change for change in CHANGES if not {"jpeg", "rand"} & change.keys()]


def gradient() -> Pixels:
    """A photo of soft colours."""
    ramp = torch.linspace(0, 255, 96).expand(64, -1)
    image = torch.stack([ramp, ramp.flip(1), (ramp * 3) % 255]).to(torch.uint8)
    return Pixels(image, (ramp > 128).to(torch.uint8), ramp.clone())


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_an_image_changes_by_its_seed_and_nothing_moves(change: dict[str, Any]) -> None:
    augment = Augment(**change, flip=0)

    def images() -> list[Tensor]:
        torch.manual_seed(0)
        results = [augment(gradient(), None, VOID) for _ in range(6)]
        for result in results:
            assert torch.equal(result.mask, gradient().mask)
            before = gradient().depth
            assert result.depth is not None and before is not None and torch.equal(result.depth, before)
            assert result.image.dtype == torch.uint8 and result.image.shape == (3, 64, 96)
        return [result.image for result in results]

    first = images()
    assert all(torch.equal(a, b) for a, b in zip(first, images(), strict=True))
    assert sum(torch.equal(image, gradient().image) for image in first) <= (1 if "rand" in change else 0)
    few = "clahe" in change  # whose limits are whole numbers of a tile's pixels, and this photo has small tiles
    assert len({image.numpy().tobytes() for image in first}) >= (2 if few else 5)


@pytest.mark.parametrize("change", ANY_DTYPE, ids=lambda change: next(iter(change)))
@pytest.mark.parametrize("dtype", [torch.int16, torch.float32], ids=str)
def test_ct_and_floats_too(change: dict[str, Any], dtype: torch.dtype) -> None:
    image = torch.linspace(-1000, 1000, 40 * 50).view(1, 40, 50).to(dtype)
    pixels = Pixels(image, torch.zeros(40, 50, dtype=torch.uint8))
    torch.manual_seed(0)
    changed = Augment(**change, flip=0)(pixels, None, VOID, intensity=(-1000.0, 1000.0)).image
    assert changed.dtype == dtype and changed.shape == image.shape
    assert not torch.equal(changed, image) and changed.float().isfinite().all()


def test_gamma_is_the_power_of_the_share() -> None:
    torch.manual_seed(0)
    image = torch.tensor([[-1200.0, -1000, 0, 1000]])[None]
    changed = Augment(flip=0, gamma=1, gamma_range=[2, 2])(
        Pixels(image, torch.zeros(1, 4, dtype=torch.uint8)), None, VOID, intensity=(-1000.0, 1000.0)
    )
    torch.testing.assert_close(changed.image, torch.tensor([[-1000.0, -1000, -500, 1000]])[None])


def test_noise_is_in_units_of_the_range_and_of_no_bias() -> None:
    torch.manual_seed(0)
    image = torch.full((1, 200, 200), 500.0)
    mask = torch.zeros(200, 200, dtype=torch.uint8)
    augment = Augment(flip=0, noise=1, noise_strength=0.1)
    noise = [augment(Pixels(image, mask), None, VOID, intensity=(0.0, 1000.0)).image - image for _ in range(20)]
    deviations = [float(one.std()) for one in noise]
    assert 60 < max(deviations) < 101 and min(deviations) < 40
    assert abs(float(torch.stack(noise).mean())) < 1


def test_an_erased_box_has_the_area_that_is_asked_for() -> None:
    augment = Augment(flip=0, erase=1, erase_area=[0.1, 0.2])
    for seed in range(30):
        torch.manual_seed(seed)
        pixels = gradient()
        changed = (augment(pixels, None, VOID).image != pixels.image).any(dim=0)
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        area = int(rows.max() - rows.min() + 1) * int(columns.max() - columns.min() + 1)
        assert 0.06 < area / changed.numel() < 0.24


@pytest.mark.parametrize("key", ["jpeg", "rand", "photometric"])
def test_what_is_for_photos_is_refused_for_others(key: str) -> None:
    given: dict[str, Any] = {key: 1}
    augment = Augment(**given)
    augment.check(3, (0.0, 255.0), has_crop=True)
    for channels, intensity in ((4, (0.0, 255.0)), (1, (-1000.0, 1000.0))):
        with pytest.raises(UserError, match=rf"data\.augment\.{key}: is for gray and RGB images of 8 bits"):
            augment.check(channels, intensity, has_crop=True)
    Augment(gamma=1, noise=1, erase=1).check(4, (-1000.0, 1000.0), has_crop=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gamma_range": [2.0, 1.0]}, r"data\.augment\.gamma_range: should be"),
        ({"jpeg_quality": [50]}, r"data\.augment\.jpeg_quality: should be"),
        ({"erase_area": [0.5, 0.1]}, r"data\.augment\.erase_area: should be"),
        ({"long_side": 512}, r"data\.augment\.long_side: bounds what data\.augment\.short_side"),
        ({"resize": [512]}, r"data\.augment\.resize: \[512\] is no height and width"),
        (
            {"resize": [64, 64], "short_side": 64},
            r"data\.augment\.resize: data\.augment\.short_side=64 says the size too",
        ),
        ({"short_side": 512, "long_side": 256}, r"data\.augment\.long_side: 256 is below"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Augment(**given)


def test_gray_images_are_changed_by_lot_too() -> None:
    torch.manual_seed(0)
    pixels = painted()
    gray = Pixels(pixels.image[:1], pixels.mask)
    results = [Augment(flip=0, rand=2, jpeg=0.5)(gray, None, VOID).image for _ in range(40)]
    assert all(result.shape == (1, 64, 96) and result.dtype == torch.uint8 for result in results)


def test_clahe_is_scikit_images_and_shows_what_is_in_the_dark() -> None:
    exposure = pytest.importorskip("skimage.exposure")
    dark = (gradient().image // 8).float()
    torch.manual_seed(0)
    after = Augment(clahe=1, clahe_limit=0.5, flip=0, scale=None)(
        Pixels(dark.byte(), gradient().mask, None), None, VOID
    ).image
    assert after.float().std() > 2 * dark.std()
    torch.manual_seed(0)
    bands = torch.rand(5, 64, 96) * 0.2
    torch.manual_seed(1)
    several = Augment(clahe=1, clahe_limit=0.5, flip=0, scale=None)(
        Pixels(bands, gradient().mask, None), None, VOID, intensity=(0.0, 1.0)
    ).image
    assert several.shape == bands.shape and several.dtype == bands.dtype
    assert any(
        abs(exposure.equalize_adapthist(bands[0].double().numpy(), clip_limit=limit / 1000) - several[0].numpy()).max()
        < 0.02
        for limit in range(501)
    )
