"""Which cache a source gets, and whether its first samples can be decoded and have something to learn or to score."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from src.data.disk_cache import OnDisk
from src.data.mask_check import absent_classes, decode_some, nothing_to_learn, nothing_to_score
from src.data.samples import Split
from src.data.sources import Chunked, InMemory, Source, is_computed
from src.errors import UserError

_log = logging.getLogger(__name__)


def keep(
    source: Source, cache: Literal["ram", "disk"] | None, folder: Path, options: Sequence[object], shared: bool = True
) -> Source:
    """The source with its cache; arguments as of `cached`."""
    if cache is None:
        return source
    # what is computed can wait for its turn, but for worker processes, each of which would have to compute all
    at_once = shared or not is_computed(source)
    return InMemory(source, at_once) if cache == "ram" else OnDisk(source, options, folder)


def cached(
    source: Source,
    split: Split | None,
    cache: Literal["ram", "disk"] | None,
    folder: Path,
    options: Sequence[object],
    shared: bool = True,
) -> Source:
    """The source with its cache; its samples have been decoded, or without a cache, or where they are computed, some of them.

    Args:
        split: None for unlabelled samples, whose masks nobody looks at.
        folder: of the cache on disk.
        options: what the source is made of, so that caches of different ones differ.
        shared: whether other processes than this one read it too.

    Raises:
        UserError: a sample cannot be decoded, or the masks that were have nothing to learn from, or nothing to score.
    """
    kept = keep(source, cache, folder, options, shared)
    if split is None:
        if cache is None:
            decode_some(source)
        return kept
    seen = decode_some(kept)
    labels = source.label_set
    if split == "train":
        if not isinstance(source, Chunked):
            if (reason := nothing_to_learn(labels, seen, "training")) is not None:
                raise UserError(reason)
            known = seen.samples == len(source) or not is_computed(source)
            if known and (note := absent_classes(labels, seen, "training")) is not None:
                _log.warning("%s", note)
    elif seen.samples == len(source) and not seen.pixels[: labels.num_classes].any():
        raise UserError(nothing_to_score(split))
    return kept


def cache_folder(named: str | None) -> Path:
    """Where caches on disk lie: the folder that is named, else `pixelwise` in the user's cache folder."""
    return Path(named or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pixelwise").expanduser()


def described(dataset: Callable[..., Source]) -> list[object]:
    """What the source is made by, and with what, so that caches of different ones differ."""
    made_by = dataset.func if isinstance(dataset, functools.partial) else dataset
    given = sorted(dataset.keywords.items()) if isinstance(dataset, functools.partial) else []
    return [f"{made_by.__module__}.{made_by.__qualname__}", given]
