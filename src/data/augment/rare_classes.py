"""`RareClasses` draws training samples by the classes that they show (DAFormer, Hoyer et al. 2022)."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.augment.transforms import LEAST
from src.data.sources import Source
from src.data.threads import in_order
from src.files.atomic import write_atomically
from src.files.untrusted import open_regular
from src.seeding import derive


class RareClasses:
    """Draws a class, the rarer the likelier, and a training image that shows it.

    With f_c the share of the labelled pixels that class c has, P(c) is proportional to exp((1 - f_c) / T). Images are
    drawn evenly among those in which the class has at least 0.15% of the pixels (of a class that has so many nowhere,
    among all that show it). A draw is a function of the seed and its number alone.

    Args:
        pixels: of each class in each image, int [N, K].
        seed: the run's seed.
        temperature: T; 0.01 in the paper; the larger, the more evenly over classes.
    """

    def __init__(self, pixels: npt.NDArray[np.integer], seed: int, temperature: float) -> None:
        self.seed = seed
        total = pixels.sum(axis=0, dtype=np.int64)
        rarity = (1 - total / total.sum()) / temperature
        chance = np.where(total > 0, np.exp(rarity - rarity.max()), 0.0)
        self.chance: npt.NDArray[np.float64] = chance / chance.sum()
        self._up_to = np.cumsum(self.chance)
        least = LEAST * pixels.sum(axis=1, keepdims=True)
        shown = pixels >= np.maximum(least, 1)
        shown |= (pixels > 0) & ~shown.any(axis=0)
        # The images of each class in one array: nothing per sample that worker processes would copy.
        self._images = np.nonzero(shown.T)[1].astype(np.int32)
        self._ends = np.cumsum(shown.sum(axis=0))

    def draw(self, number: int) -> tuple[int, int]:
        """Class and index of an image that shows it."""
        both = derive(self.seed, "rare class", number)
        chosen = int(np.searchsorted(self._up_to, (both & 0x7FFFFFFF) / 2**31 * self._up_to[-1], side="right"))
        begin, end = (int(self._ends[chosen - 1]) if chosen else 0), int(self._ends[chosen])
        return chosen, int(self._images[begin + (both >> 31) % (end - begin)])


def pixels_by_class(source: Source, keep: Path | None = None) -> npt.NDArray[np.int32]:
    """Labelled pixels of each class in each image, int32 [N, K].

    Args:
        source: the training samples.
        keep: a file that they are read from if it is there and fits, else written to.
    """
    shape = (len(source), source.label_set.num_classes)
    names = json.dumps(source.label_set.names)
    if (known := _counted_before(keep, shape, names)) is not None:
        return known
    pixels = np.zeros(shape, np.int32)

    def count(index: int) -> npt.NDArray[np.int64]:
        return np.bincount(source.read(index)[1].numpy().ravel(), minlength=256)[: shape[1]]

    for index, counts in enumerate(in_order(count, range(len(source)))):
        pixels[index] = counts
    if keep is not None:
        # each rank writes its own, and one stays
        write_atomically(keep, lambda file: np.savez_compressed(file, pixels=pixels, names=names))
    return pixels


def _counted_before(keep: Path | None, shape: tuple[int, int], names: str) -> npt.NDArray[np.int32] | None:
    """What is in the file, int32 [N, K]; None where it is not there or is of other data. It may be a stranger's."""
    if keep is None:
        return None
    try:
        with open_regular(keep) as file, zipfile.ZipFile(file) as parts:
            if sum(part.file_size for part in parts.infolist()) > shape[0] * shape[1] * 4 + len(names) * 4 + 4096:
                return None
            file.seek(0)
            with np.load(file, allow_pickle=False) as kept:
                pixels, of = kept["pixels"], str(kept["names"])
    except (FileNotFoundError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
        return None
    fits = pixels.shape == shape and pixels.dtype == np.int32 and of == names and bool((pixels >= 0).all())
    return pixels if fits else None
