"""From a data set on disk to the samples that a loader yields."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from src.data.labels import LabelSet
from src.data.samplers import Key
from src.data.transforms import Augment
from src.errors import UserError
from src.seeding import derive

_VERIFIED_AT_MOST = 512  # samples of a split that are decoded before a run, evenly spread; all of a smaller split


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

        Raises:
            UserError: the file cannot be read or does not fit; names it and the mend.
        """
        ...


class Samples(torch.utils.data.Dataset[dict[str, Any]]):
    """Samples by key `(epoch, index)`: the raw pair for `index`, changed by draws seeded by (seed, epoch, index).

    Args:
        source: the split.
        seed: the run's seed.
        augment: None for evaluation: samples stay as they are.
        crop: height and width that training samples get.
    """

    def __init__(
        self, source: Source, seed: int = 0, augment: Augment | None = None, crop: Sequence[int] | None = None
    ):
        self.source, self.seed, self.augment, self.crop = source, seed, augment, crop

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        image, mask = self.source.read(index)
        if self.augment is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(derive(self.seed, "sample", epoch, index))
                image, mask = self.augment(image, mask, self.crop, self.source.label_set.ignore_index)
        return {"image": image, "mask": mask, "id": self.source.name(index)}


class _Derived:
    """A source made from another: same labels, same kind of image, same names."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.label_set, self.channels = source.label_set, source.channels
        self.intensity, self.split = source.intensity, source.split

    def name(self, index: int) -> str:
        return self._source.name(index)


class Kept(_Derived):
    """A source whose decoded samples are kept in memory. Everything is read at once, in threads."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        with ThreadPoolExecutor() as pool:
            self._samples = list(pool.map(source.read, range(len(source))))

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        return self._samples[index]


class First(_Derived):
    """The first `count` samples of a source."""

    def __init__(self, source: Source, count: int) -> None:
        super().__init__(source)
        self._count = min(count, len(source))

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        return self._source.read(index)


def verify(source: Source) -> None:
    """Decodes samples of a split, all of a small one, so that a bad file ends the run before it is paid for.

    Raises:
        UserError: of the first bad sample.
    """
    count = min(len(source), _VERIFIED_AT_MOST)
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(source.read, np.linspace(0, len(source) - 1, count).astype(int).tolist()):
            pass


def class_counts(source: Source) -> npt.NDArray[np.int64]:
    """Pixels of each class in the split, int64 [K]; ignored pixels are left out."""
    classes = source.label_set.num_classes

    def count(index: int) -> npt.NDArray[np.int64]:
        return np.bincount(source.read(index)[1].numpy().ravel(), minlength=256)[:classes]

    with ThreadPoolExecutor() as pool:
        total: npt.NDArray[np.int64] = np.sum(list(pool.map(count, range(len(source)))), axis=0, dtype=np.int64)
    return total


def collate(samples: list[dict[str, Any]], ignore_index: int) -> dict[str, Any]:
    """A batch: image [B, C, H, W], mask [B, H, W], id: list of names.

    Images of different size are padded at the right and below to the largest; metrics and losses ignore the padding.
    """
    height = max(s["image"].shape[-2] for s in samples)
    width = max(s["image"].shape[-1] for s in samples)
    images, masks = [], []
    for sample in samples:
        below, right = height - sample["image"].shape[-2], width - sample["image"].shape[-1]
        image, mask = sample["image"], sample["mask"]
        if below or right:
            image = torch.nn.functional.pad(image, (0, right, 0, below))
            mask = torch.nn.functional.pad(mask, (0, right, 0, below), value=ignore_index)
        images.append(image)
        masks.append(mask)
    if len({image.shape[0] for image in images}) > 1:
        raise UserError(f"{samples[0]['id']}: images of one batch have different numbers of channels")
    return {"image": torch.stack(images), "mask": torch.stack(masks), "id": [s["id"] for s in samples]}
