"""The order of the data."""

from __future__ import annotations

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
    batches = sorted(tuple(index for _, index in batch) for rank in ranks for batch in rank)
    assert batches == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10,)]
    assert [len(EvaluationBatches(11, 2, rank, world_size)) for rank in range(world_size)] == [len(r) for r in ranks]
