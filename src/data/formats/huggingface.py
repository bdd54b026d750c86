"""`HuggingFace` reads a column of images and one of masks, from the hub or as its `datasets` library saved them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt
from torch import Tensor

from src.data.formats.folder import Color
from src.data.formats.huggingface_check import check_folder, check_reader, within
from src.data.labels import LabelSet, spread_colors
from src.data.layout import class_files, splits
from src.data.layout.patterns import existing
from src.data.layout.splits import ProperShare
from src.data.readers.images import Encoded, index_lookup, look_up, read_index_mask, read_pair
from src.data.samples import Split
from src.errors import UserError
from src.files.untrusted import read_json, shown
from src.optional_packages import needs

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_USUAL = {"train": ("train", "training"), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}
_IMAGES = ("image", "pixel_values", "img", "images")
_MASKS = ("mask", "label", "annotation", "labels", "segmentation_mask", "semantic_segmentation", "seg")
_NAMES_FILE = "id2label.json"  # what segmentation data sets of the hub carry their class names in
_ANSWERS_IN = 5  # seconds


class HuggingFace:
    """One split of a data set with an image and an index mask in each row.

    Rows stay in the library's memory-mapped Arrow files. No code of the data set is run. Without a test split, "test" is
    "val".

    Args:
        split: "train", "val" or "test".
        root: a name on the hub, a folder written by `save_to_disk`, or one of Parquet or Arrow files or the like.
        names: class names; None takes them from the mask's feature (`ClassLabel`), from `classes.yaml` in a local folder, or
            from the data set's `id2label.json`.
        colors: RGB of each class; None takes evenly spread hues.
        image, mask: columns; None takes the only one that can be meant.
        id: column of the samples' names; None counts.
        config, revision: of a data set on the hub.
        splits: what train, val and test are called there; None takes the usual names.
        first: the mask value of the first class; smaller ones are ignored.
        ignore: mask values that neither train nor count, beside 255.
        val_fraction: share of the training rows that is val, where the data set has none.
        split_seed: of that draw; the run's seed does not change it.

    Raises:
        UserError: it cannot be found or fetched, has no such columns or splits, or says nothing of its classes.
    """

    channels = 3
    intensity = (0.0, 255.0)

    def __init__(
        self,
        split: str,
        root: str,
        names: list[str] | None = None,
        colors: list[Color] | None = None,
        image: str | None = None,
        mask: str | None = None,
        id: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        splits: dict[Split, str] | None = None,
        first: NonNegativeInt = 0,
        ignore: list[Annotated[int, Field(ge=0, le=65535)]] | None = None,
        val_fraction: ProperShare | None = None,
        split_seed: NonNegativeInt = 0,
    ) -> None:
        library = needs("datasets", "huggingface")
        loaded = _load(library, root, config, revision)
        self.split, theirs = _place(loaded, split, splits, val_fraction)
        rows = loaded[theirs]
        image, mask = _columns(library, rows.features, image, mask)
        found = names or _names_in(rows.features[mask]) or _described(root, revision, first)
        chosen = colors or spread_colors(len(found))
        self.label_set = LabelSet(tuple(found), tuple((r, g, b) for r, g, b in chosen))
        ignored = self.label_set.ignore_index
        self._lookup = index_lookup(0, [*range(first), *(ignore or [])], ignored)
        self._lookup[first : first + len(found)] = range(len(found))
        self._lookup[list(ignore or [])] = ignored
        self.label_set = self.label_set.read_by(self._lookup)
        self._indices = np.arange(len(rows))
        self.drawn = val_fraction is not None and self.split != "test"
        if val_fraction and self.drawn:
            self._indices = _draw(len(rows), val_fraction, split_seed)[self.split]
        encoded = library.Image(decode=False)
        self._images = rows.select_columns([image]).cast_column(image, encoded)
        if isinstance(rows.features[mask], library.Image):
            self._masks = rows.select_columns([mask]).cast_column(mask, encoded)
        else:
            self._masks = rows.select_columns([mask]).with_format("numpy")
        if id is not None and id not in rows.features:
            raise UserError(f"data.dataset.id: there is no column {id!r}; columns: {', '.join(rows.features)}")
        self._names = None if id is None else rows.select_columns([id])
        self._image, self._mask, self._id = image, mask, id
        folder = Path(root).expanduser()
        self._folder = folder if folder.is_dir() else None

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        row = int(self._indices[index])
        return f"{row:06}" if self._names is None else shown(str(self._names[row][self._id]))

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, H, W] and mask uint8 [H, W]."""
        row = int(self._indices[index])
        name = f"data.root: row {row} ({self.name(index)})"
        image, mask = self._images[row][self._image], self._masks[row][self._mask]
        return read_pair(self._file(image, f"{name}: image"), self._classes(mask, f"{name}: mask"), f"{name}: mask")

    def _classes(self, mask: object, name: str) -> npt.NDArray[np.uint8]:
        if mask is None or isinstance(mask, Mapping):
            return read_index_mask(self._file(mask, name), self._lookup)
        values = np.asarray(mask)
        if values.ndim != 2 or values.dtype.kind not in "iu":
            raise UserError(
                f"{name}: holds {values.dtype} {list(values.shape)}, not one whole number a pixel; choose another column "
                "with data.dataset.mask"
            )
        return look_up(values, self._lookup, Encoded(name, b""))

    def _file(self, content: Any, name: str) -> Path | Encoded:
        if content is None:
            raise UserError(
                f"{name}: is missing; choose another column, or leave the split out with "
                "data.dataset.splits={train: …, val: …}"
            )
        if content["bytes"] is not None:
            return Encoded(name, content["bytes"])
        file = Path(content["path"] or "")
        if self._folder is not None and not within(file, self._folder):
            raise UserError(f"{name}: is the file {shown(str(file))}, which does not lie in {self._folder}; refused")
        return file


def _draw(count: int, val_fraction: float, seed: int) -> splits.Shares:
    """Rows of "train" and "val"."""
    return splits.draw([f"{row:09}" for row in range(count)], val_fraction, 0.0, seed, what="rows")


def _load(library: Any, root: str, config: str | None, revision: str | None) -> Mapping[str, Any]:
    """The splits by their own names."""
    folder = Path(root).expanduser()
    if not folder.is_dir() and not _HUB_NAME.fullmatch(root):
        existing(root)
    try:
        if folder.is_dir():
            check_folder(folder)
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            loaded = library.load_from_disk(str(folder))
        elif folder.is_dir():
            check_reader(library.load_dataset_builder(str(folder), config), folder)
            loaded = library.load_dataset(str(folder), config)
        else:
            _without_waiting(library)
            loaded = library.load_dataset(root, config, revision=revision)
    except UserError:
        raise
    except Exception as error:  # the library and pyarrow raise their own, and what a damaged description makes them
        reason = (shown(str(error)).strip().splitlines() or [type(error).__name__])[0][:200]
        mend = (
            "is the folder written by save_to_disk, or are there Parquet files in it?"
            if folder.is_dir()
            else "check the name and the network (and huggingface-cli login), or give a folder written by save_to_disk"
        )
        raise UserError(f"data.root: {root} cannot be loaded ({reason}); {mend}") from None
    return loaded if isinstance(loaded, Mapping) else {"train": loaded}


def _without_waiting(library: Any) -> None:
    """Where the hub does not answer, only what was fetched before counts: the library would retry for half a minute."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    hub = needs("huggingface_hub", "huggingface").constants
    try:
        urlopen(Request(hub.ENDPOINT, method="HEAD"), timeout=_ANSWERS_IN).close()
    except HTTPError:
        pass  # an answer
    except (URLError, OSError):
        hub.HF_HUB_OFFLINE = library.config.HF_HUB_OFFLINE = True


def _place(
    loaded: Mapping[str, object], split: str, called: Mapping[Any, str] | None, val_fraction: float | None
) -> tuple[str, str]:
    """The split that is read, and what it is called in the data set."""
    usual = called is None
    names = {s: ([called[s]] if s in called else []) if called is not None else [*_USUAL[s]] for s in _USUAL}
    theirs = {s: next((name for name in names[s] if name in loaded), None) for s in _USUAL}
    if val_fraction:
        theirs["val"] = theirs["train"]
    if split == "test" and theirs["test"] is None and (usual or not names["test"]):
        split = "val"
    if (found := theirs[split]) is None:
        wanted = f"no split {names[split][0]!r}" if not usual and names[split] else f"no split for {split}"
        raise UserError(
            f"data.dataset.splits: the data set has {wanted}, only {', '.join(loaded)}; say which is which, e.g. "
            "data.dataset.splits={train: …, val: …}"
            + (", or draw val from train with data.dataset.val_fraction=0.1" if split == "val" else "")
        )
    return split, found


def _columns(library: Any, features: Mapping[str, object], image: str | None, mask: str | None) -> tuple[str, str]:
    pictures = [name for name, feature in features.items() if isinstance(feature, library.Image)]
    image = image or next((n for n in (*_IMAGES, *pictures) if n in pictures), None)
    others = [name for name in pictures if name != image]
    mask = mask or next((n for n in _MASKS if n in features), None) or (others[0] if len(others) == 1 else None)
    for key, name in (("image", image), ("mask", mask)):
        if name not in features:
            said = f"there is no column {name!r}" if name else "cannot tell which column it is"
            raise UserError(f"data.dataset.{key}: {said}; columns: {', '.join(features)}")
    assert image is not None and mask is not None
    if image not in pictures:
        raise UserError(
            f"data.dataset.image: the column {image!r} holds no images; those that do: {', '.join(pictures)}"
        )
    return image, mask


def _names_in(feature: Any) -> list[str] | None:
    """Class names that a feature carries: `ClassLabel`, also inside lists."""
    while feature is not None:
        if getattr(feature, "names", None):
            return list(feature.names)
        feature = getattr(feature, "feature", None)
    return None


def _described(root: str, revision: str | None, first: int) -> list[str]:
    """Class names from a file beside the data.

    Raises:
        UserError: there is none, or it leaves numbers out.
    """
    folder = Path(root).expanduser()
    file: Path | None = folder / _NAMES_FILE
    if folder.is_dir():
        if (found := class_files.described(folder)) is not None:
            return found.names
    else:
        hub = needs("huggingface_hub", "huggingface")
        try:
            file = Path(hub.hf_hub_download(root, _NAMES_FILE, repo_type="dataset", revision=revision))
        except (OSError, ValueError, hub.errors.HfHubHTTPError):
            file = None
    if file is None or not file.is_file():
        raise UserError(
            f"data.dataset.names: {root} does not say what its classes are called; say data.dataset.names=[background,road,…]"
        )
    try:
        by_value = {int(value): str(name) for value, name in read_json(file, links=True).items()}
    except (ValueError, AttributeError):
        raise UserError(f"{file}: is no mapping of values to names; give data.dataset.names") from None
    values = sorted(value for value in by_value if value >= first)
    if not values or values != list(range(first, first + len(values))):
        raise UserError(f"{file}: leaves values out or names none; give data.dataset.names and data.dataset.first")
    return [by_value[value] for value in values]
