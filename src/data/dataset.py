"""Makes the samples that a loader yields out of a data set on disk."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from src.data.augment.mixing import Mix, mixed
from src.data.augment.transforms import Augment, Strong
from src.data.samplers import Draws, Key, KeyWithCrop, UncountedKey, UnlabeledKey
from src.data.samples import Pixels, Sample
from src.data.sources import Source, depth_of, whole_of
from src.data.synthetic import drawn_by_lot
from src.errors import UserError
from src.seeding import derive


class Samples(torch.utils.data.Dataset[Sample]):
    """Samples by key `(epoch, index)`: the raw pair for `index`, changed by draws seeded by (seed, epoch, index).

    A key `(epoch, index, "unlabeled")` gives an unlabelled sample: its image as `augment` changes it, once more changed
    strongly, and a mask that says only where it is padded; what it shows is told as `truth`, to measure by. A key
    `(epoch, index, "uncounted")` gives a sample that is evaluated and not scored.

    Args:
        source: the split.
        seed: the run's seed.
        augment: None for evaluation: samples stay as they are.
        crop: height and width that training samples get.
        unlabeled: the source of unlabelled samples.
        strong: their strong change.
        rare: what drew the samples, so that crops show the class that each was drawn for.
        mix: how a sample is mixed with another one; None for not at all.
        mix_probability: how often.
        use_depth: whether samples have the source's depth, float32 [H, W].
        strong_views: strongly changed images of each unlabelled sample, 1 or 2.
        synthetic_share: of the training samples, to be drawn by a generator in the place of their images.
    """

    def __init__(
        self,
        source: Source,
        seed: int = 0,
        augment: Augment | None = None,
        crop: Sequence[int] | None = None,
        unlabeled: Source | None = None,
        strong: Strong | None = None,
        rare: Draws | None = None,
        mix: Mix | None = None,
        mix_probability: float = 0.0,
        use_depth: bool = False,
        strong_views: int = 1,
        synthetic_share: float = 0.0,
    ) -> None:
        self.synthetic_share = synthetic_share
        self.use_depth, self.strong_views = use_depth, strong_views
        self.rare, self.mix, self.mix_probability = rare, mix, mix_probability
        self.source, self.seed, self.augment, self.crop = source, seed, augment, crop
        self.unlabeled, self.strong = unlabeled, strong

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key | UnlabeledKey | UncountedKey | KeyWithCrop) -> Sample:
        crop = self.crop
        if isinstance(key, KeyWithCrop):
            key, crop = key
        if len(key) == 3 and key[2] == "unlabeled":
            return self._unlabeled_sample(key[0], key[1], crop)
        epoch, index = key[0], key[1]
        if self.augment is None:
            pixels = self._read(index)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(derive(self.seed, "sample", epoch, index))
                wanted = None if self.rare is None else self.rare.draw(epoch)[0]
                pixels = self._augmented(self.augment, index, crop, wanted)
                if self.mix is not None and torch.rand(()) < self.mix_probability:
                    other = self._augmented(self.augment, int(torch.randint(len(self.source), ())), crop)
                    pixels = mixed(self.mix, pixels, other, self.source.label_set.ignore_index)
        sample: Sample = {"image": pixels.image, "mask": pixels.mask, "id": self.source.name(index)}
        if self.augment is not None and self.synthetic_share:
            sample["synthetic"] = drawn_by_lot(self.synthetic_share, self.seed, epoch, index)
        if pixels.depth is not None:
            sample["depth"] = pixels.depth
        if self.augment is None and (whole := whole_of(self.source, index)) is not None:
            sample["whole"] = whole
        if len(key) == 3:
            sample["uncounted"] = True
        return sample

    def _read(self, index: int) -> Pixels:
        image, mask = self.source.read(index)
        depth = depth_of(self.source, index) if self.use_depth else None
        if depth is not None and depth.shape != mask.shape:
            raise UserError(
                f"{self.source.name(index)}: its depth map is {depth.shape[1]}x{depth.shape[0]}, the image "
                f"{mask.shape[1]}x{mask.shape[0]}; they must be equal"
            )
        return Pixels(image, mask, depth)

    def _augmented(self, augment: Augment, index: int, crop: Sequence[int] | None, wanted: int | None = None) -> Pixels:
        source = self.source
        return augment(self._read(index), crop, source.label_set.ignore_index, wanted, source.intensity)

    def _unlabeled_sample(self, turn: int, index: int, crop: Sequence[int] | None) -> Sample:
        assert self.unlabeled is not None and self.augment is not None and self.strong is not None
        image, mask = self.unlabeled.read(index)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(self.seed, "unlabeled sample", turn, index))
            ignore_index = self.unlabeled.label_set.ignore_index
            # the truth goes the way of a depth map: along with the image, without a say in what is cut out
            truth = mask.float() if mask.shape == image.shape[-2:] else None
            weak = self.augment(
                Pixels(image, torch.zeros_like(mask), truth), crop, ignore_index, intensity=self.unlabeled.intensity
            )
            views = [self.strong(weak.image) for _ in range(self.strong_views)]
        sample: Sample = {"image": weak.image, "mask": weak.mask, "strong": views[0], "id": self.unlabeled.name(index)}
        if self.strong_views == 2:
            sample["strong2"] = views[1]
        if weak.depth is not None:
            sample["truth"] = weak.depth.nan_to_num(ignore_index).to(mask.dtype)
        return sample
