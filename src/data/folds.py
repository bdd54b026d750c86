"""Cross-validation: the training split cut into folds, of which one is held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt

from src.data.layout.splits import grouped, ordered
from src.data.sources import DerivedSource, Source, Subset, innermost, whole_of
from src.data.threads import in_order
from src.errors import UserError

Bools = npt.NDArray[np.bool_]


@runtime_checkable
class OfSubject(Protocol):
    """What a source also has that may know of which subject (a patient, a city) a sample is."""

    def subject(self, index: int) -> str | None:
        """The subject; None where it is not known."""
        ...


class HeldOut(Subset):
    """The fold that a run does not learn from, which is its test split."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        super().__init__(source, indices)
        self.split = "test"


class Folds:
    """Which part of the training split is held out.

    Args:
        n: folds; None for none.
        k: the one that is held out, from 0; None for none.
        group: a regular expression; images in whose names its first group (or all of it) is the same are in one fold. None
            takes `data.dataset.group` where that is given, else the subject, volume or scene that an image is of where the data
            say it, else each image for itself.
        seed: of the draw; the run's seed does not change it.
        stratify: show each class in as many images of every fold as of every other, as far as possible; every mask is read once
            for that.
    """

    def __init__(
        self,
        n: Annotated[int, Field(ge=2)] | None = None,
        k: NonNegativeInt | None = None,
        group: str | None = None,
        seed: NonNegativeInt = 0,
        stratify: bool = True,
    ) -> None:
        self.n, self.k, self.group, self.seed, self.stratify = n, k, group, seed, stratify

    @property
    def active(self) -> bool:
        return self.n is not None and self.k is not None

    def split(self, source: Source, group: object = None) -> tuple[Subset, HeldOut]:
        """The samples that are learnt from, and the fold that is held out.

        Args:
            source: the training samples.
            group: `data.dataset.group`.

        Raises:
            UserError: there are too few groups, two samples have one name, or an expression does not fit one.
        """
        assert self.n is not None
        names = [source.name(index) for index in range(len(source))]
        if len(set(names)) < len(names):
            twice = next(name for name in sorted(names) if names.count(name) > 1)
            raise UserError(f"data.folds: two training samples are called {twice!r}; rename one of them")
        shown = _classes_shown(source) if self.stratify else np.zeros((len(source), 0), np.bool_)
        fold = stratified(shown, self._groups(source, names, group), self.n, self.seed)
        return Subset(source, np.flatnonzero(fold != self.k).tolist()), HeldOut(
            source, np.flatnonzero(fold == self.k).tolist()
        )

    def _groups(self, source: Source, names: Sequence[str], group: object) -> list[str]:
        wholes = [whole_of(source, index) or name for index, name in enumerate(names)]
        if self.group is not None:
            return grouped(names, self.group, "data.folds.group")
        if isinstance(innermost(source), OfSubject):
            return [subject_of(source, index) or whole for index, whole in enumerate(wholes)]
        return grouped(wholes, group) if isinstance(group, str) else wholes


def stratified(shown: Bools, groups: Sequence[str], n: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each sample, int64 [N], by iterative stratification (Sechidis et al. 2011, "On the stratification of
    multi-label data"), whole groups at a time.

    The class that the fewest samples not yet placed show is dealt out first: its groups, those with most of it first, each to
    the fold that lacks most of the class, of several to the one that lacks most samples. What shows no class goes where
    samples are lacking. Which samples these are does not depend on their order.

    Args:
        shown: whether a sample shows a class, bool [N, K]; K may be 0.
        groups: that of each sample.
        n: folds.
        seed: of the order among groups that are alike.

    Raises:
        UserError: there are fewer groups than folds.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    if len(members) < n:
        what = "training images" if len(members) == len(groups) else f"groups of {len(groups)} training images"
        raise UserError(f"data.folds.n: {n} folds of {len(members)} {what}; take fewer folds, or smaller groups")
    order = ordered(members, seed)
    sizes = np.array([len(members[group]) for group in order])
    counts = np.stack([shown[members[group]].sum(axis=0) for group in order]).astype(np.int64)
    lacking = np.repeat(counts.sum(axis=0, keepdims=True) / n, n, axis=0)
    room = np.full(n, len(groups) / n)
    of_group = np.full(len(order), -1)

    def put(at: int, wanted: npt.NDArray[np.floating]) -> None:
        best = np.flatnonzero(wanted > wanted.max() - 1e-9)
        fold = int(best[room[best].argmax()])
        of_group[at] = fold
        lacking[fold] -= counts[at]
        room[fold] -= sizes[at]

    while (left := counts[of_group < 0].sum(axis=0)).any():
        rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        having = np.flatnonzero((of_group < 0) & (counts[:, rarest] > 0))
        for at in having[np.argsort(-counts[having, rarest], kind="stable")]:
            put(int(at), lacking[:, rarest])
    rest = np.flatnonzero(of_group < 0)
    for at in rest[np.argsort(-sizes[rest], kind="stable")]:
        put(int(at), room)
    while len(empty := np.setdiff1d(np.arange(n), of_group)):
        donor = np.flatnonzero(of_group == np.bincount(of_group, minlength=n).argmax())
        of_group[donor[sizes[donor].argmin()]] = empty[0]
    fold = np.empty(len(groups), np.int64)
    for at, group in enumerate(order):
        fold[members[group]] = of_group[at]
    return fold


def _classes_shown(source: Source) -> Bools:
    """Whether a sample has labelled pixels of a class, bool [N, K]."""
    classes = source.label_set.num_classes
    shown = np.zeros((len(source), classes), np.bool_)

    def look(index: int) -> Bools:
        found: Bools = np.bincount(source.read(index)[1].numpy().ravel(), minlength=256)[:classes] > 0
        return found

    for index, found in enumerate(in_order(look, range(len(source)))):
        shown[index] = found
    return shown


def subject_of(source: Source, index: int) -> str | None:
    """Of which subject a sample is, or None of a source that does not say."""
    if isinstance(source, Subset):
        return subject_of(source.source, int(source.indices[index]))
    if isinstance(source, DerivedSource):
        return subject_of(source.source, index)
    return source.subject(index) if isinstance(source, OfSubject) else None


def is_held_out(source: Source) -> bool:
    """Whether a split is a fold of the training split, or its cache."""
    inner: object = source
    while inner is not None:
        if isinstance(inner, HeldOut):
            return True
        inner = getattr(inner, "source", None)
    return False
