"""What `input=` of prediction names: the files and folders to segment, what each one's output is called, what is left out."""

# Of names that are too long or lie behind a locked door os.path says no, where a Path's methods raise.
# ruff: noqa: PTH110, PTH111, PTH112, PTH113, PTH116

from __future__ import annotations

import glob
import importlib.util
import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from src.data.formats import geotiff, nifti
from src.data.layout import not_read
from src.data.readers import dicom_series
from src.data.readers.images import IMAGE_SUFFIXES
from src.errors import UserError
from src.files.untrusted import shown

# folders that prediction writes
OUTPUTS = (
    "masks",
    "overlays",
    "uncertainty",
    "probabilities",
    "videos",
    "geojson",
    "gpkg",
    "coco",
    "coco_rle",
    "labelme",
)
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
# What any format of `data=` reads, longest first: of ".nii.gz" all is cut off a name.
SUFFIXES = tuple(
    sorted({*IMAGE_SUFFIXES, *geotiff.SUFFIXES, *nifti.SUFFIXES}, key=lambda suffix: (-len(suffix), suffix))
)
# Kinds of what is skipped, beside suffixes.
_FOLDER, _PREDICTED = "folder", "folder of predictions"


@dataclass
class Inputs:
    """What was found.

    Attributes:
        files: image files and folders of DICOM series, by the name of their output: their path below the given folder (or
            below what of a glob pattern has no wildcard) without suffix. Where several would have one name, also on a disk
            that does not tell `A` from `a`, each gets its suffix: `a.jpg` and `a.png` become `a_jpg` and `a_png`; what
            still is the same is numbered.
        skipped: how many of what else lies there, by kind.
        failed: folders that could not be listed, a line each.
    """

    files: dict[str, Path] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def told(self) -> str:
        """What was skipped, by kind; empty where nothing was."""
        return ", ".join(_told(kind, count) for kind, count in sorted(self.skipped.items()))


def find(given: str, output: Path, recursive: bool = False) -> Inputs:
    """The images, rasters and volumes that a file, a folder or a glob pattern names. A path that exists is taken as it is
    written, whatever brackets are in it.

    Hidden files, and files whose suffix is no format's, are skipped, as in training; so are folders that are no DICOM series
    unless `recursive`, and what prediction wrote into `output`. Links are followed.

    Raises:
        UserError: there is none, the one file that is named is of no format that is read, or output would be written over
            input.
    """
    path = Path(os.path.expanduser(given))
    walk = _Walk(output, recursive)
    if os.path.isdir(path):
        found = list(walk.given(path, path.name if path.name not in ("", "..") else path.resolve().name))
    elif os.path.isfile(path):
        _check_one(path)
        found = [(path.name, path)]
    elif os.path.exists(path):
        raise UserError(f"input: {shown(given)} is neither a file nor a folder; give an image or a folder of images")
    else:
        found = list(walk.pattern(path))
    if not found and not walk.failed:
        raise UserError(_nothing(given, Inputs(skipped=walk.skipped), recursive))
    own = [f"{os.path.realpath(output / folder)}{os.sep}" for folder in OUTPUTS]
    for _, item in found:
        if f"{os.path.realpath(item.parent)}{os.sep}".startswith(tuple(own)):
            raise UserError(
                f"output: {shown(str(item))} lies where predictions are written, which could replace it; give another folder"
            )
    return Inputs(_named(found), walk.skipped, walk.failed)


class _Walk:
    """Goes through folders in the order of names and notes what it leaves out. Items are yielded with their path below the
    folder that was given."""

    def __init__(self, output: Path, recursive: bool) -> None:
        self.skipped: Counter[str] = Counter()
        self.failed: list[str] = []
        self._recursive = recursive
        self._written = [os.path.realpath(folder) for folder in (output, *(output / name for name in OUTPUTS))]
        self._predicted: set[str] = set()

    def given(self, folder: Path, name: str) -> Iterator[tuple[str, Path]]:
        """Items of a folder, or the folder itself, by `name`, if it is a series."""
        if _is_series(folder):
            yield name, folder
        yield from self._entries(folder, "", frozenset())

    def pattern(self, path: Path) -> Iterator[tuple[str, Path]]:
        """Items that a glob pattern fits, below what of it has no wildcard (or is there as it is written)."""
        fixed, rest = Path(), list(path.parts)
        while rest and (not glob.has_magic(rest[0]) or os.path.lexists(fixed / rest[0])):
            fixed /= rest.pop(0)
        if not rest or not os.path.isdir(fixed):
            return
        if ".." in rest:
            raise UserError(f"input: {shown(str(path))} goes up behind a wildcard; write the pattern without '..'")
        series: set[Path] = set()
        fitting = glob.glob("/".join(rest), root_dir=fixed, recursive=True)
        for match in sorted({Path(match).as_posix() for match in fitting}):
            item = fixed / match
            if item.parent in series:
                continue  # a slice
            if any(map(self._is_predicted, (fixed / above for above in list(Path(match).parents)[:-1]))):
                continue
            if os.path.isdir(item) and _is_series(item):
                series.add(item)
            elif os.path.isdir(item) and "**" in rest:
                continue  # what is in it fits as well
            yield from self._item(item, match, frozenset())

    def _entries(self, folder: Path, above: str, chain: frozenset[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
        """What lies in a folder. `chain`: the folders on the way to it, so that a link to one of them is no endless way."""
        try:
            there = os.stat(folder)
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            self.failed.append(f"{folder}: cannot be listed ({error.strerror})")
            return
        if (at := (there.st_dev, there.st_ino)) in chain:
            return
        holds_series = _is_series(folder)
        for name in names:
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                self.skipped["hidden"] += 1
            elif holds_series and not os.path.isdir(folder / name):
                if suffix and suffix not in dicom_series.SUFFIXES:
                    self.skipped[suffix] += 1
            else:
                yield from self._item(folder / name, above + name, chain | {at})

    def _item(self, item: Path, name: str, chain: frozenset[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
        if os.path.isdir(item):
            if self._is_predicted(item):
                return
            if not_read.explain(item) is not None:  # e.g. x.zarr
                self.skipped[item.suffix.lower()] += 1
                return
            if is_series := _is_series(item):
                yield name, item
            if self._recursive:
                yield from self._entries(item, f"{name}/", chain)
            elif not is_series:
                self.skipped[_FOLDER] += 1
        elif not os.path.isfile(item):
            self.skipped["neither file nor folder"] += 1
        elif item.name.lower().endswith((*SUFFIXES, *(VIDEO_SUFFIXES if _reads_videos() else ()))):
            yield name, item
        else:
            self.skipped[item.suffix.lower() or "without suffix"] += 1

    def _is_predicted(self, folder: Path) -> bool:
        """Whether a folder is the output's, which is counted; where input and output are one, those that are written in it."""
        at = os.path.realpath(folder)
        if at not in self._written:
            return False
        self._predicted.add(at)
        self.skipped[_PREDICTED] = len(self._predicted)
        return True


def _reads_videos() -> bool:
    """Whether the extra `video` is there; without it a phone's folder of photos and videos is one of photos."""
    return importlib.util.find_spec("cv2") is not None


def _is_series(folder: Path) -> bool:
    try:
        return dicom_series.is_series(folder)
    except OSError:  # told where it is listed
        return False


def _named(found: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    parted = [_parted(relative, item) for relative, item in found]
    often = Counter(_folded(stem) for stem, _ in parted)
    taken = {stem for stem, count in often.items() if count == 1}
    names: dict[str, Path] = {}
    for (stem, suffix), (_, item) in zip(parted, found, strict=True):
        name, number = stem, 1
        while often[_folded(stem)] > 1 and (name == stem or _folded(name) in taken):
            name, number = f"{stem}_{suffix}{f'_{number}' if number > 1 else ''}", number + 1
        taken.add(_folded(name))
        names[name] = item
    return names


def _parted(relative: str, item: Path) -> tuple[str, str]:
    """A path without its suffix, and the suffix as a part of a name."""
    for suffix in () if os.path.isdir(item) else (*SUFFIXES, *VIDEO_SUFFIXES):
        if relative.lower().endswith(suffix):
            return relative[: -len(suffix)], suffix[1:].replace(".", "_")
    return relative, "series"


def _folded(name: str) -> str:
    """The same for names that some disks take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _check_one(file: Path) -> None:
    name, called = file.name.lower(), shown(str(file))
    if name.endswith((*SUFFIXES, *VIDEO_SUFFIXES)):
        return
    if name.endswith(dicom_series.SUFFIXES):
        raise UserError(
            f"input: {called} is a DICOM slice, and a series is taken as its folder; give {shown(str(file.parent))}"
        )
    if (reason := not_read.explain(file)) is not None:
        raise UserError(f"input: {called}: {shown(reason)}")
    raise UserError(f"input: {called} is of no format that is read ({_formats()}); convert it, e.g. to PNG")


def _formats() -> str:
    return f"{', '.join(sorted(SUFFIXES))}, or a folder of DICOM slices"


def _nothing(given: str, found: Inputs, recursive: bool) -> str:
    why = f" (skipped: {found.told()})" if found.skipped else ""
    if not why and not glob.has_magic(given) and not os.path.lexists(os.path.expanduser(given)):
        why = " (there is no such file or folder)"
    start = f"input: no image at {shown(given)}{why}"
    if found.skipped[_FOLDER] and not recursive:
        command = shlex.quote(f"input={shown(given)}")
        return f"{start}; to take those in its folders: python -m src.predict ckpt=… {command} output=… recursive=true"
    if any(found.skipped[suffix] for suffix in dicom_series.SUFFIXES):
        return f"{start}; a DICOM series is taken as its folder: give the folder that the slices are in"
    path = Path(os.path.expanduser(given))
    if instead := not_read.found_instead([path, *(path.iterdir() if os.path.isdir(path) else ())]):
        return f"{start}{shown(instead, 1000)}"
    return f"{start}; give an image ({_formats()}), a folder of images or a glob pattern"


def _told(kind: str, count: int) -> str:
    if kind in (_FOLDER, _PREDICTED):
        plural = kind.replace("folder", "folders") if count > 1 else kind
        return f"{count} {plural}{' (recursive=true takes what is in them)' if kind == _FOLDER else ''}"
    return f"{count} {shown(kind, 30)}"
