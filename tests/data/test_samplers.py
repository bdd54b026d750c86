"""The order of the data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import pytest

from src.data.samplers import EvaluationBatches, TrainingBatches


def _sets(world_size: int, epoch: int = 0) -> list[set[int]]:
    ranks = []
    for rank in range(world_size):
        batches = TrainingBatches(37, 8, seed=3, rank=rank, world_size=world_size)
        batches.set_epoch(epoch)
        ranks.append(list(batches))
    return [{index for share in shares for _, index in share} for shares in zip(*ranks, strict=True)]


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_a_global_batch_is_the_same_set_on_any_number_of_devices(world_size: int) -> None:
    assert _sets(world_size) == _sets(1)
    assert all(len(batch) == 8 for batch in _sets(world_size))


def test_an_epoch_repeats_no_sample_and_epochs_differ() -> None:
    first, second = _sets(1, epoch=0), _sets(1, epoch=1)
    assert len(set.union(*first)) == 32
    assert first != second
    assert _sets(1, epoch=1) == second


def test_keys_carry_their_epoch() -> None:
    batches = TrainingBatches(16, 4, seed=0)
    batches.set_epoch(7)
    assert {key[0] for batch in batches for key in batch} == {7}


def test_going_on_skips_exactly_what_was_consumed() -> None:
    whole = TrainingBatches(37, 8, seed=3)
    whole.set_epoch(2)
    resumed = TrainingBatches(37, 8, seed=3, epoch=2, consumed=3)
    assert list(resumed) == list(whole)[3:]
    assert len(resumed) == len(whole) == 4  # a position within the epoch, not a shorter epoch
    resumed.set_epoch(2)
    assert list(resumed) == list(whole)[3:]
    resumed.set_epoch(3)
    assert len(list(resumed)) == 4


def test_an_uneven_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split evenly over 3"):
        TrainingBatches(37, 8, seed=0, world_size=3)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_evaluation_sees_each_sample_once_in_batches_composed_the_same(world_size: int) -> None:
    ranks = [list(EvaluationBatches(11, 2, rank, world_size)) for rank in range(world_size)]
    batches = sorted(tuple(index for _, index, *_ in batch) for rank in ranks for batch in rank)
    assert batches == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10,)]
    assert [len(EvaluationBatches(11, 2, rank, world_size)) for rank in range(world_size)] == [len(r) for r in ranks]


@pytest.mark.parametrize("in_stretches", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 8])
@pytest.mark.parametrize("world_size", [1, 2, 4, 7])
def test_evaluation_of_few_samples_gives_each_rank_a_batch_and_counts_each_sample_once(
    world_size: int, length: int, in_stretches: bool
) -> None:
    """A rank without a batch would leave out what all ranks do together, and the others would wait for it."""
    samplers = [EvaluationBatches(length, 2, rank, world_size, in_stretches) for rank in range(world_size)]
    ranks = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(batches) for batches in ranks]
    assert all(ranks) == (length > 0)
    counted = [key[1] for batches in ranks for batch in batches for key in batch if "uncounted" not in key]
    assert sorted(counted) == list(range(length))


# 11 labelled samples, 4 in a batch, 9 batches an epoch; 26 unlabelled ones, 6 in a batch.
SUBSET: dict[str, Any] = {
    "length": 11, "batch_size": 4, "seed": 3, "batches": 9, "unlabeled": 26, "unlabeled_batch_size": 6,
}  # fmt: skip
Keys = list[tuple[int, int]]


def drawn(epochs: int, **given: int) -> list[tuple[Keys, Keys]]:
    """Labelled and unlabelled keys (turn, index) of every batch of so many epochs."""
    batches = TrainingBatches(**SUBSET | given)
    result: list[tuple[Keys, Keys]] = []
    for epoch in range(batches.epoch, epochs):
        batches.set_epoch(epoch)
        result += [
            ([(k[0], k[1]) for k in b if len(k) == 2], [(k[0], k[1]) for k in b if len(k) == 3])
            for b in cast(Iterable[list[Any]], batches)
        ]
    return result


def test_a_subset_fills_the_epochs_of_the_whole_with_each_sample_equally_often() -> None:
    epochs = drawn(11)
    assert len(epochs) == 11 * len(TrainingBatches(**SUBSET)) == 99
    assert all((len(labeled), len(unlabeled)) == (4, 6) for labeled, unlabeled in epochs)
    for kind, length in ((0, 11), (1, 26)):
        keys = [key for batch in epochs for key in batch[kind]]
        whole = len(keys) // length * length  # whole turns: each has every sample once, by a key of its own
        assert sorted(keys[:whole]) == [(turn, index) for turn in range(whole // length) for index in range(length)]
        assert len(set(keys)) == len(keys)
        assert [index for _, index in keys[:length]] != [index for _, index in keys[length : 2 * length]]


@pytest.mark.parametrize("consumed", [1, 4, 8])
def test_going_on_with_a_subset_gives_exactly_the_rest(consumed: int) -> None:
    assert drawn(5, epoch=2, consumed=consumed) == drawn(5)[2 * 9 + consumed :]


def test_ranks_share_a_subsets_global_batches_exactly() -> None:
    alone = drawn(3)
    ranks = [drawn(3, rank=rank, world_size=2) for rank in range(2)]
    for whole, first, second in zip(alone, *ranks, strict=True):
        assert whole == (first[0] + second[0], first[1] + second[1])
        assert (len(first[0]), len(first[1])) == (2, 3)


def test_unlabeled_samples_do_not_shift_the_labeled_ones() -> None:
    assert [b[0] for b in drawn(3)] == [b[0] for b in drawn(3, unlabeled=0, unlabeled_batch_size=0)]


def test_an_uneven_split_of_the_unlabeled_is_refused_too() -> None:
    with pytest.raises(ValueError, match="6 cannot be split evenly over 4"):
        TrainingBatches(**SUBSET | {"world_size": 4})
