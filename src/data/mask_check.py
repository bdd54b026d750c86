"""Looks whether the masks of a data set can be learnt from, and be scored."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from src.data.labels import LabelSet
from src.data.sources import Chunked, Source, is_computed
from src.data.threads import in_order

_DECODED_AT_MOST = 512  # samples of a split that are decoded before a run, evenly spread; all of a smaller split
_COMPUTED_AT_MOST = 8


@dataclasses.dataclass
class MasksSeen:
    """What the masks of some samples have: pixels of each value int64 [256], and how many samples that were."""

    pixels: npt.NDArray[np.int64]
    samples: int


def nothing_to_learn(labels: LabelSet, seen: MasksSeen, split: str) -> str | None:
    """Why nothing could be learnt from such masks: all labelled pixels are of one class, while others are ignored. So it is
    where 255, or another reserved value, was meant for a class."""
    counts = seen.pixels[: labels.num_classes]
    ignored = int(seen.pixels[labels.ignore_index])
    if np.count_nonzero(counts) > 1 or not ignored:
        return None
    absent = [name for name, count in zip(labels.names, counts, strict=True) if not count]
    shown = ", ".join(absent[:5]) + (" …" if len(absent) > 5 else "")
    values = ", ".join(
        f"{k if name != absent[-1] else labels.ignore_index}: {name}" for k, name in enumerate(labels.names)
    )
    mend = f"data.dataset.values={{{values}}}" if len(labels.names) <= 5 else "data.dataset.values={{0: NAME, …}}"
    return (
        f"data: no pixel of the {seen.samples} {split} masks read is {shown}, while {ignored / seen.pixels.sum():.1%} are "
        f"ignored, as the value {labels.ignore_index} is; where an ignored value is a class, say so with data=folder: {mend}"
    )


def absent_classes(labels: LabelSet, seen: MasksSeen, split: str) -> str | None:
    """Which classes no mask has, for a note."""
    absent = [name for k, name in enumerate(labels.names) if not seen.pixels[k]]
    shown = ", ".join(absent[:12]) + (" …" if len(absent) > 12 else "")
    return f"none of the {seen.samples} {split} masks read has a pixel of {shown}" if absent else None


def nothing_to_score(split: str) -> str:
    """What is said of a split that has no labelled pixel."""
    return (
        f"data: no pixel of the split {split!r} is labelled, so that there is nothing to score; check its masks, and which "
        "of their values data.dataset says are classes"
    )


def decode_some(source: Source) -> MasksSeen:
    """Decodes samples of a split, all of a small one, so that a bad file ends the run before it is paid for.

    Of one in chunks it decodes the first: they have been checked when they were written, and may lie far away. Of one whose
    samples are computed it takes a few, none of which can be bad.

    Returns:
        What their masks have.

    Raises:
        UserError: of the first bad sample.
    """
    most = _COMPUTED_AT_MOST if is_computed(source) else _DECODED_AT_MOST
    count = min(len(source), 1 if isinstance(source, Chunked) else most)

    def values(index: int) -> npt.NDArray[np.int64]:
        return np.bincount(source.read(index)[1].numpy().ravel(), minlength=256)

    indices = np.linspace(0, len(source) - 1, count).astype(int).tolist()
    return MasksSeen(sum(in_order(values, indices), np.zeros(256, np.int64)), count)
