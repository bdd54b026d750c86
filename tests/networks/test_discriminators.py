"""Every discriminator goes through the same tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.losses.adversarial import discriminator_loss
from src.networks.discriminators import Discriminator, fcn, patchgan, pixel, score_weight, whole_image

CLASSES, CHANNELS = 5, 3
KINDS: dict[str, tuple[Callable[..., Discriminator], dict[str, Any]]] = {
    "fcn": (fcn, {"depth": 4}),
    "patchgan, no norm": (patchgan, {"depth": 2, "norm": "none"}),
    "patchgan, instance norm": (patchgan, {"depth": 2, "norm": "instance"}),
    "patchgan, batch norm": (patchgan, {"depth": 2, "norm": "batch"}),
    "pixel": (pixel, {}),
    "whole image": (whole_image, {"depth": 2, "dropout": 0.0}),
}
# Stride of the scores, and how many rows and columns the layers of stride 1 cost.
GRID = {"fcn": (16, 0), "pixel": (1, 0)}


def build(kind: str, **own: Any) -> Discriminator:
    torch.manual_seed(0)
    function, given = KINDS[kind]
    return function(CLASSES, CHANNELS, width=4, **given | own)


def batch(height: int, width: int, count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """A soft map, an image, and which pixels are valid: about nine of ten."""
    torch.manual_seed(1)
    probability = torch.randn(count, CLASSES, height, width).softmax(dim=1)
    valid = (torch.rand(count, 1, height, width) < 0.9).float()
    return probability, torch.randn(count, CHANNELS, height, width), valid


@pytest.mark.parametrize("spectral_norm", [False, True], ids=["plain", "spectral"])
@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("kind", KINDS)
class TestDiscriminator:
    def test_any_image_size_is_scored_region_by_region(self, kind: str, conditional: bool, spectral_norm: bool) -> None:
        discriminator = build(kind, conditional=conditional, spectral_norm=spectral_norm)
        if kind == "whole image":
            assert build(kind, conditional=conditional)(*batch(33, 47))[0].shape == (2, 1, 1, 1)
            return
        stride, lost = GRID.get(kind, (4, 2))
        smallest = discriminator.smallest
        for height, width in ((33, 47), (64, 96), (smallest, smallest)):
            scores, features = discriminator(*batch(height, width))
            assert scores.shape == (2, 1, height // stride - lost, width // stride - lost)
            assert len(features) == len(discriminator.layers) - 1
            assert all(f.shape[0] == 2 and f.shape[2] >= scores.shape[2] for f in features)
            assert scores.isfinite().all()

    def test_gradients_reach_every_parameter_and_the_map(
        self, kind: str, conditional: bool, spectral_norm: bool
    ) -> None:
        discriminator = build(kind, conditional=conditional, spectral_norm=spectral_norm)
        probability, image, valid = batch(33, 47)
        discriminator(probability.requires_grad_(), image, valid)[0].square().mean().backward()
        for key, parameter in discriminator.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all() and parameter.grad.any(), key
        assert probability.grad is not None and probability.grad.any()

    def test_a_state_dict_gives_the_same_scores(self, kind: str, conditional: bool, spectral_norm: bool) -> None:
        first, second = (build(kind, conditional=conditional, spectral_norm=spectral_norm).eval() for _ in range(2))
        for parameter in second.parameters():
            nn.init.normal_(parameter)
        given = batch(33, 47)
        assert not torch.equal(first(*given)[0], second(*given)[0])
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(*given)[0], second(*given)[0])

    def test_bf16(self, kind: str, conditional: bool, spectral_norm: bool) -> None:
        discriminator = build(kind, conditional=conditional, spectral_norm=spectral_norm)
        given = batch(48, 48)
        expected = discriminator(*given)[0]
        with torch.autocast("cpu", torch.bfloat16):
            scores = discriminator(*given)[0]
        assert scores.dtype == torch.bfloat16
        assert (scores.float() - expected).abs().mean() < 0.1 * expected.abs().mean() + 0.05

    def test_ignored_pixels_change_nothing(self, kind: str, conditional: bool, spectral_norm: bool) -> None:
        discriminator = build(kind, conditional=conditional, spectral_norm=spectral_norm).eval()
        probability, image, valid = batch(33, 47)
        other = [torch.where(valid > 0, x, torch.rand_like(x)) for x in (probability, image)]
        scores, same = discriminator(probability, image, valid)[0], discriminator(*other, valid)[0]
        assert torch.equal(scores, same)
        assert not torch.equal(scores, discriminator(*other, torch.ones_like(valid))[0])
        weight = score_weight(valid, scores)
        costs = [discriminator_loss("bce", s, s.flip(0), weight) for s in (scores, same)]
        assert costs[0] == costs[1]

    def test_only_a_conditional_one_sees_the_image(self, kind: str, conditional: bool, spectral_norm: bool) -> None:
        discriminator = build(kind, conditional=conditional, spectral_norm=spectral_norm).eval()
        probability, image, valid = batch(33, 47)
        scores, others = (discriminator(probability, x, valid)[0] for x in (image, -image))
        assert torch.equal(scores, others) == (not conditional)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pixel"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_image_one_pixel_too_small_cannot_be_scored(kind: str, depth: int) -> None:
    discriminator = build(kind, depth=depth)
    smallest = discriminator.smallest
    assert discriminator(*batch(smallest, smallest))[0].numel() == 2
    with pytest.raises((RuntimeError, ValueError)):
        discriminator(*batch(smallest - 1, smallest))


@pytest.mark.parametrize("kind", KINDS)
def test_spectral_norm_bounds_every_layer(kind: str) -> None:
    for spectral_norm in (True, False):
        discriminator = build(kind, spectral_norm=spectral_norm)
        convolutions = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
        with torch.no_grad():
            for parameter in discriminator.parameters():
                parameter.mul_(7)  # as training may have made them
            for _ in range(50):
                discriminator(*batch(16, 16))
            largest = torch.stack([torch.linalg.svdvals(c.weight.flatten(1))[0] for c in convolutions])
        assert bool(((largest - 1).abs() < 0.05).all()) == spectral_norm


def test_a_score_counts_with_the_share_of_its_pixels_that_are_valid() -> None:
    valid = torch.ones(1, 1, 4, 8)
    valid[..., :2, :4] = 0
    valid[..., 0, 4] = 0
    assert score_weight(valid, torch.empty(1, 1, 2, 2)).flatten().tolist() == [0, 1 - 1 / 8, 1, 1]
