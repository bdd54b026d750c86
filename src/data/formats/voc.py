"""`VOC` reads Pascal VOC, 20 kinds of things and the background (Everingham et al. 2010), in the official layout."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Literal

from src.data.fetch import Archive, fetch
from src.data.formats.paired import Paired
from src.data.labels import LabelSet, voc_colors
from src.data.layout.pairs import Pair
from src.data.layout.patterns import existing
from src.data.readers.images import index_lookup
from src.errors import UserError
from src.files.untrusted import read_lines

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_LISTS = "ImageSets/Segmentation"
_AUGMENTED = ("trainaug", "train_aug")  # mmsegmentation's name of the list, and DeepLab's


class VOC(Paired):
    """`JPEGImages/*.jpg` with palette masks in `SegmentationClass/*.png`, split by the lists of `ImageSets/Segmentation`.

    The values 0 to 20 are the classes, 255, the outlines, is ignored. Where `test.txt` and the masks it asks for are there
    (VOC 2007), "test" reads them; else it is "val".

    Args:
        split: "train", "val" or "test".
        root: a folder with `VOCdevkit/VOC<year>` or `VOC<year>`, or that folder itself.
        year: of the release.
        train_list: what to train with. `trainaug` adds the masks that Hariharan et al. (2011, SBD) drew: the list
            `trainaug.txt` (10,582 images), masks in `SegmentationClassAug` where `SegmentationClass` has none. `trainval`
            holds the validation images, so that their score says nothing about new images.
        download: fetch the release into `root` where it is missing.

    Raises:
        UserError: a folder, list, image or mask is missing, or the download failed.
    """

    def __init__(
        self,
        split: str,
        root: str,
        year: Literal[2007, 2008, 2009, 2010, 2011, 2012] = 2012,
        train_list: Literal["train", "trainval", "trainaug"] = "train",
        download: bool = False,
    ) -> None:
        if download and release(Path(root).expanduser(), year) is None:
            fetch(Path(root).expanduser(), [_archive(year)])
        top = existing(root)
        folder = release(top, year)
        if folder is None:
            raise UserError(
                f"data.root: neither VOCdevkit/VOC{year} nor JPEGImages is in {top}; give the folder that holds VOCdevkit, or "
                "fetch the data with data.download=true"
            )
        read = split if split == "train" or (split == "test" and _has_test(folder)) else "val"
        if split == "train" and train_list == "trainaug":
            names = _augmented(folder)
        else:
            names = listed(folder, train_list if split == "train" else read)
        pairs = [Pair(name, f"JPEGImages/{name}.jpg", _mask(folder, name)) for name in names]
        check_files(folder, pairs, _LISTS)
        labels = LabelSet(NAMES, tuple((r, g, b) for r, g, b in voc_colors(len(NAMES))))
        super().__init__(folder, read, labels, pairs, index_lookup(len(NAMES), [], labels.ignore_index))


def check_files(folder: Path, pairs: list[Pair], lists: str) -> None:
    """Checks that the files of listed samples are there.

    Raises:
        UserError: one is not.
    """
    for pair in pairs:
        for file, kind in ((pair.image, "image"), (pair.mask, "mask")):
            if not (folder / file).exists():
                raise UserError(
                    f"{folder / file}: this {kind} is missing; unpack the release again, or correct {lists}"
                )


def release(root: Path, year: int) -> Path | None:
    """The folder with `JPEGImages`."""
    places = (root / "VOCdevkit" / f"VOC{year}", root / f"VOC{year}", root)
    return next((place for place in places if (place / "JPEGImages").is_dir()), None)


def listed(folder: Path, name: str, lists: str = _LISTS) -> list[str]:
    """The names in a list of the release.

    Raises:
        UserError: it is missing, empty, or names one twice.
    """
    file = folder / lists / f"{name}.txt"
    try:
        lines = read_lines(file)
    except OSError:
        raise UserError(f"{file}: this list is missing or no text; unpack the release again") from None
    # DeepLab's lists give paths of image and mask, all others names alone.
    names = [PureWindowsPath(line.split()[0]).stem for line in lines if line.strip()]  # either slash separates
    if not names:
        raise UserError(f"{file}: lists no image; unpack the release again")
    if len(set(names)) < len(names):
        raise UserError(f"{file}: {next(n for n in names if names.count(n) > 1)} is listed twice; name each image once")
    return names


def _augmented(folder: Path) -> list[str]:
    name = next((n for n in _AUGMENTED if (folder / _LISTS / f"{n}.txt").is_file()), None)
    if name is None or not (folder / "SegmentationClassAug").is_dir():
        missing = folder / _LISTS / "trainaug.txt" if name is None else folder / "SegmentationClassAug"
        raise UserError(
            f"{missing}: is missing, and with it SBD's masks; add it (conf/data/voc.yaml says how), or take "
            "data.dataset.train_list=train"
        )
    names = listed(folder, name)
    if both := sorted(set(names).intersection(listed(folder, "val"))):
        raise UserError(
            f"{folder / _LISTS / name}.txt: {both[0]} and {len(both) - 1} others are in val.txt too; take them out, or the "
            "validation score is one of training images"
        )
    return names


def _mask(folder: Path, name: str) -> str:
    """VOC's own mask, with its ignored outlines, where there is one; else SBD's."""
    own, augmented = f"SegmentationClass/{name}.png", f"SegmentationClassAug/{name}.png"
    return augmented if not (folder / own).exists() and (folder / augmented).exists() else own


def _has_test(folder: Path) -> bool:
    return (folder / _LISTS / "test.txt").is_file() and (folder / _mask(folder, listed(folder, "test")[0])).exists()


def _archive(year: int) -> Archive:
    """The release as torchvision knows it."""
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    release = DATASET_YEAR_DICT[str(year)]
    return Archive(release["url"], release["md5"], release["base_dir"], f"VOCdevkit/VOC{year}")
