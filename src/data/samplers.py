"""Decides which samples make which batch, on which device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from src.seeding import derive

Key = tuple[int, int]  # (epoch, index); whatever a transform draws is seeded by it, so workers need no state
UnlabeledKey = tuple[int, int, Literal["unlabeled"]]
UncountedKey = tuple[int, int, Literal["uncounted"]]
_STRIDE = 32  # that drawn crop sizes are multiples of: the encoders'


class KeyWithCrop(NamedTuple):
    """A key with the crop size that its whole batch gets."""

    key: Key | UnlabeledKey
    crop: tuple[int, int]


class Draws(Protocol):
    """Samples drawn by number instead of a permutation, see `RareClasses`."""

    def draw(self, number: int) -> tuple[int, int]:
        """A class and the sample's index."""
        ...


def scaled_crop(crop: Sequence[int], zoom: float) -> tuple[int, int]:
    """A crop size times `zoom`, in multiples of 32."""
    height, width = (max(_STRIDE, round(side * zoom / _STRIDE) * _STRIDE) for side in crop)
    return height, width


class TrainingBatches:
    """One global permutation an epoch, cut into global batches; each rank takes its slice of each.

    So a global batch is the same set of samples on any number of devices. A last batch that is not full is left out
    (the samples left out differ from epoch to epoch). Use as a data loader's `batch_sampler`.

    With `batches` given, an epoch has so many whatever the length, and samples come from an endless row of
    permutations, which goes on from epoch to epoch: a small labelled subset then takes as many steps as the whole split
    would. Unlabelled samples, if any, are added to each batch from a row of their own.

    With `rare`, samples are drawn by it instead: the key's first number is then the draw's, which goes on over epochs.
    With `sizes`, every global batch gets a crop size of its own, drawn from the seed, epoch and batch: keys are `KeyWithCrop`.

    Args:
        length: samples to train with.
        batch_size: global batch size, a multiple of `world_size`.
        seed: the run's seed.
        rank, world_size: this process among all.
        epoch, consumed: where to begin: so many global batches of this epoch are skipped (their data is not read).
        batches: of an epoch; None for as many as are full.
        unlabeled: unlabelled samples.
        unlabeled_batch_size: of them in each global batch, a multiple of `world_size`.
        rare: draws samples by the classes they show.
        crop, sizes: the crop, and the range of its zoom.
        order: makes an epoch's permutation, int64 [length], from a generator; None takes any with equal chance.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        consumed: int = 0,
        batches: int | None = None,
        unlabeled: int = 0,
        unlabeled_batch_size: int = 0,
        rare: Draws | None = None,
        crop: Sequence[int] | None = None,
        sizes: Sequence[float] | None = None,
        order: Callable[[torch.Generator], Tensor] | None = None,
    ) -> None:
        for size in (batch_size, unlabeled_batch_size):
            if size % world_size:
                raise ValueError(f"a global batch of {size} cannot be split evenly over {world_size} ranks")
        self.batches, self.unlabeled, self.unlabeled_batch_size = batches, unlabeled, unlabeled_batch_size
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rare, self.crop, self.sizes = rare, crop, sizes
        self.rank, self.world_size = rank, world_size
        self.epoch, self.consumed, self.order = epoch, consumed, order

    @property
    def sampler(self) -> Self:
        """Lightning announces an epoch to `batch_sampler.sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.consumed = epoch, 0

    def __len__(self) -> int:
        """Batches in a whole epoch, those already consumed included."""
        return self.length // self.batch_size if self.batches is None else self.batches

    def __iter__(self) -> Iterator[list[Key | UnlabeledKey] | list[KeyWithCrop]]:
        epoch = self.epoch
        labeled = _Permutations(self.length, self.seed, "order", self.order)
        unlabeled = _Permutations(self.unlabeled, self.seed, "unlabeled order")
        for batch in range(self.consumed, len(self)):
            if self.rare is not None:
                first = (epoch * len(self) + batch) * self.batch_size
                keys = [(n, self.rare.draw(n)[1]) for n in range(first, first + self.batch_size)]
            elif self.batches is None:
                keys = labeled.within(epoch, batch * self.batch_size, self.batch_size)
            else:
                keys = labeled.across((epoch * self.batches + batch) * self.batch_size, self.batch_size)
            mine: list[Key | UnlabeledKey] = [*self._share(keys)]
            if self.unlabeled_batch_size:
                begin = (epoch * len(self) + batch) * self.unlabeled_batch_size
                more = unlabeled.across(begin, self.unlabeled_batch_size)
                mine += [(turn, index, "unlabeled") for turn, index in self._share(more)]
            yield mine if self.sizes is None else [KeyWithCrop(key, self._size(epoch, batch)) for key in mine]

    def _size(self, epoch: int, batch: int) -> tuple[int, int]:
        assert self.crop is not None and self.sizes is not None
        low, high = map(math.log, self.sizes)
        generator = torch.Generator().manual_seed(derive(self.seed, "crop size", epoch, batch))
        return scaled_crop(self.crop, math.exp(low + (high - low) * float(torch.rand((), generator=generator))))

    def _share(self, keys: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """This rank's part of a global batch."""
        size = len(keys) // self.world_size
        return keys[self.rank * size : (self.rank + 1) * size]


class _Permutations:
    """An endless row of permutations of 0..length-1, each with its number: keys (turn, index)."""

    def __init__(
        self, length: int, seed: int, name: str, order: Callable[[torch.Generator], Tensor] | None = None
    ) -> None:
        self.length, self.seed, self.name = length, seed, name
        self._permute = order or (lambda generator: torch.randperm(length, generator=generator))
        self._turn = -1
        self._order = torch.empty(0, dtype=torch.int64)  # no object per sample

    def within(self, turn: int, begin: int, count: int) -> list[tuple[int, int]]:
        if turn != self._turn:
            generator = torch.Generator().manual_seed(derive(self.seed, self.name, turn))
            self._turn, self._order = turn, self._permute(generator)
        return [(turn, index) for index in self._order[begin : begin + count].tolist()]

    def across(self, begin: int, count: int) -> list[tuple[int, int]]:
        keys: list[tuple[int, int]] = []
        while len(keys) < count:
            turn, offset = divmod(begin + len(keys), self.length)
            keys += self.within(turn, offset, count - len(keys))
        return keys


class EvaluationBatches:
    """All samples once, in order, never padded; whole batches go to the ranks in turn, or a stretch of them to each.

    Batches are composed the same on any number of ranks, so each prediction has the same bits everywhere; a rank may
    have one batch more than another. A rank for which there is no batch gets one of a single sample that it predicts and
    does not count: a loop without a batch would be left out there, and its end is where all ranks add up their counts.
    """

    def __init__(
        self, length: int, batch_size: int, rank: int = 0, world_size: int = 1, in_stretches: bool = False
    ) -> None:
        self.length, self.batch_size, self.rank, self.world_size = length, batch_size, rank, world_size
        self.in_stretches = in_stretches

    def _begins(self) -> range:
        begins = range(0, self.length, self.batch_size)
        if self.in_stretches:
            cut = [len(begins) * rank // self.world_size for rank in (self.rank, self.rank + 1)]
            return begins[cut[0] : cut[1]]
        return begins[self.rank :: self.world_size]

    def __len__(self) -> int:
        return max(len(self._begins()), min(1, self.length))

    def __iter__(self) -> Iterator[list[Key] | list[UncountedKey]]:
        for begin in self._begins():
            yield [(0, index) for index in range(begin, min(begin + self.batch_size, self.length))]
        if self.length and not self._begins():
            uncounted: list[UncountedKey] = [(0, 0, "uncounted")]
            yield uncounted
