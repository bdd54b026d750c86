"""`Streaming` reads the chunks that `python -m src.optimize` wrote, where they lie or from an object store."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from src.data.formats.chunks import SCHEMES, Chunks, Remote, download
from src.data.formats.sample_bytes import decode
from src.data.labels import LabelSet
from src.data.layout.patterns import existing
from src.errors import UserError
from src.files.atomic import replacing
from src.files.untrusted import plain_json, read_text, shown

DESCRIPTION = "dataset.json"  # written last: what a folder without it holds is not whole
PARTS = ("id", "image", "mask")
_DESCRIPTION = 256 << 20  # bytes of it; it has a digest of each chunk
_CHANNELS = 4096


class Streaming:
    """One split in chunks, in a folder or an object store (`s3://`, `gs://`, `azure://`).

    Chunks of a store are fetched when a sample of them is due, checked, and kept in a cache that all processes of a machine
    share. Training walks through the chunks in an order of its own (see `chunk_order`), of which each process reads its
    part. Without a test split, "test" is "val".

    Args:
        split: "train", "val" or "test".
        root: a folder, a store's URL, or `local:` and a folder whose chunks are copied to this machine as they are needed.
        window: chunks that are shuffled among one another in training; more mix better, fewer have to be at hand at once.
        cache_dir: where a store's chunks are kept; None for `pixelwise/streaming` in the user's cache folder
            ($XDG_CACHE_HOME or ~/.cache).
        cache_gib: how much of them; `window` chunks for each sample of a global batch should fit.

    Attributes:
        chunk_sizes: samples of each chunk, int64 [chunks].

    Raises:
        UserError: there is no such data set, or the store cannot be reached or opened.
    """

    def __init__(
        self,
        split: str,
        root: str,
        window: PositiveInt = 4,
        cache_dir: str | None = None,
        cache_gib: PositiveFloat = 100.0,
    ) -> None:
        remote = root.startswith(SCHEMES)
        if not remote and "://" in root:
            raise UserError(f"data.root: {root} is of no known kind; take a folder or one of {', '.join(SCHEMES)}")
        url = root.rstrip("/")
        cache = Path(
            cache_dir or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pixelwise/streaming"
        ).expanduser()
        text = _fetched(url, cache) if remote else _read(existing(root))
        about = _parsed(text, root)
        self.split = "val" if split == "test" and "test" not in about["splits"] else split
        if self.split not in about["splits"]:
            raise UserError(
                f"data.root: {root} has no split {split!r}, only {', '.join(about['splits'])}; convert it too"
            )
        self.label_set: LabelSet = about["label_set"]
        self.channels: int = about["channels"]
        self.intensity: tuple[float, float] = about["intensity"]
        part = about["splits"][self.split]
        if not remote:
            self._chunks = Chunks(Path(root).expanduser() / self.split, part["chunks"])
        else:
            # What is converted anew has another description, and so another folder.
            cache /= hashlib.blake2b(f"{url}\n{text}".encode(), digest_size=8).hexdigest()
            folder = cache / self.split
            folder.mkdir(parents=True, exist_ok=True)
            _keep(f"{url}/{self.split}/index.json", folder / "index.json")
            self._chunks = Chunks(folder, part["chunks"], Remote(f"{url}/{self.split}", cache, cache_gib * 2**30))
        if len(self._chunks) != part["samples"]:
            raise UserError(
                f"data.root: {root} has {len(self._chunks)} of {part['samples']} {split} samples; copy it again"
            )
        self.chunk_sizes, self.window = self._chunks.sizes, window

    def __len__(self) -> int:
        return len(self._chunks)

    def name(self, index: int) -> str:
        return _decoded(self._chunks.read(index, len(PARTS), only=0)[0])

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image [C, H, W] in its own dtype and mask uint8 [H, W]; to evaluate, of the truth's own size."""
        name, image, mask = self._chunks.read(index, len(PARTS))
        called = f"data.root: {self.split} sample {_decoded(name)}"
        pixels, classes = decode(image, mask, self.channels, called)
        if self.split == "train" and classes.shape != pixels.shape[1:]:
            raise UserError(
                f"{called}: its image is {list(pixels.shape[1:])} and its mask {list(classes.shape)}; convert the data again"
            )
        wrong = (classes >= self.label_set.num_classes) & (classes != self.label_set.ignore_index)
        if wrong.any():
            value, last = int(classes[wrong][0]), self.label_set.num_classes - 1
            raise UserError(
                f"{called}: its mask has the value {value}, and classes are 0 to {last}; convert the data again"
            )
        return pixels, classes


def _decoded(name: bytes) -> str:
    """A sample's name, as a terminal may be given it."""
    return shown(name.decode("utf-8", "replace")).replace("\n", " ")


def _read(folder: Path) -> str:
    try:
        return read_text(folder / DESCRIPTION, _DESCRIPTION, links=True)
    except FileNotFoundError:
        raise UserError(
            f"data.root: {folder} has no {DESCRIPTION}; make it with python -m src.optimize data=… output={folder}"
        ) from None


def _parsed(text: str, root: str) -> dict[str, Any]:
    """The description, checked: its splits by name, `label_set`, `channels` and `intensity`.

    Raises:
        UserError: it is damaged, or says what cannot be.
    """
    of = f"{root}/{DESCRIPTION}"
    about = plain_json(text, f"data.root: {of}")
    try:
        if about["parts"] != list(PARTS):
            raise ValueError(f"samples of {about['parts']}")
        splits = {}
        for name, part in about["splits"].items():
            if name not in ("train", "val", "test"):
                raise ValueError(f"a split {name!r}")
            if type(part["samples"]) is not int or any(not isinstance(value, str) for value in part["chunks"].values()):
                raise TypeError(f"numbers and digests of {name}")
            splits[name] = {"samples": part["samples"], "chunks": part["chunks"]}
        label_set = LabelSet.from_dict(about["label_set"])
        channels, (low, high) = about["channels"], map(float, about["intensity"])
        if type(channels) is not int or not 1 <= channels <= _CHANNELS:
            raise ValueError(f"{channels} channels")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"intensity from {low} to {high}")
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        reason = shown(f"{type(error).__name__}: {error}")
        raise UserError(
            f"data.root: {of} is damaged or of another version ({reason}); convert the data again"
        ) from None
    return {"splits": splits, "label_set": label_set, "channels": channels, "intensity": (low, high)}


def _fetched(url: str, cache: Path) -> str:
    """The description, fetched each time, since it tells whether the cache still holds."""
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"{os.getpid()}.{DESCRIPTION}"
    download(f"{url}/{DESCRIPTION}", file)
    try:
        return read_text(file, _DESCRIPTION)
    finally:
        file.unlink()


def _keep(url: str, file: Path) -> None:
    if not file.is_file():
        with replacing(file, tail="") as part:
            download(url, part)
