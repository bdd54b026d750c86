"""`Instances` paints COCO's outlines of things into one mask an image."""

from __future__ import annotations

import contextlib
import difflib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.formats.coco_check import check_annotations, check_segmentation, plain_name, read_annotations
from src.data.formats.coco_layouts import Export, locate
from src.data.labels import LabelSet, voc_colors
from src.data.layout.class_files import check_names
from src.data.layout.file_list import FileList
from src.errors import UserError
from src.files.untrusted import shown


class Instances:
    """Masks from `annotations/instances_<part>.json`, painted when they are asked for.

    Class 0 is the background, the others are the categories in the order of their ids. Where things overlap, the one of
    fewer pixels is on top (of equals the one of the higher id): a tie lies on a person, a fork on a table. Crowd regions are
    ignored where no single thing is outlined in them.

    Args:
        root: the data set's folder.
        part: "train2017" or "val2017".
        photos: the images' folder below `root`.
        classes: names of the categories to take, in order; None takes all.
        min_area: images whose things have together no more pixels than this are left out; 0 keeps all, empty ones too.
        export: where one's own annotations lie; None for COCO's release. What tools add to it is understood: an image's
            `file_name` may be a path, and Roboflow's category 0, the name of the whole set, is none.
        names: of an export: the categories that another split of it has, which are this one's too.

    Raises:
        UserError: pycocotools or the file is missing, or the file is not COCO's format.
    """

    def __init__(
        self,
        root: Path,
        part: str,
        photos: str,
        classes: list[str] | None,
        min_area: int,
        export: Export | None = None,
        names: list[str] | None = None,
    ) -> None:
        self._file = root / "annotations" / f"instances_{part}.json" if export is None else export.file
        self._coco = _load(self._file)
        try:
            categories = sorted(self._coco.loadCats(self._coco.getCatIds()), key=lambda c: c["id"])
            ids = {str(category["name"]): int(category["id"]) for category in categories}
            known = set(ids.values())
            if export is not None:
                ids = _own(categories, {annotation["category_id"] for annotation in self._coco.anns.values()})
                check_names(self._file, list(ids))
                if names is not None and (strange := next((name for name in ids if name not in names), None)):
                    raise UserError(
                        f"{self._file}: has the category {shown(strange, 60)!r}, which the training file lacks; export both "
                        "with the same categories"
                    )
            chosen = (names or list(ids)) if classes is None else classes
            for name in chosen:
                if name not in ids and name not in (names or ()):
                    close = difflib.get_close_matches(name, ids, n=1)
                    hint = f", did you mean {close[0]!r}?" if close else f"; it has {', '.join(ids)}"
                    raise UserError(f"data.dataset.classes: {self._file} has no category {name!r}{hint}")
            self._class_of = {ids[name]: k for k, name in enumerate(chosen, 1) if name in ids}
            for annotation in self._coco.anns.values():
                if annotation["category_id"] not in known:
                    raise UserError(
                        f"{self._file}: annotation {annotation['id']} is of category {annotation['category_id']}, which "
                        "the file does not name; correct the file"
                    )
            images = [i for i in sorted(self._coco.imgs) if not min_area or self._area(i) > min_area]
            self._ids = np.array(images, np.int64)
            if export is None:
                for i in images:
                    plain_name(self._coco.imgs[i].get("file_name"), self._file)
                self.images = FileList(root, (f"{photos}/{self._coco.imgs[i]['file_name']}" for i in images))
            else:
                names_ = (self._coco.imgs[i]["file_name"] for i in images)
                self.images = FileList(root, [locate(root, export.photos, name, self._file) for name in names_])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self._file}: is not in COCO's format ({type(error).__name__}: {error}); correct or replace it"
            ) from None
        colors = voc_colors(len(chosen) + 1)
        self.label_set = LabelSet(("background", *chosen), tuple((r, g, b) for r, g, b in colors))
        if not len(self._ids):
            raise UserError(f"{self._file}: no image is left of {len(self._coco.imgs)}; the split is empty")
        if export is None:
            _check_present(self.images, self._file)

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._file,)

    def read_mask(self, index: int) -> npt.NDArray[np.uint8]:
        from pycocotools import mask as rle

        image = self._coco.imgs[int(self._ids[index])]
        mask = np.zeros((int(image["height"]), int(image["width"])), np.uint8)
        things: list[tuple[bool, int, int, int, Any]] = []
        for annotation in self._annotations(int(self._ids[index])):
            outline = self._outline(annotation, mask.shape)
            crowd, value = bool(annotation.get("iscrowd", 0)), self._class_of[annotation["category_id"]]
            things.append((not crowd, -int(rle.area(outline)), int(annotation["id"]), value, outline))
        for single, _, _, value, outline in sorted(things, key=lambda thing: thing[:3]):
            mask[rle.decode(outline) > 0] = value if single else self.label_set.ignore_index
        return mask

    def mask_name(self, index: int) -> str:
        return f"{self._file} image {self._ids[index]}"

    def _annotations(self, image_id: int) -> list[dict[str, Any]]:
        found = self._coco.imgToAnns.get(image_id, [])  # not [image_id], which would add to pycocotools' defaultdict
        return [annotation for annotation in found if annotation["category_id"] in self._class_of]

    def _area(self, image_id: int) -> float:
        return float(sum(annotation["area"] for annotation in self._annotations(image_id)))

    def _outline(self, annotation: dict[str, Any], shape: tuple[int, ...]) -> Any:
        """The annotation as pycocotools' run-length code."""
        given = annotation.get("segmentation")
        try:
            check_segmentation(given, *shape)
            outline = self._coco.annToRLE(annotation)
            if list(outline["size"]) != list(shape):
                raise ValueError(f"its size is {list(outline['size'])}, the image's {list(shape)}")
        except Exception as error:  # pycocotools raises bare Exceptions
            reason = (
                "it is missing or empty" if not given else (str(error).splitlines() or [type(error).__name__])[0][:120]
            )
            raise UserError(
                f"{self._file}: annotation {annotation['id']} of image {annotation['image_id']} has no good segmentation "
                f"({reason}); correct or remove it"
            ) from None
        return outline


def _own(categories: list[dict[str, Any]], used: set[int]) -> dict[str, int]:
    """Ids of an export's categories by name; without Roboflow's first, which is the others' supercategory and labels nothing,
    and without one called background, which is what nothing is drawn on."""
    above = {category.get("supercategory") for category in categories}
    return {
        str(category["name"]): int(category["id"])
        for category in categories
        if not (category["id"] not in used and category.get("supercategory") == "none" and category["name"] in above)
        and str(category["name"]).lower() != "background"
    }


def category_names(file: Path) -> list[str]:
    """The classes of an export's annotation file, in the order of their ids."""
    coco = _load(file)
    categories = sorted(coco.loadCats(coco.getCatIds()), key=lambda category: category["id"])
    return list(_own(categories, {annotation["category_id"] for annotation in coco.anns.values()}))


def _load(file: Path) -> Any:
    try:
        from pycocotools.coco import COCO
    except ImportError:
        raise UserError(
            'data.dataset.kind: instances are read by pycocotools, which is not installed; pip install -e ".[coco]"'
        ) from None
    if not file.is_file():
        raise UserError(
            f"{file}: is missing; unpack COCO's annotations_trainval2017.zip into {file.parent.parent}, or check data.root"
        )
    content = read_annotations(file)
    check_annotations(content, file)
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it does
        coco.createIndex()
    if not (coco.imgs and coco.cats):
        raise UserError(f"{file}: names no images or no categories; it is not in COCO's format")
    return coco


def _check_present(images: FileList, listed_in: Path) -> None:
    there: dict[Path, set[str]] = {}
    for index in range(len(images)):
        file = images.path(index)
        if file.parent not in there:
            there[file.parent] = {f.name for f in file.parent.iterdir()} if file.parent.is_dir() else set()
        if file.name not in there[file.parent]:
            raise UserError(f"{file}: this image of {listed_in} is missing; unpack the images again")
