"""Splits samples into train, val and test: as listed, or by shares that are drawn, seeded, whole groups at a time."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import Field

from src.errors import UserError
from src.seeding import derive

ProperShare = Annotated[float, Field(gt=0, lt=1)]
FOLDERS = "give each split a folder with {split} in data.dataset.images and data.dataset.masks"  # instead of shares
Shares = dict[str, npt.NDArray[np.int64]]  # indices by split, ascending; each sample is in one
_log = logging.getLogger(__name__)


def draw(
    names: Sequence[str], val_fraction: float, test_fraction: float, seed: int, groups: Sequence[str] | None = None,
    what: str = "images", otherwise: str = "",
) -> Shares:  # fmt: skip
    """Shares of the samples, drawn the same way for every format.

    Groups stand in an order of their own (see `ordered`). One after the other goes to the first of test and val that it
    brings nearer to its share, else to train: a share is met to within half a group. A split that would be empty gets the
    smallest group of one that has several.

    Args:
        names: samples; which go where does not depend on their order.
        val_fraction, test_fraction: shares of the samples; the rest is train.
        seed: of the draw.
        groups: that of each name; None takes each sample for itself.
        what: the samples, for messages.
        otherwise: another mend, for messages.

    Raises:
        UserError: the shares leave nothing to train with, or there are too few groups.
    """
    if val_fraction + test_fraction >= 1:
        raise UserError(
            f"data.dataset.val_fraction: {val_fraction:g} and test_fraction {test_fraction:g} leave nothing to train with"
        )
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups or names):
        members.setdefault(group, []).append(index)
    fractions: dict[str, float] = {"test": test_fraction, "val": val_fraction}
    missing = {split: max(1, round(share * len(names))) for split, share in fractions.items() if share}
    taken: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for group in ordered(members, seed):
        size, split = len(members[group]), "train"
        for held_out, lacks in missing.items():
            if 2 * lacks > size:
                split = held_out
                missing[split] -= size
                break
        taken[split].append(group)
    wanted = [*missing, "train"]
    while empty := next((split for split in wanted if not taken[split]), None):
        donor = "train" if len(taken["train"]) > 1 else max(taken, key=lambda split: len(taken[split]))
        if len(taken[donor]) > 1:
            smallest = min(taken[donor], key=lambda group: len(members[group]))
            taken[donor].remove(smallest)
            taken[empty].append(smallest)
            continue
        alone = len(members) == len(names)
        raise UserError(
            f"data.dataset.{'test' if empty == 'test' else 'val'}_fraction: of {len(names)} {what}"
            f"{'' if alone else f' in {len(members)} groups'} none is left for the split {empty!r}; take "
            f"{f'more {what}' if alone else 'smaller groups'}{otherwise and f', or {otherwise}'}"
        )
    return {split: _ascending(index for group in its for index in members[group]) for split, its in taken.items()}


def ordered(groups: Iterable[str], seed: int) -> list[str]:
    """Groups by the hash of each with the seed, so that those of a data set that grows keep their order among themselves."""
    return sorted(sorted(groups), key=lambda group: derive(seed, "split", group))


def listed(
    names: Sequence[str], val: Sequence[str] | None, test: Sequence[str] | None, what: str, otherwise: str = ""
) -> Shares:
    """The samples that the user lists for val and test; the rest is train.

    Args:
        what, otherwise: as in `draw`.

    Raises:
        UserError: a listed name is unknown or in both lists, or nothing is left to train or validate on.
    """
    known = set(names)
    for key, chosen in (("val", val), ("test", test)):
        for name in chosen or ():
            if name not in known:
                raise UserError(
                    f"data.dataset.{key}: there is no {name!r}; the data has {', '.join(names[:10])}"
                    f"{' …' if len(names) > 10 else ''}"
                )
    if both := set(val or ()) & set(test or ()):
        raise UserError(f"data.dataset.test: {min(both)!r} is in data.dataset.val too; take it out of one")
    of: dict[str, str] = {**dict.fromkeys(val or (), "val"), **dict.fromkeys(test or (), "test")}
    shares: Shares = {
        split: _ascending(index for index, name in enumerate(names) if of.get(name, "train") == split)
        for split in ("train", "val", "test")
    }
    if (empty := next((split for split in ("train", "val") if not len(shares[split])), None)) is not None:
        raise UserError(
            f"data.dataset.val: of {len(names)} {what} none is left for the split {empty!r}; change it"
            f"{otherwise and f', or {otherwise}'}"
        )
    return shares


@runtime_checkable
class Drawn(Protocol):
    """What a source also has whose split may be a share that is drawn.

    Attributes:
        drawn: whether it is, so that by another draw of the same samples some of train would be in it.
    """

    drawn: bool


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


def check_apart(sources: Sequence[object]) -> None:
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


def grouped(names: Sequence[str], expression: str | None, key: str = "data.dataset.group") -> list[str]:
    """The group of each name: the first group (or whole match) of a regular expression; None takes each for itself.

    Args:
        key: what gave the expression, for messages.

    Raises:
        UserError: the expression is none, or does not fit a name.
    """
    if expression is None:
        return list(names)
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UserError(f"{key}: {expression!r} is no regular expression ({error})") from None
    groups: list[str] = []
    for name in names:
        found = pattern.search(name)
        if found is None:
            raise UserError(
                f"{key}: {expression!r} does not fit the name {name!r}; change it so that it fits every image's"
            )
        groups.append((found[1] if pattern.groups else found[0]) or "")
    return groups


def _ascending(indices: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.sort(np.fromiter(indices, np.int64))
