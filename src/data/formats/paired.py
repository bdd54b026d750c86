"""`Paired` is what most public data sets are: photos, each with a mask of one value a pixel, and a table of these values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from src.data.labels import LabelSet
from src.data.layout import splits
from src.data.layout.file_list import FileList
from src.data.layout.pairs import Pair, match
from src.data.layout.patterns import Items
from src.data.readers.images import IMAGE_SUFFIXES, MASK_SUFFIXES, read_index_mask, read_pair
from src.errors import UserError


class Paired:
    """One split of photos with index masks. A data set's class finds the pairs and says what their values mean.

    Args:
        root: the data set's folder.
        split: the split that is read.
        labels: the classes; where they have no ids, these are the least value of each in `lookup`.
        pairs: samples, their files relative to `root`.
        lookup: the class of each mask value; see `index_lookup`.
    """

    channels = 3
    intensity = (0.0, 255.0)

    def __init__(
        self, root: Path, split: str, labels: LabelSet, pairs: Sequence[Pair], lookup: npt.NDArray[np.uint8]
    ) -> None:
        self.split, self.label_set = split, labels if labels.ids else labels.read_by(lookup)
        self._lookup = lookup
        self._names = FileList(root, (pair.name for pair in pairs))
        self._images = FileList(root, (pair.image for pair in pairs))
        self._masks = FileList(root, (pair.mask for pair in pairs))

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return self._names[index]

    def files(self, index: int) -> tuple[Path, ...]:
        return self._images.path(index), self._masks.path(index)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, H, W] and mask uint8 [H, W]."""
        file = self._masks.path(index)
        return read_pair(self._images.path(index), self._read_mask(file), str(file))

    def _read_mask(self, file: Path) -> npt.NDArray[np.uint8]:
        return read_index_mask(file, self._lookup)


class Drawn(Paired):
    """As `Paired`, where nothing official splits the data: val is a drawn share of the pairs, which "test" reads too.

    Args:
        pairs: all there are.
        val_fraction: the share that validates.
        split_seed: of that draw; the run's seed does not change it.
    """

    def __init__(
        self, root: Path, split: str, labels: LabelSet, pairs: Sequence[Pair], lookup: npt.NDArray[np.uint8],
        val_fraction: float, split_seed: int,
    ) -> None:  # fmt: skip
        read = "train" if split == "train" else "val"
        self.drawn = True
        shares = splits.draw([pair.name for pair in pairs], val_fraction, 0.0, split_seed)
        super().__init__(root, read, labels, [pairs[i] for i in shares[read]], lookup)


def in_folders(
    root: Path, images: str, masks: str, mend: str, image_tail: str = "", mask_tail: str = "", before: str = ""
) -> list[Pair]:
    """Pairs of two folders (or of the folders below them) in the order of their names; see `match`.

    Args:
        mend: what to do where a folder is missing.
        image_tail, mask_tail: what files are called behind the sample's name.
        before: what samples' names begin with, where several folders have the same names.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image.
    """
    for place in (images, masks):
        if not (root / place).is_dir():
            raise UserError(f"data.root: {root / place} is missing; {mend}")
    found = match(root, images, masks, Items(IMAGE_SUFFIXES, tail=image_tail), Items(MASK_SUFFIXES, tail=mask_tail))
    return [Pair(before + name, image, mask) for name, image, mask in found]


def first_folder(root: Path, *places: str) -> str | None:
    """The first of the places below the root that is a folder."""
    return next((place for place in places if (root / place).is_dir()), None)
