"""s4GAN's losses against their formulas, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from src.losses.adversarial import one_hot, unpaired_discriminator_loss
from src.models.s4gan import matching, s4gan
from src.networks.discriminators import whole_image
from tests.models.test_semi import VOID, Small, unlabelled_batch


class Judged(Small):
    """What s4GAN asks of a model, and no more."""

    def __init__(self, threshold: float, **options: Any) -> None:
        super().__init__(method="s4gan", discriminator_threshold=threshold, **options)
        torch.manual_seed(2)
        self.discriminator = whole_image(3, 3, width=8, depth=2, dropout=0.0)
        self.adversarial, self.truth, self.truth_confidence = "bce", "onehot", 1.0
        self.generated, self.gumbel_temperature, self.feature_weight = "softmax", 1.0, 0.1
        self.global_step, self.judged = 0, dict[str, Tensor]()

    def normalization(self, image: Tensor) -> Tensor:
        return image / 2

    def believed(self, scores: Tensor) -> Tensor:
        return scores.sigmoid()

    def as_shown(self, scores: Tensor) -> Tensor:
        return scores.sigmoid()


def passed(model: Judged, batch: Any) -> dict[str, Tensor]:
    """Scores [B] and features [B, C] of truth and of predictions, computed here."""
    found: dict[str, Tensor] = {}
    logits = model.network(batch["unlabeled_image"])["logits"]
    known = (batch["mask"] != VOID).unsqueeze(1).float()
    seen = {
        "real": (one_hot(batch["mask"], 3), batch["image"] / 2, known),
        "fake": (
            logits.softmax(dim=1),
            batch["unlabeled_image"] / 2,
            (batch["unlabeled_mask"] != VOID).unsqueeze(1).float(),
        ),
    }
    for name, (label_map, image, valid) in seen.items():
        scores, features = model.discriminator(label_map, image, valid)
        found[name], found[f"{name} features"] = scores.flatten(), features[-1].flatten(1)
    return found | {"logits": logits}


def batch_of_two_sizes() -> Any:
    batch = unlabelled_batch()
    batch["mask"][0, :3] = 2
    batch["mask"][1, :, 6:] = VOID
    return batch


def test_the_generator_matches_features_and_learns_of_images_that_pass_for_real() -> None:
    batch = batch_of_two_sizes()
    confidences = passed(Judged(0.5), batch)["fake"].sigmoid()
    threshold = float(confidences.detach().median())  # of four images one is at it, and not above it
    model = Judged(threshold, weight=0.7)
    logged: dict[str, Tensor] = {}
    generating, judging = s4gan(model, batch, model.network(batch["image"])["logits"], logged)  # type: ignore[arg-type]
    found = passed(model, batch)
    features = (found["real features"].mean(dim=0) - found["fake features"].mean(dim=0)).abs().mean()
    total, counted = 0.0, 0
    for b, y, x in np.ndindex(4, 6, 8):
        if confidences[b] > threshold and batch["unlabeled_mask"][b, y, x] != VOID:
            counted += 1
            total -= float(found["logits"][b, :, y, x].detach().double().log_softmax(dim=0).max())
    assert 0 < counted < 4 * 6 * 8 - 18
    assert float(logged["unlabeled_loss"]) == pytest.approx(total / counted, rel=1e-5)
    assert float(logged["feature_loss"]) == pytest.approx(float(features.detach()), rel=1e-5)
    assert float(generating.detach()) == pytest.approx(0.1 * float(features.detach()) + 0.7 * total / counted, rel=1e-5)
    real, fake = ([float(one) for one in found[name].detach()] for name in ("real", "fake"))
    expected = sum(math.log1p(math.exp(-s)) for s in real) / len(real) / 2
    expected += sum(math.log1p(math.exp(s)) for s in fake) / len(fake) / 2
    assert float(judging.detach()) == pytest.approx(expected, rel=1e-5)
    assert logged["d_real"] == pytest.approx(float(found["real"].sigmoid().mean()))


def test_each_part_learns_from_its_own_loss() -> None:
    model, batch = Judged(0.0), batch_of_two_sizes()
    logits = model.network(batch["image"])["logits"]
    generating, judging = s4gan(model, batch, logits, {})  # type: ignore[arg-type]
    judging.backward(retain_graph=True)
    assert all(p.grad is None for p in model.network.parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.discriminator.parameters())
    model.discriminator.zero_grad()
    generating.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.network.parameters())
    assert all(p.grad is None for p in model.discriminator.parameters())


def test_no_image_passes_before_the_start_or_above_the_threshold() -> None:
    batch = batch_of_two_sizes()
    for model in (Judged(1.0), Judged(0.0, start=1)):
        logged: dict[str, Tensor] = {}
        generating, _ = s4gan(model, batch, model.network(batch["image"])["logits"], logged)  # type: ignore[arg-type]
        assert float(generating.detach()) == pytest.approx(0.1 * float(logged["feature_loss"]), rel=1e-5)


def test_as_many_of_one_kind_as_of_the_other_are_not_needed() -> None:
    real, fake = torch.tensor([1.0, 3.0, -2.0]), torch.tensor([0.5])
    expected = ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2
    assert float(unpaired_discriminator_loss("lsgan", real, fake)) == pytest.approx(float(expected))
    maps = torch.randn(3, 4, 2, 5), torch.randn(1, 4, 6, 1)
    expected = (maps[0].mean(dim=(0, 2, 3)) - maps[1].mean(dim=(0, 2, 3))).abs().mean()
    assert float(matching(*maps)) == pytest.approx(float(expected), rel=1e-5)
