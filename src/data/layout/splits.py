"""Splits that are drawn from one folder: by share, seeded, and whole groups at a time; and groups that splits share."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from src.errors import UserError
from src.seeding import derive

_log = logging.getLogger(__name__)


def draw(
    names: Sequence[str], val_fraction: float, test_fraction: float, seed: int, group: str | None = None
) -> dict[str, npt.NDArray[np.int64]]:
    """Indices of "train", "val" and "test", ascending; none is in two of them, and names of one group stay together.

    Which group goes where depends on the set of names and the seed alone. A split may differ from its share by less than
    one group.

    Args:
        names: samples, sorted.
        val_fraction, test_fraction: shares of the samples; the rest is train.
        seed: of the draw.
        group: regular expression whose first group (or whole match) in a name is the name of its group; None takes each
            sample for itself.

    Raises:
        UserError: the expression is none or does not fit a name, the shares leave nothing to train with, or there are too
            few groups.
    """
    if val_fraction + test_fraction >= 1:
        raise UserError(
            f"data.dataset.val_fraction: {val_fraction:g} and test_fraction {test_fraction:g} leave nothing to train with"
        )
    keys = names if group is None else grouped(names, group)
    members: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    ordered = sorted(members)
    order = torch.randperm(len(ordered), generator=torch.Generator().manual_seed(derive(seed, "split"))).tolist()
    chosen: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    targets = {"val": val_fraction * len(names), "test": test_fraction * len(names)}
    for position in order:
        indices = members[ordered[position]]
        # Into the first split that comes nearer to its share with this group than without it.
        split = next((s for s, t in targets.items() if len(chosen[s]) + len(indices) / 2 <= t), "train")
        chosen[split] += indices
    for split, target in {**targets, "train": 1.0}.items():
        if target > 0 and not chosen[split]:
            what = f"{len(names)} images" if group is None else f"{len(ordered)} groups ({len(names)} images)"
            raise UserError(
                f"data.dataset.val_fraction: {what} are too few to give {split} a share; take larger fractions, or"
                f"{' smaller groups' if group else ' more images'}"
            )
    return {split: np.array(sorted(indices), np.int64) for split, indices in chosen.items()}


@runtime_checkable
class Grouped(Protocol):
    """What a source also has that knows which of its images are of one subject.

    Attributes:
        split: the split that is read.
        groups: by group, the name of an image in it.
        group: the expression that the user gave; "auto" where groups are told by names or headers, None where there are none.
    """

    split: str
    groups: Mapping[str, str]
    group: str | None


def check_apart(sources: Sequence[Any]) -> None:
    """Looks whether splits share a subject, so that scores would be of images that are nearly known.

    Raises:
        UserError: they do, and the user said what a group is; else it is a warning.
    """
    known = {source.split: source for source in sources if isinstance(source, Grouped)}
    for (ours, one), (theirs, other) in itertools.combinations(known.items(), 2):
        shared = sorted(one.groups.keys() & other.groups.keys())
        if not shared:
            continue
        first = f"{one.groups[shared[0]]} ({ours}) and {other.groups[shared[0]]} ({theirs}) are of one subject"
        more = f", and so it is with {len(shared) - 1} more" if len(shared) > 1 else ""
        if one.group != "auto":
            raise UserError(f"data.dataset.group: {first}{more}; put all of a group into one split")
        _log.warning("%s%s: scores of %s say less than scores of subjects never seen", first, more, theirs)


def grouped(names: Sequence[str], expression: str) -> list[str]:
    """The group of each name: the first group (or whole match) of a regular expression.

    Raises:
        UserError: the expression is none, or does not fit a name.
    """
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UserError(f"data.dataset.group: {expression!r} is no regular expression ({error})") from None
    groups: list[str] = []
    for name in names:
        found = pattern.search(name)
        if found is None:
            raise UserError(
                f"data.dataset.group: {expression!r} does not fit the name {name!r}; change it so that it fits every image's"
            )
        groups.append((found[1] if pattern.groups else found[0]) or "")
    return groups
