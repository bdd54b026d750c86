"""Random changes keep image and mask together, and depend on (seed, epoch, index) alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.data.augment.crops import resized
from src.data.augment.transforms import Augment
from src.data.dataset import Samples
from src.data.labels import LabelSet
from src.data.samplers import TrainingBatches
from src.data.samples import Batch, Pixels, Sample, collate
from src.errors import UserError


class Painted:
    """Images whose colour tells their class: image = 20 * class in each pixel."""

    label_set = LabelSet(("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))
    channels, intensity, split = 3, (0.0, 255.0), "train"

    def __init__(self, size: tuple[int, int] = (48, 64), length: int = 12) -> None:
        self.size, self.length = size, length

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"{index:03}"

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        coarse = torch.randint(0, 3, (1, 1, 4, 4), generator=generator).float()
        mask = torch.nn.functional.interpolate(coarse, self.size)[0, 0].to(torch.uint8)
        return (mask * 20)[None].expand(3, -1, -1).contiguous(), mask


STRONG: dict[str, Any] = {"scale": [0.5, 2.0], "flip": 0.5, "vertical_flip": 0.5, "max_class_share": 0.9}


@pytest.mark.parametrize("size", [(48, 64), (20, 100), (24, 30)])
def test_image_and_mask_stay_together(size: tuple[int, int]) -> None:
    samples = Samples(Painted(size), seed=1, augment=Augment(**STRONG), crop=[32, 32])
    for index in range(12):
        sample = samples[0, index]
        image, mask = sample["image"][0].long(), sample["mask"].long()
        assert image.shape == mask.shape == (32, 32)
        seen = mask != 255
        assert seen.any()
        # Bilinear and nearest differ along edges between classes only.
        assert ((image - 20 * mask).abs()[seen] <= 10).float().mean() > 0.8


def test_reaching_over_the_edge_is_ignored_not_background() -> None:
    samples = Samples(Painted((10, 12)), seed=1, augment=Augment(flip=0.0), crop=[32, 32])
    mask = samples[0, 0]["mask"]
    assert (mask[10:] == 255).all() and (mask[:, 12:] == 255).all()
    assert (mask[:10, :12] != 255).all()


def test_a_capped_class_fills_fewer_crops() -> None:
    class Half(Painted):
        def read(self, index: int) -> tuple[Tensor, Tensor]:
            mask = torch.zeros(64, 64, dtype=torch.uint8)
            mask[:, 48:] = 1
            return mask[None].repeat(3, 1, 1), mask

    def full(share: float) -> int:
        samples = Samples(Half(length=60), augment=Augment(max_class_share=share), crop=[16, 16])
        return sum(len(samples[0, i]["mask"].unique()) == 1 for i in range(60))

    assert full(1.0) > 30
    assert full(0.9) < 10


def test_draws_differ_between_epochs_samples_and_seeds_and_repeat_for_the_same_key() -> None:
    augment = Augment(**STRONG, photometric=1.0, blur=0.5, hue=0.1)

    def images(seed: int, epoch: int) -> list[bytes]:
        samples = Samples(Painted(), seed=seed, augment=augment, crop=[32, 32])
        return [samples[epoch, i]["image"].numpy().tobytes() for i in range(6)]

    assert images(0, 0) == images(0, 0)
    assert len({*images(0, 0), *images(0, 1), *images(1, 0)}) == 18


def test_drawing_leaves_the_global_generator_alone() -> None:
    samples = Samples(Painted(), augment=Augment(**STRONG), crop=[32, 32])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    samples[0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_what_is_0_changes_and_draws_nothing() -> None:
    """So that samples of earlier runs stay as they were, whatever was added since."""
    strengths: dict[str, Any] = {
        "degrees": 90, "tilt": 0.5, "bend": 50, "rand_strength": 1, "gamma_range": [3, 3], "noise_strength": 1,
        "jpeg_quality": [1, 1], "erase_area": [0.5, 0.5], "long_side": 0, "short_side": 0,
        "resize": [], "clahe_limit": 1,
    }  # fmt: skip
    image, mask = Painted().read(0)
    for augment in (Augment(scale=[0.5, 2.0]), Augment(scale=[0.5, 2.0], **strengths)):
        torch.manual_seed(7)
        zoom = 0.5 * 4.0 ** float(torch.rand(()))
        window = [round(20 / zoom), round(24 / zoom)]
        top, left = (int(torch.randint(side - cut + 1, ())) for side, cut in zip(mask.shape, window, strict=True))
        flipped = float(torch.rand(())) < 0.5
        torch.rand(3)
        following = torch.rand(3)
        torch.manual_seed(7)
        changed = augment(Pixels(image, mask), [20, 24], 255)
        assert torch.equal(torch.rand(3), following)
        cut = mask[top : top + window[0], left : left + window[1]]
        expected = resized(Pixels(cut[None] * 20, cut), [20, 24])
        assert torch.equal(changed.mask, expected.mask.flip(-1) if flipped else expected.mask)
        assert torch.equal(changed.image[:1], expected.image.flip(-1) if flipped else expected.image)


def _batches(workers: int) -> list[Batch]:
    samples = Samples(Painted(), seed=2, augment=Augment(**STRONG, photometric=1.0), crop=[32, 32])
    batches = TrainingBatches(12, 4, seed=2)
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_collate,
    )
    result = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        result += list(loader)
    return result


def _collate(samples: list[Sample]) -> Batch:
    return collate(samples, 255)


def test_workers_change_nothing() -> None:
    for alone, shared in zip(_batches(0), _batches(4), strict=True):
        assert alone["id"] == shared["id"]
        assert torch.equal(alone["image"], shared["image"])
        assert torch.equal(alone["mask"], shared["mask"])


def test_padding_of_unequal_images_is_ignored() -> None:
    small, large = Painted((10, 12)), Painted((16, 20))
    batch = collate([Samples(small)[0, 0], Samples(large)[0, 0]], 255)
    assert batch["image"].shape == (2, 3, 16, 20) and batch["image"].dtype == torch.uint8
    assert (batch["mask"][0, 10:] == 255).all() and (batch["mask"][0, :, 12:] == 255).all()


@pytest.mark.parametrize("ignore_index", [255, 19])
def test_a_depth_is_nan_where_the_mask_is_filled(ignore_index: int) -> None:
    image, mask = Painted((10, 12)).read(0)
    changed = Augment(flip=0.0)(Pixels(image, mask, mask.float() + 1), [16, 16], ignore_index)
    assert changed.depth is not None and changed.depth.dtype == torch.float32
    assert torch.equal(changed.depth.isnan(), changed.mask == ignore_index)


def test_nearest_pixels_of_mask_and_depth_are_the_same_at_any_size() -> None:
    """torch resamples integers and floats by kernels of their own."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        before, after = torch.randint(1, 200, (2, 2), generator=generator).tolist()
        mask = torch.randint(0, 256, before, dtype=torch.uint8, generator=generator)
        found = resized(Pixels(mask[None], mask, mask.float()), after)
        assert found.depth is not None and torch.equal(found.depth, found.mask.float())


def test_a_reversed_scale_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.augment\.scale"):
        Augment(scale=[2.0, 0.5])
