"""Makes the samples that a loader yields out of a data set on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from src.data.augment.mixing import Mix, mixed
from src.data.augment.transforms import Augment, Strong
from src.data.labels import LabelSet
from src.data.samplers import Draws, Key, KeyWithCrop, UncountedKey, UnlabeledKey
from src.data.samples import Pixels, Sample
from src.data.synthetic import drawn_by_lot
from src.data.threads import in_order
from src.errors import UserError
from src.seeding import derive

_NAMED_AT_MOST = 1024  # samples of a split whose names a checkpoint knows it by


class Source(Protocol):
    """One split of a data set, as it lies on disk. To add a format, write a class with these members.

    Attributes:
        label_set: what the mask values mean.
        channels: image channels.
        intensity: lowest and highest image value, (0, 255) for 8-bit images.
        split: the split that is read (a data set without a test split gives "val" for "test").
    """

    label_set: LabelSet
    channels: int
    intensity: tuple[float, float]
    split: str

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The sample's name, for messages, pictures and predictions."""
        ...

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image [C, H, W] in its own dtype and mask uint8 [H, W], untransformed; ignored pixels have `ignore_index`.

        To evaluate, the mask has the pixels of the truth as it is on disk; where the image was resampled, another size.

        Raises:
            UserError: the file cannot be read or does not fit; names it and the mend.
        """
        ...


@runtime_checkable
class WithDepth(Protocol):
    """What a source also has whose samples have a depth, for `tasks=depth`."""

    def depth(self, index: int) -> Tensor | None:
        """Distances float32 [H, W] in the data set's unit, above 0; NaN where unknown. None where there are none."""
        ...


@runtime_checkable
class OfFiles(Protocol):
    """What a source also has whose samples are files, so that `data.cache=disk` sees them change."""

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that a sample is made from."""
        ...


@runtime_checkable
class CutOut(Protocol):
    """What a source also has whose samples are cut out of something larger, a volume or a scene."""

    def whole(self, index: int) -> str:
        """The name of what a sample is cut out of."""
        ...


@runtime_checkable
class Stacked(Protocol):
    """What a source also has whose samples are slices of volumes."""

    def place(self, index: int) -> tuple[int, tuple[float, float, float]]:
        """The number of a slice in its volume; and mm to the next slice, to the next row and to the next column."""
        ...


@runtime_checkable
class Overlapping(Protocol):
    """What a source also has whose samples share pixels, which count in one of them and are ignored in others."""

    def margin(self, index: int) -> int:
        """Pixels of a sample that count in others."""
        ...


@runtime_checkable
class Chunked(Protocol):
    """What a source also has whose samples lie in chunks, few of which should be in use at a time.

    Attributes:
        chunk_sizes: samples of each chunk, one after the other, int64 [chunks].
        window: chunks to shuffle together.
    """

    chunk_sizes: npt.NDArray[np.int64]
    window: int


@runtime_checkable
class Computed(Protocol):
    """What a source also has whose samples are computed, not read: none can be broken, and any can be had at any time.

    Attributes:
        computed: whether they are.
    """

    computed: bool


def is_computed(source: Source) -> bool:
    inner = innermost(source)
    return isinstance(inner, Computed) and inner.computed


def digest(source: Source) -> str:
    """Tells a split from one of other samples or in another order: by the sizes of its chunks, else by names evenly spread
    over it, so also by what was put in or taken out between them."""
    if isinstance(source, Chunked):
        return hashlib.sha256(source.chunk_sizes.tobytes()).hexdigest()
    step = max(1, len(source) // _NAMED_AT_MOST)
    return hashlib.sha256("\n".join(source.name(i) for i in range(0, len(source), step)).encode()).hexdigest()


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


class DerivedSource:
    """A source made from another: same labels, same kind of image, same names."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.label_set, self.channels = source.label_set, source.channels
        self.intensity, self.split = source.intensity, source.split

    def name(self, index: int) -> str:
        return self.source.name(index)


def innermost(source: Source) -> Source:
    """The source that others were made from, as it lies on disk."""
    while isinstance(source, DerivedSource):
        source = source.source
    return source


class InMemory(DerivedSource):
    """A source whose decoded samples are kept in memory.

    Args:
        at_once: everything is read now, in threads; else each sample when it is asked for first.
    """

    def __init__(self, source: Source, at_once: bool = True) -> None:
        super().__init__(source)
        self._samples: list[tuple[Tensor, Tensor] | None] = [None] * len(source)
        if at_once:
            self._samples = list(in_order(source.read, range(len(source))))

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self._samples[index]
        if sample is None:
            sample = self._samples[index] = self.source.read(index)
        return sample


class Subset(DerivedSource):
    """Some samples of a source, by index."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        super().__init__(source)
        self.indices = np.array(indices, np.int64)  # not a list: nothing per sample that worker processes would copy

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        return self.source.read(int(self.indices[index]))


def files_of(source: Source, index: int) -> tuple[Path, ...] | None:
    """The files that a sample is made from; None of a source whose samples are made, or cut out of larger files."""
    if isinstance(source, Subset):
        return files_of(source.source, int(source.indices[index]))
    return source.files(index) if isinstance(source, OfFiles) else None


def depth_of(source: Source, index: int) -> Tensor | None:
    """A sample's depth, or None of a source without."""
    if isinstance(source, Subset):
        return depth_of(source.source, int(source.indices[index]))
    if isinstance(source, DerivedSource):
        return depth_of(source.source, index)
    return source.depth(index) if isinstance(source, WithDepth) else None


def whole_of(source: Source, index: int) -> str | None:
    """What a sample is cut out of, or None of a source whose samples are whole."""
    if isinstance(source, Subset):
        return whole_of(source.source, int(source.indices[index]))
    if isinstance(source, DerivedSource):
        return whole_of(source.source, index)
    return source.whole(index) if isinstance(source, CutOut) else None


def place_in_stack(source: Source, index: int) -> tuple[int, tuple[float, float, float]] | None:
    """The number of a slice in its volume and the sides of its voxels; None of a source whose samples are no slices."""
    if isinstance(source, Subset):
        return place_in_stack(source.source, int(source.indices[index]))
    if isinstance(source, DerivedSource):
        return place_in_stack(source.source, index)
    return source.place(index) if isinstance(source, Stacked) else None


def class_counts(source: Source) -> npt.NDArray[np.int64]:
    """Pixels of each class in the split, int64 [K]; ignored pixels are left out."""
    classes = source.label_set.num_classes

    def count(index: int) -> npt.NDArray[np.int64]:
        return np.bincount(source.read(index)[1].numpy().ravel(), minlength=256)[:classes]

    return sum(in_order(count, range(len(source))), np.zeros(classes, np.int64))
