"""`Folder` reads images and masks in folders, the format of most people's own data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor

from src.data.formats.paired import Paired
from src.data.labels import LabelSet, spread_colors
from src.data.layout import class_files, exports, pairs, patterns, splits
from src.data.layout.file_list import FileList
from src.data.layout.splits import ProperShare
from src.data.readers.color_masks import ColorTable
from src.data.readers.images import (
    INDEX_MODES,
    JPEG_SUFFIXES,
    MASK_SUFFIXES,
    open_picture,
    read_index_mask,
)
from src.data.readers.label_values import class_lookup, tolerant
from src.data.samples import Split
from src.errors import UserError

_log = logging.getLogger(__name__)
_PLACES = {"images": "images/{split}", "masks": "masks/{split}"}
_VAL_SHARE = 0.2  # of a tool's export that nothing splits

Color = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]


class Folder(Paired):
    """One split of a data set whose image `<images>/<name>.*` has its mask in `<masks>/<name><mask_suffix>.png|tif`.

    The splits are folders (`{split}` in `images` and `masks`, or one pattern for each), or text files (`lists`), or are
    drawn from the training images (`val_fraction`, `test_fraction`). Without a test split, "test" reads "val". Where the
    root has not the plain layout and none is described, that of a labelling tool's export is looked for (`layouts`).

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        names: class names; None reads names and colours from `classes.yaml` or `classes.json` in the root, or from what a
            labelling tool wrote (`classes.txt`, `labelmap.txt`, `_classes.csv`), or takes those of `values`. A single name
            gets a background, of value 0, before it.
        colors: RGB of each class; None takes evenly spread hues.
        images, masks: folders or glob patterns below the root; `{split}` stands for the split's name. Or one for each
            split: `{train: …, val: …}`.
        mask_suffix: what a mask's name has behind the image's.
        ignore: values of index masks that neither train nor count.
        mask_format: "index" reads a pixel's value as the class, "rgb" its colour, of palette images the palette's;
            "auto" takes rgb where the split's first mask is an RGB image and there are colours to go by.
        ignore_colors: colours of RGB masks that neither train nor count.
        lists: text files below the root, e.g. "{split}.txt"; on each line an image and a mask, or a name.
        val_fraction, test_fraction: share of the training images that is val or test.
        split_seed: of that draw; the run's seed does not change it.
        group: regular expression; images in whose names its first group is the same stay in one split.
        depths: folders or patterns of depth maps (PNG or TIFF, one value a pixel, 0 where unknown) named as the images.
        depth_scale: from their values to the unit of distance; 0.001 for millimetres.
        values: of index masks, each class's value or values, e.g. {background: 0, crack: 255}; None takes class k as k.
            On the command line {0: background, 255: crack} is the same.
        reduce_zero_label: index masks have 0 for ignored pixels and class k as k + 1.
        tolerance: of masks that are JPEG: how far a pixel may be from its class's value or colour. 0 reads no JPEG masks.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image, a file cannot be read, sizes
            differ, a mask has a value or a colour that is neither a class nor ignored, keys contradict each other.
    """

    def __init__(
        self,
        split: str,
        root: str,
        names: list[str] | None = None,
        colors: list[Color] | None = None,
        images: str | dict[Split, str] = "images/{split}",
        masks: str | dict[Split, str] = "masks/{split}",
        mask_suffix: str = "",
        ignore: list[Annotated[int, Field(ge=0, le=65535)]] | None = None,
        mask_format: Literal["auto", "index", "rgb"] = "auto",
        ignore_colors: list[Color] | None = None,
        lists: str | None = None,
        val_fraction: ProperShare | None = None,
        test_fraction: ProperShare | None = None,
        split_seed: NonNegativeInt = 0,
        group: str | None = None,
        depths: str | dict[Split, str] | None = None,
        depth_scale: PositiveFloat = 0.001,
        values: dict[str, NonNegativeInt | list[NonNegativeInt]] | None = None,
        reduce_zero_label: bool = False,
        tolerance: Annotated[int, Field(ge=0, le=127)] = 0,
    ) -> None:
        folder = patterns.existing(root)
        if (layout := _layout(folder, images, masks, mask_suffix, lists)) is not None:
            images, masks, mask_suffix, lists = layout.images, layout.masks, layout.mask_suffix, layout.lists
            if layout.one_for_all and not (val_fraction or test_fraction):
                val_fraction = _VAL_SHARE
            if layout.by_color and mask_format == "auto" and colors is None and names is None:
                mask_format = "rgb"
            if split == "train":
                drawn_val = f"; val is a drawn share of {val_fraction}" if layout.one_for_all else ""
                _log.info("%s is %s%s", folder, layout.tool, drawn_val)
        self.layout = "" if layout is None else layout.tool
        drawn = {"train": 1.0, "val": val_fraction or 0.0, "test": test_fraction or 0.0}
        draws = bool(val_fraction or test_fraction)
        if group is not None and not draws:
            raise UserError(
                "data.dataset.group: keeps images together where splits are drawn; give data.dataset.val_fraction with it"
            )
        place = lists if lists is not None else images
        one_for_all = isinstance(place, str) and "{split}" not in place
        if isinstance(place, dict) and "val" not in place and draws:
            place = {**place, "val": place.get("train", "")}
        if split == "val" and one_for_all and not val_fraction:
            raise UserError(
                f"data.dataset.{'lists' if lists else 'images'}: train and val would be the same images; put {{split}} into "
                "it, give one for each split, or draw val with data.dataset.val_fraction=0.1"
            )
        if split == "test" and not drawn["test"]:
            missing = draws if one_for_all else not _has(folder, place, "test", is_list=lists is not None)
            split = "val" if missing else "test"
        labels, has_colors, values = _classes(folder, names, colors, values)
        lies_in = "train" if drawn[split] else split
        where = _of(images, lies_in, "images"), _of(masks, lies_in, "masks")
        items = patterns.Items(MASK_SUFFIXES + (JPEG_SUFFIXES if tolerance else ()), tail=mask_suffix)
        if lists is None:
            found = pairs.match(folder, *where, mask_items=items)
        else:
            found = pairs.read_list(folder, folder / _of(lists, lies_in, "lists"), *where, items)
        self.drawn = draws and lies_in == "train"
        if self.drawn:
            found = sorted(found)
            keys = [pair.name for pair in found]
            groups = splits.grouped(keys, group)
            shares = splits.draw(keys, drawn["val"], drawn["test"], split_seed, groups, otherwise=splits.FOLDERS)
            found = [found[i] for i in shares[split]]
        lookup = class_lookup(labels, values, ignore or [], reduce_zero_label)
        if tolerance and mask_format != "rgb":
            lookup = tolerant(lookup, tolerance)
        super().__init__(folder, split, labels, found, lookup)
        self._depths = self._find_depths(folder, None if depths is None else _of(depths, lies_in, "depths"))
        self._depth_scale = depth_scale
        self._by_color = self._goes_by_color(mask_format, has_colors)
        # Where nobody said how palettes are meant, one that contradicts the colours is refused.
        doubtful = mask_format == "auto" and has_colors and not self._by_color
        table = (labels, ignore_colors or [], tolerance if self._by_color else 0)
        self._colors = ColorTable(*table) if self._by_color or doubtful else None

    def depth(self, index: int) -> Tensor | None:
        """Distances float32 [H, W], NaN where the file has 0."""
        if self._depths is None:
            return None
        file = self._depths.path(index)
        with open_picture(file, "a depth map") as image:
            if image.mode not in INDEX_MODES:
                raise UserError(f"{file}: depth map is {image.mode}, not one value a pixel; convert it to 16-bit PNG")
            values = np.array(image, np.float32)
        values[values == 0] = np.nan
        return torch.from_numpy(values * np.float32(self._depth_scale))

    def _find_depths(self, root: Path, place: str | None) -> FileList | None:
        if place is None:
            return None
        found = patterns.find(root, place, pairs.MASKS)
        names = [self._names[i] for i in range(len(self._names))]
        missing = next((name for name in names if name not in found), None)
        if missing is not None:
            raise UserError(f"{root / place}: no depth map for {missing!r}; add it, or leave data.dataset.depths out")
        return FileList(root, (found[name] for name in names))

    def _read_mask(self, file: Path) -> npt.NDArray[np.uint8]:
        if self._colors is None:
            return read_index_mask(file, self._lookup)
        if self._by_color:
            return self._colors.read(file)
        with open_picture(file, "a mask") as image:
            reason = self._colors.contradicted_by(image)
        if reason is not None:
            raise UserError(f"{file}: {reason}; say which counts: data.dataset.mask_format=index or rgb")
        return read_index_mask(file, self._lookup)

    def _goes_by_color(self, mask_format: str, has_colors: bool) -> bool:
        if mask_format == "rgb" and not has_colors:
            raise UserError(
                "data.dataset.mask_format: rgb needs the classes' colours; give data.dataset.colors, or a classes.yaml with "
                "colours in the root"
            )
        if mask_format == "auto" and has_colors:
            with open_picture(self._masks.path(0), "a mask") as image:
                return image.mode in ("RGB", "RGBA")
        return mask_format == "rgb"


def _layout(
    root: Path,
    images: exports.Place | Mapping[Split, str],
    masks: exports.Place | Mapping[Split, str],
    suffix: str,
    lists: str | None,
) -> exports.Layout | None:
    """What lies in the root, where it is not the plain layout and nobody said what it is.

    Raises:
        UserError: it is an export whose annotations are no masks; says what reads it.
    """
    if lists is not None or suffix or {"images": images, "masks": masks} != _PLACES:
        return None
    other_val = not (root / "images/val").is_dir() and any(
        (root / "images" / v).is_dir() for v in ("valid", "validation")
    )
    if all((root / _of(place, "train", "")).is_dir() for place in _PLACES.values()) and not other_val:
        return None
    found = exports.recognise(root)
    if found is None and (other := exports.other_format(root)) is not None:
        raise UserError(
            f"data.root: {root} is an export of {other[0]}, which data={other[1]} reads; take data={other[1]}"
        )
    if found is None:
        exports.check_names_photos(root)
    return found


def _classes(
    root: Path,
    names: list[str] | None,
    colors: Sequence[Sequence[int]] | None,
    values: dict[str, int | list[int]] | None,
) -> tuple[LabelSet, bool, dict[str, int | list[int]] | None]:
    """The label set, whether its colours were given, and the classes' values where they are not their numbers."""
    if names is None and values is not None:
        names = list(values)
    if names is None:
        described = class_files.described(root) or class_files.of_tool(root)
        if described is None:
            raise UserError(
                "data.dataset.names: must be given; say data.dataset.names=[background,road,…], or put a classes.yaml with "
                f"names and colours into {root}"
            )
        names, colors = described.names, colors or described.colors
        if described.values is not None:
            values = dict(described.values)
            names = sorted(names, key=described.values.__getitem__)
    if len(names) == 1 and names != ["background"]:
        names = ["background", *names]
        colors = colors if colors is None or len(colors) != 1 else [[0, 0, 0], *colors]
        values = values if values is None or "background" in values else {"background": 0, **values}
    chosen = colors or spread_colors(len(names))
    label_set = LabelSet(tuple(names), tuple((int(r), int(g), int(b)) for r, g, b in chosen))
    return label_set, bool(colors), values


def _has(root: Path, place: str | Mapping[Split, str], split: Split, is_list: bool) -> bool:
    pattern = place.replace("{split}", split) if isinstance(place, str) else place.get(split)
    if pattern is None:
        return False
    return (root / pattern).is_file() if is_list else patterns.exists(root, pattern)


def _of(place: str | Mapping[Split, str], split: str, key: str) -> str:
    """Where a split lies."""
    if isinstance(place, str):
        return place.replace("{split}", split)
    for name, pattern in place.items():
        if name == split:
            return pattern
    raise UserError(f"data.dataset.{key}: says nothing of {split}; add {split}: …")
