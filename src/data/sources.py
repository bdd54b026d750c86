"""A split of a data set as it lies on disk: what each must have, what some have too, and splits made from others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from src.data.labels import LabelSet
from src.data.threads import in_order

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
