"""`Panoptic` reads COCO's PNGs whose colours number segments, and the JSON that says what each segment is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.formats.coco_check import plain_name, read_annotations
from src.data.labels import LabelSet, voc_colors
from src.data.layout.file_list import FileList
from src.data.readers.images import open_picture
from src.errors import UserError
from src.files.untrusted import shown


class Panoptic:
    """Masks from `annotations/panoptic_<part>.json` and the PNGs of `annotations/panoptic_<part>/` (or of
    `<root>/panoptic_<part>/`).

    Classes are the categories in the order of their ids, stuff and things alike. Pixels of no segment (number 0) and crowd
    segments are ignored.

    Raises:
        UserError: the file or a folder is missing, or the file is not COCO's format.
    """

    def __init__(self, root: Path, part: str, photos: str) -> None:
        self._file = root / "annotations" / f"panoptic_{part}.json"
        places = (f"annotations/panoptic_{part}", f"panoptic_{part}")
        folder = next((place for place in places if (root / place).is_dir()), None)
        if folder is None or not self._file.is_file():
            missing = self._file if folder is not None else root / places[0]
            raise UserError(f"{missing}: is missing; unpack COCO's panoptic_annotations_trainval2017.zip into {root}")
        try:
            content = read_annotations(self._file)
            categories = sorted(content["categories"], key=lambda category: int(category["id"]))
            class_of = {int(category["id"]): k for k, category in enumerate(categories)}
            names = tuple(str(category["name"]) for category in categories)
            colors = [category.get("color") for category in categories]
            photo_of = {image["id"]: plain_name(image["file_name"], self._file) for image in content["images"]}
            annotations = sorted(content["annotations"], key=lambda annotation: str(annotation["file_name"]))
            self.images = FileList(root, (f"{photos}/{photo_of[a['image_id']]}" for a in annotations))
            self._masks = FileList(root, (f"{folder}/{plain_name(a['file_name'], self._file)}" for a in annotations))
            segments = [s for a in annotations for s in a["segments_info"]]
            # Three numbers a segment in arrays, in the order of the images; a million dicts would go to every worker.
            self._segments = np.array([int(s["id"]) for s in segments], np.uint32)
            ignored = LabelSet.ignore_index
            self._classes = np.array(
                [ignored if s.get("iscrowd") else class_of[int(s["category_id"])] for s in segments], np.uint8
            )
            self._ends = np.cumsum([len(a["segments_info"]) for a in annotations])
            shades = [tuple(map(int, color)) for color in (colors if all(colors) else voc_colors(len(names)))]
            if any(len(shade) != 3 or not all(0 <= part <= 255 for part in shade) for shade in shades):
                raise ValueError("a colour that is not three numbers of 0 to 255")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason = shown(f"{type(error).__name__}: {error}", 120)
            raise UserError(f"{self._file}: is not in COCO's format ({reason}); fetch it again") from None
        if not len(self._masks):
            raise UserError(f"{self._file}: names no annotated image; the split is empty")
        self.label_set = LabelSet(names, tuple((r, g, b) for r, g, b in shades))

    def files(self, index: int) -> tuple[Path, ...]:
        return self._masks.path(index), self._file

    def read_mask(self, index: int) -> npt.NDArray[np.uint8]:
        file = self._masks.path(index)
        with open_picture(file, "a panoptic mask") as image:
            pixels = np.asarray(image.convert("RGB")).astype(np.uint32)
        numbers, places = np.unique(pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2], return_inverse=True)
        begin = self._ends[index - 1] if index else 0
        known = dict(
            zip(
                self._segments[begin : self._ends[index]].tolist(),
                self._classes[begin : self._ends[index]].tolist(),
                strict=True,
            )
        )
        known[0] = self.label_set.ignore_index
        for number in numbers.tolist():
            if number not in known:
                raise UserError(f"{file}: segment {number} is not in {self._file}; fetch both again, they do not fit")
        mask: npt.NDArray[np.uint8] = np.array([known[number] for number in numbers.tolist()], np.uint8)[
            places.reshape(pixels.shape[:2])
        ]
        return mask

    def mask_name(self, index: int) -> str:
        return str(self._masks.path(index))
