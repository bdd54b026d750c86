"""`VolumeSlices` makes a data set of the slices of labelled volumes, whatever the volumes' format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from src.data.layout import splits
from src.data.layout.pairs import match
from src.data.layout.patterns import Items, existing, split_folder
from src.data.layout.splits import ProperShare
from src.data.layout.subjects import by_subject, subjects
from src.data.readers.label_values import LabelValues
from src.data.readers.slicing import Slicing
from src.data.readers.volume import Volume, check_same_voxels
from src.data.warn_once import warn_once
from src.errors import UserError


class VolumeSlices(ABC):
    """One split of a set of volumes with label volumes; a sample is a slice. Formats say how a volume is opened.

    Splits are, in this order: folders, where `images` has `{split}`; the volumes in the lists `val` and `test`; a
    seeded share of the volumes; of a single volume, seeded blocks of slices. Slices that a training sample reads are
    then at least `gap` slices away from those that a held-out sample reads (and likewise validation from test), since
    neighbouring slices are nearly the same image. Scores on blocks of a volume still say less than scores on patients
    never seen.

    Volumes are opened when they are sliced. An uncompressed NIfTI file is memory-mapped; others are decoded as a whole,
    and a process keeps the last 4, so keep slices in memory (`data.cache=ram`) where volumes are many and compressed.

    Args:
        split: "train", "val" or "test"; without test volumes, "test" reads "val".
        root: the data set's folder.
        labels: each class's label value or values, in the order of the classes.
        colors: RGB of each class; None takes evenly spread hues.
        others: what label values are that `labels` does not list: the class background (which is put before the others
            unless listed), or ignored.
        ignore: label values that neither train nor count.
        images, masks: a folder, or a pattern below root. `{split}` stands for the split's name; what `*`, `?`, `[…]` and
            `**` stand for is the volume's name and pairs images with masks, e.g. `imagesTr/*_0000.nii.gz` with
            `labelsTr/*.nii.gz`.
        axis: the direction that slices are stacked in.
        neighbors: slices at each side that are further channels; at the ends the last slice is repeated.
        window: centre and width in the volume's units (Hounsfield units of CT): the range that the model sees.
        percentiles: where no window is given, each volume's range between these is stretched to one range; None for
            [1, 99].
        spacing: side of a pixel in mm that slices are resampled to; None keeps them. Scores are those of the volume's own
            pixels, onto which predictions are resampled.
        skip_empty: leave training slices out that have class 0 or ignored pixels only.
        val, test: names of volumes that validate and test.
        val_fraction, test_fraction: where there are no lists, the share of the volumes (or blocks) that validate and test.
        split_seed: of these shares; the run's seed does not change them.
        group: regular expression; volumes in whose names its first group is the same are of one subject, and a share takes
            all of them. "auto" goes by the patient in DICOM headers and by BIDS' names (`sub-01_ses-2` is of `sub-01`); None
            takes each volume for itself.
        block: slices in a block.
        gap: slices left out between blocks of different splits.

    Raises:
        UserError: files are missing or stand alone, cannot be read, do not lie on each other, or a split is empty.
    """

    HOW_READ = (
        "axis",
        "neighbors",
        "window",
        "percentiles",
        "spacing",
    )  # keys that belong to a model; see `trained_on`
    HOW_LABELLED = ("labels", "others", "ignore")
    image_items: Items  # what volumes and label volumes are on disk
    mask_items: Items
    dtype: str | None = None  # values have a unit of their own, or are stretched

    def __init__(
        self,
        split: str,
        root: str,
        labels: dict[str, NonNegativeInt | list[NonNegativeInt]],
        colors: list[list[int]] | None = None,
        others: Literal["background", "ignore"] = "background",
        ignore: list[NonNegativeInt] | None = None,
        images: str = "images/{split}",
        masks: str = "masks/{split}",
        axis: Literal["axial", "coronal", "sagittal"] = "axial",
        neighbors: NonNegativeInt = 0,
        window: list[float] | None = None,
        percentiles: list[float] | None = None,
        spacing: PositiveFloat | None = None,
        skip_empty: bool = False,
        val: list[str] | None = None,
        test: list[str] | None = None,
        val_fraction: ProperShare = 0.2,
        test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        split_seed: NonNegativeInt = 0,
        group: str | None = None,
        block: PositiveInt = 8,
        gap: NonNegativeInt = 2,
    ) -> None:
        self.prepare()
        self._values = LabelValues(labels, colors, others, ignore)
        self.label_set = self._values.label_set
        self._slicing = Slicing(axis, neighbors, window, tuple(percentiles or (1.0, 99.0)), spacing)
        self.channels, self.intensity = self._slicing.channels, self._slicing.intensity
        self.split = split
        self._looked_at: set[int] = set()
        folder, folders = existing(root), "{split}" in images
        if folders:
            self.split = split_folder(folder, images, split)
        where = images.replace("{split}", self.split), masks.replace("{split}", self.split)
        pairs = match(folder, *where, self.image_items, self.mask_items)
        names = [pair.name for pair in pairs]
        self.group = group
        patients = [self.patient(folder / pair.image) if group == "auto" else None for pair in pairs]
        known = subjects(names, group, patients)
        one = not folders and len(names) == 1
        self.drawn = one or (not folders and val is None and test is None)
        if not folders and not one:
            if self.drawn:
                groups = by_subject(names, known, "volumes")
                shares = splits.draw(names, val_fraction, test_fraction, split_seed, groups, "volumes", splits.FOLDERS)
            else:
                shares = splits.listed(names, val, test, "volumes", splits.FOLDERS)
            self.split = "val" if split == "test" and not len(shares["test"]) else split
            pairs = [pairs[i] for i in shares[self.split]]
        self._names = [pair.name for pair in pairs]
        several = folders or (len(names) > 1 and len(set(known.values())) > 1)
        self.groups = {known[name]: name for name in self._names if name in known} if several else {}
        self._subjects = known
        self._images = [self.open_image(folder / pair.image) for pair in pairs]
        self.modality = self._one_modality()
        self._say_doubts()
        self._masks = [
            self.open_mask(folder / pair.mask, image) for pair, image in zip(pairs, self._images, strict=True)
        ]
        chosen: list[npt.NDArray[np.int64]] = []
        for image, mask in zip(self._images, self._masks, strict=True):
            check_same_voxels(image, mask)
            chosen.append(np.arange(image.length(axis)))
        if one:
            count = self._images[0].length(axis)
            blocks = [str(b) for b in range(-(-count // block))]
            what = f"blocks of {block} slices"
            mend = f"a smaller data.dataset.block, or {splits.FOLDERS}"
            shares = splits.draw(blocks, val_fraction, test_fraction, split_seed, what=what, otherwise=mend)
            self.split = "val" if split == "test" and not len(shares["test"]) else split
            chosen = [_of_blocks(shares, block, count, self.split, gap + 2 * neighbors)]
        if skip_empty and self.split == "train":
            chosen = [self._labelled(volume, indices) for volume, indices in enumerate(chosen)]
        # Arrays, not lists of pairs: nothing per sample that worker processes would copy on reference.
        self._volume_of = np.repeat(np.arange(len(chosen)), [len(indices) for indices in chosen])
        self._slice_of = np.concatenate(chosen)
        if not len(self._slice_of):
            why = "no slice has a labelled pixel" if skip_empty else f"blocks of {block} slices leave none"
            raise UserError(f"data.dataset: the split {self.split!r} is empty: {why}; check labels, block and gap")

    @abstractmethod
    def prepare(self) -> None:
        """Imports what the format needs.

        Raises:
            UserError: it is not installed.
        """

    def patient(self, image: Path) -> str | None:
        """Whom an image's header says it is of; None where it says nothing."""
        return None

    @abstractmethod
    def open_image(self, path: Path) -> Volume:
        """An image volume; voxels are not read yet."""

    @abstractmethod
    def open_mask(self, path: Path, image: Volume) -> Volume:
        """A label volume; voxels are not read yet."""

    def __len__(self) -> int:
        return len(self._slice_of)

    def name(self, index: int) -> str:
        """The volume's name and the number of the slice, from the left, the back or below."""
        return f"{self._names[self._volume_of[index]]}_{self._slice_of[index]:03}"

    def whole(self, index: int) -> str:
        """The volume that a sample is cut out of."""
        name: str = self._names[self._volume_of[index]]
        return name

    def place(self, index: int) -> tuple[int, tuple[float, float, float]]:
        """The number of a slice in its volume; and mm to the next slice, row and column of the volume's own voxels."""
        volume = self._images[self._volume_of[index]]
        axis = self._slicing.axis
        return int(self._slice_of[index]), (volume.slice_distance(axis), *volume.pixel_size(axis))

    def subject(self, index: int) -> str | None:
        """Whom its volume is of."""
        return self._subjects.get(self.whole(index))

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image [2 neighbors + 1, H, W] (int16 or float32 with a window, else uint16) and mask uint8 [H, W].

        With `spacing`, a training mask is resampled as its image is; a validation or test mask has the volume's own pixels,
        so another size than its image, since scores are those of what `predict` writes.
        """
        volume, at = int(self._volume_of[index]), int(self._slice_of[index])
        image = self._images[volume]
        if volume not in self._looked_at:
            self._looked_at.add(volume)
            if doubt := self._slicing.doubt(image):
                warn_once(f"{image.file}: is {doubt}", kind="no Hounsfield units")
        mask = self._slicing.mask(self._classes(volume, at), image, resampled=self.split == "train")
        return self._slicing.image(image, at), mask

    def _one_modality(self) -> str | None:
        """The modality of the images, None where the format has none.

        Raises:
            UserError: there are several, and a window, which is in one's units.
        """
        known = {image.modality: image.file for image in reversed(self._images) if image.modality is not None}
        if len(known) > 1 and self._slicing.window is not None:
            (one, file), (two, other), *_ = sorted(known.items())
            raise UserError(
                f"{other}: is {two} and {file} is {one}, but data.dataset.window is in one's units; keep one modality"
            )
        return next(iter(known)) if len(known) == 1 else None

    def _say_doubts(self) -> None:
        """Warns once of each kind of doubt that the headers leave."""
        kinds: dict[str, list[Volume]] = {}
        for image in self._images:
            for doubt in image.doubts:
                kinds.setdefault(doubt, []).append(image)
        for doubt, images in kinds.items():
            more = f" (and {len(images) - 1} more)" if len(images) > 1 else ""
            warn_once(f"{images[0].file}{more}: is {doubt}", kind=doubt)

    def _classes(self, volume: int, at: int) -> npt.NDArray[np.uint8]:
        label = self._masks[volume]
        return self._values.mask(label.slice(self._slicing.axis, at), label.file)

    def _labelled(self, volume: int, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        classes = range(1, self.label_set.num_classes)
        return np.array([i for i in indices.tolist() if np.isin(self._classes(volume, i), classes).any()], np.int64)


def _of_blocks(shares: splits.Shares, block: int, count: int, split: str, gap: int) -> npt.NDArray[np.int64]:
    """Slices of a split, given each one's blocks; of two splits that meet, the one that learns from its slices gives way."""
    own = np.repeat(np.isin(np.arange(-(-count // block)), shares[split]), block)[:count]
    for stronger in {"train": ("val", "test"), "val": ("test",)}.get(split, ()):
        for first in (shares[stronger] * block).tolist():
            own[max(0, first - gap) : min(first + block, count) + gap] = False
    return np.flatnonzero(own)
