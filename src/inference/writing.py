"""What a prediction is told to write, where each file of it lies, and which of them are there already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.data.labels import LabelSet, OwnIds
from src.data.windows import Window
from src.files.atomic import replacing
from src.files.pictures import save_picture, save_strips
from src.inference.drawing import overlay

Vectors = Literal["geojson", "coco", "coco_rle", "labelme", "gpkg"]
_STRIP = 2**19  # pixels of an overlay that are blended at a time, which takes a hundred bytes each


@dataclass(frozen=True, kw_only=True)
class Writing:
    """What is written of each input.

    Attributes:
        folder: below it lie `masks/`, `overlays/` and the others.
        opacity: of the colours in overlays; None writes none.
        uncertainty: whether uncertainty maps are written.
        probabilities: whether the probability of each class is.
        vectors: forms of outlines.
        video_masks: whether the mask of each frame of a video is.
        ids: what masks have for each class; None is its number.
    """

    folder: Path
    opacity: float | None = 0.5
    uncertainty: bool = False
    probabilities: bool = False
    vectors: tuple[Vectors, ...] = ()
    ids: OwnIds | None = None
    video_masks: bool = False

    def folders(self) -> list[Path]:
        """Those that every input writes to."""
        asked: dict[str, bool] = {"masks": True, "overlays": self.opacity is not None, "uncertainty": self.uncertainty,
                 "probabilities": self.probabilities, **{str(form): True for form in self.vectors}}  # fmt: skip
        return [self.folder / name for name, wanted in asked.items() if wanted]

    def mask(self, name: str, suffix: str) -> Path:
        """The mask's file. It is written last: where it is there, so is all that was asked for with it."""
        return self.folder / "masks" / f"{name}{suffix}"

    def overlay(self, name: str) -> Path:
        return self.folder / "overlays" / f"{name}.png"

    def uncertainty_map(self, name: str, kind: str, suffix: str) -> Path:
        return self.folder / "uncertainty" / f"{name}_{kind}{suffix}"

    def probability(self, name: str, suffix: str) -> Path:
        """The probabilities' file; of photos, whose masks are PNG, a NumPy array."""
        return self.folder / "probabilities" / f"{name}{'.npy' if suffix == '.png' else suffix}"

    def video(self, name: str) -> Path:
        return self.folder / "videos" / f"{name}.mp4"

    def vector(self, name: str, form: Vectors) -> Path:
        suffix = {"geojson": ".geojson", "gpkg": ".gpkg"}.get(form, ".json")
        return self.folder / form / f"{name}{suffix}"

    def expected(self, name: str, suffix: str) -> list[Path]:
        """The files of an input; beside them there may be further uncertainty maps, and those of tasks."""
        files = [self.mask(name, suffix)]
        if self.opacity is not None:
            files.append(self.overlay(name))
        if self.uncertainty:
            files.append(self.uncertainty_map(name, "entropy", suffix))
        if self.probabilities:
            files.append(self.probability(name, suffix))
        return files + [self.vector(name, form) for form in self.vectors]


def save_mask(mask: npt.NDArray[np.uint8], labels: LabelSet, ids: OwnIds | None, file: Path) -> None:
    """Writes class numbers [H, W], or their ids, as PNG; with the palette, but for ids of 16 bits.

    Raises:
        OSError: it cannot be written.
    """
    picture = Image.fromarray(mask if ids is None else ids.of(mask))
    if picture.mode == "L":
        palette = labels.palette()
        picture.putpalette((palette if ids is None else ids.by_value(palette)).tobytes())
    save_picture(picture, file)


def save_overlay(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], labels: LabelSet, opacity: float, file: Path
) -> None:
    """Writes the mask's colours over a picture [H, W, 3] as PNG, blended strip by strip.

    Raises:
        OSError: it cannot be written.
    """
    height, width = mask.shape
    rows = max(1, _STRIP // width)
    strips = (
        overlay(image[top : top + rows], mask[top : top + rows], labels, opacity) for top in range(0, height, rows)
    )
    save_strips(strips, height, width, file)


class ProbabilityFile:
    """A NumPy array float16 [K, H, W] that is written part by part, without the whole of it in memory.

    Args:
        file: what is written to.
        classes, height, width: its shape.
    """

    def __init__(self, file: Path, classes: int, height: int, width: int) -> None:
        self._shape = (classes, height, width)
        self._stream = file.open("wb")
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)),
            "fortran_order": False,
            "shape": self._shape,
        }
        np.lib.format.write_array_header_1_0(self._stream, header)
        self._begin = self._stream.tell()
        self._stream.truncate(self._begin + 2 * classes * height * width)

    def put(self, area: Window, values: npt.NDArray[np.float16]) -> None:
        """Writes [K, h, w] where `area` lies.

        Raises:
            OSError: the disk is full.
        """
        _, height, width = self._shape
        for k, plane in enumerate(values):
            lines = [plane] if area.width == width else plane
            for row, line in enumerate(lines):
                self._stream.seek(self._begin + 2 * ((k * height + area.top + row) * width + area.left))
                self._stream.write(np.ascontiguousarray(line).data)

    def close(self) -> None:
        self._stream.close()


@contextlib.contextmanager
def probability_file(file: Path, classes: int, height: int, width: int) -> Iterator[ProbabilityFile]:
    """A `ProbabilityFile` that gets its name once it is whole.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(file) as partial:
        sink = ProbabilityFile(partial, classes, height, width)
        try:
            yield sink
        finally:
            sink.close()
