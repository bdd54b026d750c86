"""Noise as a generator's second input: where it goes in, and what evaluating with it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.gan import GANSegmenter
from src.models.noise import Noise
from src.training.build import build_data, build_model
from tests.conftest import settings

MAPS = ["model.noise.channels=2"]
VECTOR = ["network=small", "model.noise.latent=4"]


def build(tmp_path: Path, *overrides: str) -> GANSegmenter:
    given = settings(tmp_path, "model=gan", *overrides)
    source = build_data(given["data"], 0).source("train")
    model = build_model(given, source.label_set, source.channels, source.intensity)
    assert isinstance(model, GANSegmenter)
    return model


def images(count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def first_convolution(model: GANSegmenter) -> nn.Conv2d:
    found = next(m for m in model.network.modules() if isinstance(m, nn.Conv2d))
    assert found.in_channels == 3 + model.noise.channels
    return found


@pytest.mark.parametrize("network", ["tiny", "small", "lraspp"])
def test_without_its_noise_the_network_is_as_it_was(tmp_path: Path, network: str) -> None:
    plain, noisy = (build(tmp_path, f"network={network}", *more).network.eval() for more in ([], MAPS))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain(image)["logits"]
        joined = noisy(torch.cat([image, torch.zeros(2, 2, 64, 64)], dim=1))["logits"]
        torch.testing.assert_close(joined, expected, rtol=1e-4, atol=1e-5)
        heard = noisy(torch.cat([image, torch.ones(2, 2, 64, 64)], dim=1))["logits"]
    assert not torch.allclose(heard, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("network", ["small", "lraspp", "deeplabv3"])
def test_a_vector_at_the_bottleneck_is_heard_and_learns(tmp_path: Path, network: str) -> None:
    model = build(tmp_path, f"network={network}", "model.noise.latent=4").train()
    outputs = model.outputs(images())
    assert not torch.equal(outputs["logits"], model.outputs(images())["logits"])  # drawn anew
    outputs["logits"].square().mean().backward()
    for key, parameter in model.network.named_parameters():
        if "noise" in key:
            assert parameter.grad is not None and parameter.grad.any(), key


def test_a_network_without_bottleneck_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.noise\.latent: this network has no encoder .* model\.noise\.channels"):
        build(tmp_path, "network=tiny", "model.noise.latent=4")


@pytest.mark.parametrize("noise", [MAPS, VECTOR])
def test_the_average_has_a_noise_input_of_its_own(tmp_path: Path, noise: list[str]) -> None:
    model = build(tmp_path, *noise, "model.ema_decay=0.9").eval()
    assert model.ema is not None
    with torch.inference_mode():
        before = model.logits(images())
        for parameter in model.network.parameters():
            parameter.zero_()
        assert torch.equal(model.logits(images()), before)
        for key, parameter in model.ema.module.named_parameters():
            if "noise" in key:
                parameter.add_(1)
        assert torch.equal(model.logits(images()), before) == (
            noise == MAPS
        )  # the maps' filters have no name of theirs


@pytest.mark.parametrize("noise", [MAPS, VECTOR])
class TestEvaluation:
    def test_it_repeats_itself_alone_or_in_a_batch_whatever_torch_draws(self, tmp_path: Path, noise: list[str]) -> None:
        model = build(tmp_path, *noise).eval()
        with torch.inference_mode():
            torch.manual_seed(1)
            first = model.logits(images())
            torch.manual_seed(2)
            assert torch.equal(model.logits(images()), first)
            alone = torch.cat([model.logits(image[None]) for image in images()])
            torch.testing.assert_close(alone, first, rtol=1e-4, atol=1e-5)
            other = build(tmp_path, *noise, "seed=43")
            other.load_state_dict(model.state_dict())
            assert not torch.equal(other.eval().logits(images()), first)

    def test_logits_are_the_log_of_the_draws_mean(self, tmp_path: Path, noise: list[str]) -> None:
        model = build(tmp_path, *noise, "model.noise.draws=3").eval()
        with torch.inference_mode():
            draws = list(model._draws(images()))
            assert len(draws) == 3
            assert not torch.equal(draws[0], draws[1])
            mean = torch.stack(draws).mean(dim=0)
            torch.testing.assert_close(model.logits(images()).exp(), mean)
            torch.testing.assert_close(model.probabilities(images()), mean)

    def test_training_sees_one_fresh_draw(self, tmp_path: Path, noise: list[str]) -> None:
        model = build(tmp_path, *noise, "model.batch_norm=frozen").train()
        with torch.no_grad():
            assert not torch.equal(model.logits(images()), model.logits(images()))
            torch.manual_seed(0)
            first = model.logits(images())
            torch.manual_seed(0)
            assert torch.equal(model.logits(images()), first)


def test_uncertainty_is_what_the_noise_does(tmp_path: Path) -> None:
    model = build(tmp_path, *MAPS).eval()
    filters = first_convolution(model).weight

    def uncertainty(factor: float) -> dict[str, Tensor]:
        with torch.inference_mode():
            filters[:, 3:] *= factor
            return model.uncertainty(model.evaluated(images()))

    for values in (some := uncertainty(10)).values():
        assert values.shape == (3, 64, 64)
        assert values.min() >= 0 and values.max() <= 1
    assert some["mutual_information"].mean() > 1e-3
    none = uncertainty(0)
    assert none["mutual_information"].max() < 1e-6
    with torch.inference_mode():
        probability = model.probabilities(images())
    expected = -(probability * probability.log()).sum(dim=1) / torch.tensor(6.0).log()
    torch.testing.assert_close(none["entropy"], expected)


def test_no_noise_draws_nothing() -> None:
    network: Any = nn.Identity()
    torch.manual_seed(0)
    expected = torch.random.get_rng_state()
    image = torch.ones(1, 3, 4, 4)
    assert Noise().join(network, image) is image
    assert torch.equal(torch.random.get_rng_state(), expected)
