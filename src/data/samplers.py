"""Which samples make which batch, on which device: the order of the data is decided here alone.

Every sample key is `(epoch, index)`; whatever a transform draws is seeded by it, so workers need no state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch

from src.seeding import derive

Key = tuple[int, int]


class TrainingBatches:
    """One global permutation an epoch, cut into global batches; each rank takes its slice of each.

    So a global batch is the same set of samples on any number of devices. A last batch that is not full is left out
    (the samples left out differ from epoch to epoch). Use as a data loader's `batch_sampler`.

    Args:
        length: samples in the split.
        batch_size: global batch size, a multiple of `world_size`.
        seed: the run's seed.
        rank, world_size: this process among all.
        epoch, consumed: where to begin: so many global batches of this epoch are skipped (their data is not read).
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
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f"a global batch of {batch_size} cannot be split evenly over {world_size} ranks")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.consumed = epoch, consumed

    @property
    def sampler(self) -> Self:
        """Lightning announces an epoch to `batch_sampler.sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.consumed = epoch, 0

    def __len__(self) -> int:
        """Batches in a whole epoch, those already consumed included."""
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
        order = torch.randperm(self.length, generator=generator)
        share = self.batch_size // self.world_size
        for batch in range(self.consumed, len(self)):
            begin = batch * self.batch_size + self.rank * share
            yield [(epoch, index) for index in order[begin : begin + share].tolist()]


class EvaluationBatches:
    """All samples once, in order, never padded; whole batches go to the ranks in turn.

    Batches are composed the same on any number of ranks, so each prediction has the same bits everywhere; a rank may
    have one batch more than another.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.batch_size, self.rank, self.world_size = length, batch_size, rank, world_size

    def _begins(self) -> range:
        return range(self.rank * self.batch_size, self.length, self.batch_size * self.world_size)

    def __len__(self) -> int:
        return len(self._begins())

    def __iter__(self) -> Iterator[list[Key]]:
        for begin in self._begins():
            yield [(0, index) for index in range(begin, min(begin + self.batch_size, self.length))]
