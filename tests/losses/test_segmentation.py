"""Losses against references, and what every loss of `conf/loss` promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from src.losses.segmentation import (
    CrossEntropy,
    CrossEntropyDice,
    CrossEntropyLovasz,
    Dice,
    Focal,
    Lovasz,
    Ohem,
)
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "conf" / "loss").glob("*.yaml"))
K, VOID = 4, 255
BuildLoss = Callable[..., nn.Module]


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def build(request: pytest.FixtureRequest) -> BuildLoss:
    """Builds one of the configured losses."""
    config = OmegaConf.load(request.param)
    return lambda **given: instantiate(config, **given)


def batch(seed: int = 0, void: float = 0.3, shape: tuple[int, int, int] = (2, 9, 7)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn((shape[0], K, *shape[1:]), generator=generator)
    mask = torch.randint(0, K, shape, generator=generator)
    mask[torch.rand(shape, generator=generator) < void] = VOID
    return logits, mask


def value_and_gradient(loss: nn.Module, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits, mask)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def test_every_loss_is_configured() -> None:
    assert {p.stem for p in CONFIGS} == {"ce", "dice", "ce_dice", "focal", "lovasz", "ce_lovasz", "ohem"}


class TestEveryLoss:
    def test_is_a_finite_float32_scalar_with_gradients(self, build: BuildLoss) -> None:
        value, gradient = value_and_gradient(build(), *batch())
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert value > 0
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0

    def test_falls_to_nothing_for_right_and_sure_logits(self, build: BuildLoss) -> None:
        _, mask = batch(void=0)
        logits = 50 * F.one_hot(mask, K).movedim(-1, 1).float()
        value, gradient = value_and_gradient(build(), logits, mask)
        assert value < 1e-4
        assert gradient.isfinite().all()

    def test_descending_its_gradient_learns_the_mask(self, build: BuildLoss) -> None:
        logits, mask = batch()
        logits = logits.requires_grad_()
        loss, optimizer = build(), torch.optim.Adam([logits], lr=0.3)
        for _ in range(60):
            optimizer.zero_grad()
            loss(logits, mask).backward()
            optimizer.step()
        valid = mask != VOID
        assert (logits.argmax(1) == mask)[valid].float().mean() > 0.95

    @pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]], ids=["plain", "weighted"])
    def test_only_ignored_pixels_cost_nothing(self, build: BuildLoss, weights: list[float] | None) -> None:
        loss = build(class_weights=None if weights is None else torch.tensor(weights))
        logits, mask = batch(void=1.0)
        value, gradient = value_and_gradient(loss, logits, mask)
        assert value == 0
        assert (gradient == 0).all()

    def test_ignored_pixels_change_nothing(self, build: BuildLoss) -> None:
        logits, mask = batch()
        void = (mask == VOID).unsqueeze(1).expand_as(logits)
        before, gradient_before = value_and_gradient(build(), logits, mask)
        after, gradient_after = value_and_gradient(build(), torch.where(void, -7 * logits, logits), mask)
        torch.testing.assert_close(after, before)
        torch.testing.assert_close(gradient_after, gradient_before)
        assert (gradient_after[void] == 0).all()

    def test_ignored_pixels_are_as_if_cut_away(self, build: BuildLoss) -> None:
        logits, mask = batch(void=0)
        mask[:, 5:] = VOID
        whole, _ = value_and_gradient(build(), logits, mask)
        cut, _ = value_and_gradient(build(), logits[:, :, :5], mask[:, :5])
        torch.testing.assert_close(whole, cut)

    @pytest.mark.parametrize("ignore_index", [-1, 0, 3, 200])
    def test_any_ignore_index(self, build: BuildLoss, ignore_index: int) -> None:
        logits, mask = batch()
        if 0 <= ignore_index < K:  # a class that is ignored: none may be left of it
            mask[mask == ignore_index] = VOID
        value, gradient = value_and_gradient(build(), logits, mask)
        mask[mask == VOID] = ignore_index
        same, same_gradient = value_and_gradient(build(ignore_index=ignore_index), logits, mask)
        torch.testing.assert_close(same, value)
        torch.testing.assert_close(same_gradient, gradient)

    def test_uint8_and_int64_masks_are_the_same(self, build: BuildLoss) -> None:
        logits, mask = batch()
        assert torch.equal(build()(logits, mask.byte()), build()(logits, mask))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_logits_are_computed_in_float32(self, build: BuildLoss, dtype: torch.dtype) -> None:
        logits, mask = batch()
        half = logits.to(dtype)
        assert torch.equal(build()(half, mask), build()(half.float(), mask))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(build()(half, mask), build()(half.float(), mask))

    def test_equal_class_weights_are_no_weights(self, build: BuildLoss) -> None:
        logits, mask = batch()
        torch.testing.assert_close(build(class_weights=torch.full((K,), 3.0))(logits, mask), build()(logits, mask))

    def test_class_weights_act_and_are_not_saved(self, build: BuildLoss) -> None:
        logits, mask = batch()
        loss = build(class_weights=torch.tensor([5.0, 1.0, 0.5, 0.0], dtype=torch.float64))
        assert loss(logits, mask) != build()(logits, mask)
        assert dict(loss.named_buffers())["class_weights"].dtype == torch.float32
        assert loss.state_dict() == {}

    def test_a_batch_of_a_class_of_weight_zero_costs_nothing(self, build: BuildLoss) -> None:
        logits, mask = batch()
        mask[mask != VOID] = 3
        value, gradient = value_and_gradient(build(class_weights=torch.tensor([1.0, 1, 1, 0])), logits, mask)
        assert value == 0
        assert (gradient == 0).all()

    def test_memory_format_does_not_matter(self, build: BuildLoss) -> None:
        logits, mask = batch()
        last = logits.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(build()(last, mask), build()(logits, mask))

    def test_runs_with_deterministic_algorithms(self, build: BuildLoss) -> None:
        torch.use_deterministic_algorithms(True)
        try:
            value_and_gradient(build(), *batch())
        finally:
            torch.use_deterministic_algorithms(False)


class TestCrossEntropy:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    @pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.5, 2.0, 3.0])], ids=["plain", "weighted"])
    @pytest.mark.parametrize("void", [0.0, 0.3])
    def test_equals_torch(self, smoothing: float, weights: Tensor | None, void: float) -> None:
        logits, mask = batch(void=void)
        loss = CrossEntropy(smoothing, class_weights=weights)
        expected = F.cross_entropy(logits, mask, weights, ignore_index=VOID, label_smoothing=smoothing)
        torch.testing.assert_close(loss(logits, mask), expected)


class TestDice:
    @pytest.mark.parametrize("smooth", [0.0, 1.0])
    @pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]], ids=["plain", "weighted"])
    def test_equals_numpy(self, smooth: float, weights: list[float] | None) -> None:
        logits, mask = batch()
        mask[mask == 2] = VOID  # an absent class does not count
        loss = Dice(smooth, class_weights=None if weights is None else torch.tensor(weights))
        z, t = logits.double().numpy(), mask.numpy()
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        losses, present = [], []
        for k in range(K):
            q, y = p[:, k][t != VOID], t[t != VOID] == k
            if y.any():
                losses.append(1 - (2 * (q * y).sum() + smooth) / (q.sum() + y.sum() + smooth))
                present.append(1.0 if weights is None else weights[k])
        assert len(losses) == 3
        expected = np.average(losses, weights=present)
        assert loss(logits, mask).item() == pytest.approx(expected, rel=1e-5)


class TestFocal:
    @pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.5, 2.0, 3.0])], ids=["plain", "weighted"])
    def test_gamma_zero_is_cross_entropy(self, weights: Tensor | None) -> None:
        logits, mask = batch()
        value, gradient = value_and_gradient(Focal(0.0, class_weights=weights), logits, mask)
        expected, expected_gradient = value_and_gradient(CrossEntropy(class_weights=weights), logits, mask)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, expected_gradient)

    @pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
    def test_equals_the_formula(self, gamma: float) -> None:
        logits, mask = batch()
        p = logits.softmax(1).gather(1, mask.clamp(max=K - 1).unsqueeze(1)).squeeze(1)[mask != VOID]
        torch.testing.assert_close(Focal(gamma)(logits, mask), (-((1 - p) ** gamma) * p.log()).mean())

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
    def test_sure_pixels_have_finite_gradients(self, gamma: float) -> None:
        _, mask = batch()
        logits = 1000 * F.one_hot(mask.clamp(max=K - 1), K).movedim(-1, 1).float()
        _, gradient = value_and_gradient(Focal(gamma), logits, mask)
        assert gradient.isfinite().all()


class TestLovasz:
    def test_is_the_jaccard_loss_where_probabilities_are_zero_or_one(self) -> None:
        """Brute force: all predictions of four pixels of two classes, for all truths."""
        for truth, prediction in itertools.product(itertools.product((0, 1), repeat=4), repeat=2):
            t, p = np.array(truth), np.array(prediction)
            logits = 200 * F.one_hot(torch.tensor(prediction), 2).T.reshape(1, 2, 1, 4).float()
            losses = [1 - ((t == k) & (p == k)).sum() / ((t == k) | (p == k)).sum() for k in set(truth)]
            value = Lovasz()(logits, torch.tensor(truth).reshape(1, 1, 4))
            assert value.item() == pytest.approx(float(np.mean(losses)), abs=1e-6)

    def test_is_the_lovasz_extension_of_the_jaccard_loss(self) -> None:
        """By definition: the integral, over thresholds, of the loss of the errors above the threshold."""
        logits, mask = batch(shape=(1, 4, 3))
        t = mask.flatten().numpy()
        p = logits.double().softmax(1)[0].flatten(1).numpy()
        losses = []
        for k in range(K):
            truth = (t == k)[t != VOID]
            if not truth.any():
                continue
            errors = np.abs(truth - p[k][t != VOID])
            levels = np.concatenate([[0], np.sort(errors)])
            value = 0.0
            for low, high in itertools.pairwise(levels):
                wrong = errors >= high
                value += (high - low) * wrong.sum() / (truth | wrong).sum()
            losses.append(value)
        assert Lovasz()(logits, mask).item() == pytest.approx(np.mean(losses), rel=1e-5)

    def test_equals_smp(self) -> None:
        logits, mask = batch()
        value, gradient = value_and_gradient(Lovasz(), logits, mask)
        theirs = smp.losses.LovaszLoss("multiclass", ignore_index=VOID)
        expected, expected_gradient = value_and_gradient(theirs, logits, mask)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, expected_gradient)

    def test_keeps_its_precision_on_many_pixels(self) -> None:
        """Equal errors are the loss, however many pixels there are, as the slopes add up to 1."""
        mask = (torch.arange(2_000_000) % 3 == 0).long().reshape(1, 1, -1)
        value = Lovasz()(torch.zeros(1, 2, 1, mask.numel()), mask)
        assert value.item() == pytest.approx(0.5, rel=1e-5)

    def test_class_weights_weigh_the_classes_losses(self) -> None:
        logits, mask = batch()
        mask[mask == 2] = VOID
        alone = [Lovasz(class_weights=w)(logits, mask).item() for w in torch.eye(K)]
        value = Lovasz(class_weights=torch.tensor([1.0, 2.0, 5.0, 4.0]))(logits, mask)
        assert value.item() == pytest.approx((alone[0] + 2 * alone[1] + 4 * alone[3]) / 7, rel=1e-5)
        assert alone[2] == 0


class TestCombinations:
    def test_ce_dice_is_the_weighted_sum(self) -> None:
        logits, mask = batch()
        weights = torch.tensor([1.0, 0.5, 2.0, 3.0])
        both = CrossEntropyDice(0.3, 2.0, label_smoothing=0.1, smooth=0.0, class_weights=weights)
        ce = CrossEntropy(0.1, class_weights=weights)(logits, mask)
        dice = Dice(0.0, class_weights=weights)(logits, mask)
        torch.testing.assert_close(both(logits, mask), 0.3 * ce + 2.0 * dice)

    def test_ce_lovasz_is_the_weighted_sum(self) -> None:
        logits, mask = batch()
        weights = torch.tensor([1.0, 0.5, 2.0, 3.0])
        both = CrossEntropyLovasz(0.3, 2.0, label_smoothing=0.1, class_weights=weights)
        ce = CrossEntropy(0.1, class_weights=weights)(logits, mask)
        torch.testing.assert_close(both(logits, mask), 0.3 * ce + 2.0 * Lovasz(class_weights=weights)(logits, mask))


class TestOhem:
    @staticmethod
    def losses(logits: Tensor, mask: Tensor) -> Tensor:
        """Cross entropy of the valid pixels, the hardest first."""
        return F.cross_entropy(logits, mask, ignore_index=VOID, reduction="none")[mask != VOID].sort(descending=True)[0]

    @pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
    def test_keeps_the_hardest_share(self, share: float) -> None:
        logits, mask = batch()
        losses = self.losses(logits, mask)
        kept = int(np.ceil(share * len(losses)))
        value, gradient = value_and_gradient(Ohem(threshold=0.0, min_kept=share), logits, mask)
        torch.testing.assert_close(value, losses[:kept].mean())
        assert (gradient.abs().sum(1) > 0).sum() == kept

    def test_keeps_all_below_the_threshold(self) -> None:
        logits, mask = batch()
        losses = self.losses(logits, mask)
        hard = losses[(-losses).exp() < 0.4]
        assert 0.1 < len(hard) / len(losses) < 0.9
        torch.testing.assert_close(Ohem(threshold=0.4, min_kept=0.05)(logits, mask), hard.mean())

    def test_threshold_one_is_cross_entropy(self) -> None:
        logits, mask = batch()
        torch.testing.assert_close(Ohem(1.0, 0.0)(logits, mask), CrossEntropy()(logits, mask))

    def test_nothing_kept_costs_nothing(self) -> None:
        value, gradient = value_and_gradient(Ohem(0.0, 0.0), *batch())
        assert value == 0
        assert (gradient == 0).all()
