"""What every loss of `conf/loss` promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from src.config.parts import Part
from src.losses.cldice import ClDice
from src.training.build import build_loss
from tests.losses.batches import VOID, K, batch, value_and_gradient

CONFIGS = sorted(
    file
    for file in (Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml")
    if file.stem != "l1"  # of images: test_l1.py
)
BuildLoss = Callable[..., nn.Module]


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def build(request: pytest.FixtureRequest) -> BuildLoss:
    """Builds one of the configured losses."""
    config = OmegaConf.load(request.param)
    node: Any = OmegaConf.to_container(config)
    return lambda **given: build_loss(Part(node=node), **given)


def test_every_loss_is_configured() -> None:
    assert {p.stem for p in CONFIGS} == {
        "ce", "dice", "ce_dice", "focal", "lovasz", "ce_lovasz", "ohem", "tversky", "generalized_dice", "cldice", "boundary",
        "hausdorff", "sum", "mask_classification", "pidnet", "stdc",
    }  # fmt: skip


def test_a_loss_stands_in_the_file_of_its_name() -> None:
    for config in CONFIGS:
        assert str(OmegaConf.select(OmegaConf.load(config), "_target_")).startswith(f"src.losses.{config.stem}."), (
            config
        )


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
        learnt = (logits.argmax(1) == mask)[valid].float().mean()
        # of class 0 and of what is beside a centreline clDice says little
        assert learnt > (0.85 if isinstance(loss, ClDice) else 0.95)

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
