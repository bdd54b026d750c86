"""Adversarial losses against formulas written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from src.losses.adversarial import (
    Kind,
    discriminator_loss,
    feature_distance,
    generator_loss,
    map_distance,
    one_hot,
)

Array = npt.NDArray[np.float64]
VOID = 255


def sigmoid(x: Array) -> Array:
    out: Array = 1 / (1 + np.exp(-x))
    return out


# Of a real score, of a generated one, and of the generator for its own.
FORMULAS: dict[Kind, tuple[Callable[[Array], Array], ...]] = {
    "bce": (lambda s: -np.log(sigmoid(s)), lambda s: -np.log(1 - sigmoid(s)), lambda s: -np.log(sigmoid(s))),
    "lsgan": (lambda s: (s - 1) ** 2, lambda s: s**2, lambda s: (s - 1) ** 2 / 2),
    "hinge": (lambda s: np.maximum(0, 1 - s), lambda s: np.maximum(0, 1 + s), lambda s: -s),
}
BLIND = {"bce": np.log(2), "lsgan": 0.25, "hinge": 1.0}  # the cost of one that cannot tell, at its best


def scores(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of real and generated maps, and weights in 0…1 of which some are 0."""
    generator = torch.Generator().manual_seed(seed)
    real, fake = 2 * torch.randn(2, 3, 1, 4, 5, generator=generator)
    return real, fake, (torch.rand(3, 1, 4, 5, generator=generator) - 0.2).clamp_min(0)


@pytest.mark.parametrize("kind", FORMULAS)
class TestLoss:
    def test_values_are_the_formulas(self, kind: Kind) -> None:
        of_real, of_fake, of_generator = FORMULAS[kind]
        for seed in range(5):
            given = scores(seed)
            real, fake, weight = (x.double().numpy() for x in given)
            expected = (0.5 * (of_real(real) + of_fake(fake)) * weight).sum() / weight.sum()
            assert float(discriminator_loss(kind, *given)) == pytest.approx(expected, rel=1e-5)
            expected = (of_generator(fake) * weight).sum() / weight.sum()
            assert float(generator_loss(kind, given[1], given[2])) == pytest.approx(expected, rel=1e-5)

    def test_no_weight_costs_nothing_and_moves_nothing(self, kind: Kind) -> None:
        real, fake, weight = scores(0)
        losses = discriminator_loss(kind, real.requires_grad_(), fake.requires_grad_(), torch.zeros_like(weight))
        losses = losses + generator_loss(kind, fake, torch.zeros_like(weight))
        losses.backward()
        assert float(losses.detach()) == 0
        for x in (real, fake):
            assert x.grad is not None and not x.grad.any()

    def test_gradients_point_the_right_way(self, kind: Kind) -> None:
        """Downhill, the generator raises its scores; the discriminator raises the truth's and lowers the generator's."""
        real, fake, weight = (x.double() for x in scores(1))
        real, fake = (0.4 * x.tanh() + shift for x, shift in ((real, 0.5), (fake, 0.5)))  # within hinge's margins
        real.requires_grad_(), fake.requires_grad_()
        (up,) = torch.autograd.grad(generator_loss(kind, fake, weight), fake)
        truth_up, fake_down = torch.autograd.grad(discriminator_loss(kind, real, fake, weight), [real, fake])
        counted = weight > 0
        assert (up[counted] < 0).all() and (truth_up[counted] < 0).all() and (fake_down[counted] > 0).all()
        assert not any(gradient[~counted].any() for gradient in (up, truth_up, fake_down))

    def test_what_one_that_cannot_tell_pays(self, kind: Kind) -> None:
        blind = torch.full((2, 1, 3, 3), 0.5 if kind == "lsgan" else 0.0)
        assert float(discriminator_loss(kind, blind, blind, torch.ones(2, 1, 3, 3))) == pytest.approx(BLIND[kind])

    def test_large_scores_in_low_precision_stay_finite(self, kind: Kind) -> None:
        high = torch.full((1, 1, 2, 2), 90.0, dtype=torch.bfloat16)
        for loss in (discriminator_loss(kind, -high, high, torch.ones(1, 1, 2, 2)), generator_loss(kind, -high, high)):
            assert loss.dtype == torch.float32
            assert loss.isfinite() and loss > 10


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0, 1), st.sampled_from([1, 2]))
def test_a_maps_distance_is_numpys(seed: int, classes: int, void: float, power: Literal[1, 2]) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.ones(classes), size=(2, 5, 6)).transpose(0, 3, 1, 2)
    mask = np.where(rng.random((2, 5, 6)) < void, VOID, rng.integers(classes, size=(2, 5, 6)))
    distances = [
        (np.abs(probability[b, :, y, x] - np.eye(classes)[mask[b, y, x]]) ** power).sum()
        for b, y, x in np.argwhere(mask != VOID)
    ]
    found = map_distance(torch.from_numpy(probability), torch.from_numpy(mask), VOID, power)
    assert float(found) == pytest.approx(np.mean(distances) if distances else 0, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_one_hot(dtype: torch.dtype) -> None:
    encoded = one_hot(torch.tensor([[[0, 2], [1, VOID]]], dtype=dtype), 3)
    assert encoded.dtype == torch.float32
    assert encoded.permute(0, 2, 3, 1).tolist() == [[[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 0]]]]


def test_feature_distance_is_the_mean_over_layers_of_mean_absolute_differences() -> None:
    rng = np.random.default_rng(0)
    pairs: list[tuple[Any, Any]] = [(rng.normal(size=s), rng.normal(size=s)) for s in ((2, 3, 8, 8), (2, 6, 4, 4))]
    expected = np.mean([np.abs(a - b).mean() for a, b in pairs])
    real, fake = ([torch.from_numpy(x) for x in side] for side in zip(*pairs, strict=True))
    assert float(feature_distance(real, fake)) == pytest.approx(expected)
    assert float(feature_distance(real, real)) == 0
