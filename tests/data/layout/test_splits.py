"""Shares are drawn the same way whatever the samples are: whole groups, near the share, stable while data grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.formats.folder import Folder
from src.data.formats.nifti import Nifti
from src.data.layout.splits import draw, grouped, listed, ordered
from src.errors import UserError
from tests.data.layouts import index_png, photo, rows
from tests.data.volumes import phantom, write_nifti

NAMES = st.lists(st.text("abcxyz019_", min_size=1, max_size=8), min_size=3, max_size=60, unique=True)
FRACTIONS = st.tuples(st.floats(0.01, 0.3), st.one_of(st.just(0.0), st.floats(0.01, 0.3)))
SEEDS = st.integers(0, 5)


@given(names=NAMES, fractions=FRACTIONS, seed=SEEDS, kinds=st.integers(3, 60), data=st.data())
def test_whole_groups_near_their_share(
    names: list[str], fractions: tuple[float, float], seed: int, kinds: int, data: st.DataObject
) -> None:
    groups = [f"g{data.draw(st.integers(0, kinds))}" for _ in names]
    groups[:3] = ["g0", "g1", "g2"]  # enough for each split
    shares = draw(names, *fractions, seed, groups)
    parts = {split: indices.tolist() for split, indices in shares.items()}
    assert sorted(i for its in parts.values() for i in its) == list(range(len(names)))  # disjoint and complete
    assert all(its == sorted(its) for its in parts.values())
    assert parts["train"] and parts["val"] and bool(parts["test"]) == (fractions[1] > 0)
    of = {split: {groups[i] for i in its} for split, its in parts.items()}
    assert sum(map(len, of.values())) == len(set(groups))  # no group in two
    largest = max(groups.count(group) for group in groups)
    for split, fraction in zip(("val", "test"), fractions, strict=True):
        off = len(parts[split]) - max(1, round(fraction * len(names)))
        # Of one group only there is no part; with one left to train with there is no choice.
        assert not fraction or abs(off) <= largest / 2 or len(of[split]) == 1 or len(of["train"]) == 1
    if len(of["train"]) > 1:  # none of those in train would bring a share nearer
        rest = min(groups.count(group) for group in of["train"])
        assert all(
            len(parts[split]) + rest / 2 >= max(1, round(fraction * len(names)))
            for split, fraction in zip(("val", "test"), fractions, strict=True) if fraction
        )  # fmt: skip


@given(names=NAMES, fractions=FRACTIONS, seed=SEEDS, data=st.data())
def test_neither_order_nor_naming_each_its_own_group_matters(
    names: list[str], fractions: tuple[float, float], seed: int, data: st.DataObject
) -> None:
    def of(given: list[str], **keys: Any) -> dict[str, set[str]]:
        return {split: {given[i] for i in its} for split, its in draw(given, *fractions, seed, **keys).items()}

    assert of(names) == of(data.draw(st.permutations(names))) == of(names, groups=grouped(names, None))
    assert len(of(names)["val"]) == max(1, round(fractions[0] * len(names)))


@given(names=NAMES, seed=SEEDS, fraction=st.floats(0.05, 0.4))
def test_a_new_sample_keeps_the_order_of_the_others(names: list[str], seed: int, fraction: float) -> None:
    *before, new = names
    after = [name for name in ordered(names, seed) if name != new]
    assert after == ordered(before, seed)
    small, large = ({given[i] for i in draw(given, fraction, 0, seed)["val"]} for given in (before, names))
    assert len(small - large) <= 1 and len(large - small) <= 1
    at = ordered(before, seed)
    assert small == set(at[: len(small)])


def test_the_order_is_another_with_another_seed() -> None:
    names = [f"{i}" for i in range(20)]
    assert len({tuple(ordered(names, seed)) for seed in range(5)}) == 5
    # It must stay as it is: else the val split of an earlier checkpoint holds what that was trained on.
    assert ordered(names[:6], 0) == ["1", "4", "3", "5", "2", "0"]


@pytest.mark.parametrize("group", [None, "^(town[0-9])"])
def test_photos_and_volumes_of_the_same_names_are_split_alike(tmp_path: Path, group: str | None) -> None:
    for i in range(12):
        name = f"town{i // 3}_{i}"
        photo(tmp_path / f"photos/images/{name}.png")
        index_png(tmp_path / f"photos/masks/{name}.png", rows(0, 1))
        for kind, array in zip(("images", "masks"), phantom((4, 5, 3)), strict=True):
            write_nifti(tmp_path / f"scans/{kind}/{name}.nii", array)
    keys: dict[str, Any] = {
        "images": "images", "masks": "masks", "val_fraction": 0.25, "test_fraction": 0.2, "split_seed": 3, "group": group
    }  # fmt: skip
    for split in ("train", "val", "test"):
        photos = Folder(split, str(tmp_path / "photos"), ["land", "water"], **keys)
        scans = Nifti(split, str(tmp_path / "scans"), {"one": 1, "two": 2}, **keys)
        assert {photos.name(i) for i in range(len(photos))} == {scans.whole(i) for i in range(len(scans))}, split
        assert photos.drawn and scans.drawn


def test_a_growing_data_set_keeps_most_of_its_split() -> None:
    names = [f"case{i}" for i in range(100)]
    before, after = (set(draw(given, 0.2, 0, 0)["val"].tolist()) for given in (names[:90], names))
    assert len(before ^ {i for i in after if i < 90}) <= 4


def test_too_few_groups_are_refused() -> None:
    names = ["sub-1_a", "sub-1_b", "sub-2_a"]
    groups = ["sub-1", "sub-1", "sub-2"]
    said = "val_fraction: of 3 volumes in 2 groups none is left for the split 'val'; take smaller groups"
    with pytest.raises(UserError, match=said):
        draw(names, 0.3, 0.3, 0, groups, "volumes")
    assert [its.tolist() for its in draw(names, 0.9, 0, 0, groups).values()] == [[2], [0, 1], []]
    with pytest.raises(
        UserError, match=r"val_fraction: of 1 images none is left for the split 'val'; take more images$"
    ):
        draw(["a"], 0.1, 0.1, 0)


def test_a_split_gets_the_smallest_group_rather_than_none() -> None:
    shares = draw([f"{i}" for i in range(10)], 0.1, 0, 0, ["a"] * 6 + ["b"] * 4)
    assert shares["val"].tolist() == [6, 7, 8, 9]


def test_lists() -> None:
    shares = listed(["a", "b", "c", "d"], ["c"], ["a"], "volumes")
    assert {split: its.tolist() for split, its in shares.items()} == {"train": [1, 3], "val": [2], "test": [0]}
    assert all(its.dtype == np.int64 for its in shares.values())
    for val, test, said in (
        (["e"], None, r"data.dataset.val: there is no 'e'; the data has a, b, c, d"),
        (["a"], ["a"], r"data.dataset.test: 'a' is in data.dataset.val too"),
        (["a", "b"], ["c", "d"], r"data.dataset.val: of 4 volumes none is left for the split 'train'; change it"),
        (None, ["a"], r"data.dataset.val: of 4 volumes none is left for the split 'val'; change it"),
    ):
        with pytest.raises(UserError, match=said):
            listed(["a", "b", "c", "d"], val, test, "volumes")
