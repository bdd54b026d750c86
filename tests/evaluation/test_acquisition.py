"""Which images are chosen for labelling."""

from __future__ import annotations

import itertools

import numpy as np

from src.evaluation.acquisition import chosen


def test_without_features_the_most_uncertain_ones() -> None:
    assert chosen(np.array([0.1, 0.9, 0.5, 0.9]), None, 3, 4) == [1, 3, 2]


def test_copies_of_one_image_are_chosen_once() -> None:
    scores = np.array([0.9, 0.89, 0.88, 0.5, 0.4, 0.1])
    features = np.array([[1, 0, 0], [2, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], float)
    assert chosen(scores, None, 3, 4) == [0, 1, 2]
    assert chosen(scores, features, 3, 4) == [0, 3, 4]
    assert chosen(scores, features, 3, 1) == [0, 1, 2]  # none but these are looked at


def test_each_choice_is_the_farthest_from_those_before() -> None:
    rng = np.random.default_rng(0)
    scores, features = rng.random(30), rng.normal(size=(30, 5))
    places = features / np.linalg.norm(features, axis=1, keepdims=True)
    pool = np.argsort(-scores)[:20]
    found = chosen(scores, features, 5, 4)
    assert found[0] == pool[0] and len(set(found)) == 5 and set(found) <= set(pool.tolist())
    for count in range(1, 5):
        apart = {at: min(1 - places[at] @ places[one] for one in found[:count]) for at in pool.tolist()}
        assert apart[found[count]] == max(apart[at] for at in pool.tolist() if at not in found[:count])


def test_all_are_chosen_where_as_many_are_wanted() -> None:
    scores, features = np.array([0.2, 0.3]), np.zeros((2, 4))
    for given, pool in itertools.product((features, None), (1, 4)):
        assert chosen(scores, given, 2, pool) == [1, 0]
    assert sorted(chosen(np.ones(3), np.zeros((3, 4)), 2, 4)) == [0, 1]  # of no direction
