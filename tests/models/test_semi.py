"""Learning from images without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from src.models.base import Segmenter
from src.models.fixmatch import pseudo_labels
from src.models.semi import cutmix, ramped, unlabeled_loss
from src.training.build import build_data, build_model
from tests.conftest import settings

VOID = 255


def coded(count: int = 4, height: int = 20, width: int = 30) -> tuple[Tensor, Tensor]:
    """Images whose pixels are all different and tell image, row and column; labels are the same numbers."""
    label = torch.arange(count * height * width).view(count, height, width)
    return label.float().unsqueeze(1).expand(-1, 3, -1, -1), label


class TestCutMix:
    def test_a_label_moves_with_its_pixel_and_stays_where_it_was(self) -> None:
        image, label = coded()
        for seed in range(30):
            torch.manual_seed(seed)
            mixed, moved = cutmix(image, label, 1.0)
            assert torch.equal(mixed[:, 0].long(), moved)
            assert torch.equal(moved % label[0].numel(), label % label[0].numel())  # row and column are kept
            origin = moved // label[0].numel()
            for i in range(4):
                assert set(origin[i].flatten().tolist()) <= {i, (i - 1) % 4}

    def test_distributions_move_as_classes_do(self) -> None:
        image, label = coded()
        torch.manual_seed(0)
        moved = cutmix(image, label, 1.0)[1]
        torch.manual_seed(0)
        distribution = torch.stack([label, -label], dim=1)
        assert torch.equal(cutmix(image, distribution, 1.0)[1], torch.stack([moved, -moved], dim=1))

    def test_what_is_pasted_is_one_box_of_a_moderate_size(self) -> None:
        image, label = coded()
        for seed in range(30):
            torch.manual_seed(seed)
            pasted = cutmix(image, label, 1.0)[1] != label
            for one in pasted:
                rows, columns = (axis.nonzero().flatten() for axis in (one.any(dim=1), one.any(dim=0)))
                assert int(one.sum()) == len(rows) * len(columns)
                assert rows.tolist() == list(range(int(rows[0]), int(rows[-1]) + 1))
                assert 0.01 < one.float().mean() < 0.45

    def test_how_often(self) -> None:
        image, label = coded(count=400, height=8, width=8)
        torch.manual_seed(0)
        shares = [float((cutmix(image, label, p)[1] != label).flatten(1).any(1).float().mean()) for p in (0, 0.5, 1)]
        assert shares == pytest.approx([0, 0.5, 1], abs=0.08)
        assert shares[0] == 0


@pytest.mark.parametrize(
    ("start", "ramp", "expected"),
    [(0, 0, [1, 1, 1, 1, 1, 1]), (2, 0, [0, 0, 1, 1, 1, 1]), (1, 3, [0, 0.25, 0.5, 0.75, 1, 1])],
)
def test_a_weight_starts_and_grows(start: int, ramp: int, expected: list[float]) -> None:
    assert [ramped(step, start, ramp) for step in range(6)] == expected


def test_unlabeled_loss_is_cross_entropy_over_all_valid_pixels() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 6)
    valid = torch.rand(2, 5, 6) < 0.8
    label = torch.randint(4, (2, 5, 6)).masked_fill(~valid | (torch.rand(2, 5, 6) < 0.7), VOID)
    log_probability = logits.double().log_softmax(dim=1).numpy()
    cost = [-log_probability[b, label[b, y, x], y, x] for b, y, x in np.argwhere(label.numpy() != VOID)]
    expected = sum(cost) / int(valid.sum())
    assert float(unlabeled_loss(logits, label, valid, VOID)) == pytest.approx(expected, rel=1e-5)
    distribution = torch.zeros(2, 4, 5, 6).scatter_(1, label.clamp_max(3).unsqueeze(1), 1.0) * (
        label != VOID
    ).unsqueeze(1)
    assert float(unlabeled_loss(logits, distribution, valid, VOID)) == pytest.approx(expected, rel=1e-5)
    nothing = unlabeled_loss(logits.requires_grad_(), torch.full_like(label, VOID), torch.zeros_like(valid), VOID)
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert logits.grad is not None and not logits.grad.any()


class TestPseudoLabels:
    @staticmethod
    def build(tmp_path: Path, *overrides: str) -> tuple[Segmenter, Tensor, Tensor]:
        given = settings(tmp_path, "model.semi=fixmatch", "model.ema_decay=0.9", *overrides)
        source = build_data(given["data"], 0).source("train")
        model = build_model(given, source.label_set, source.channels, source.intensity)
        torch.manual_seed(0)
        assert model.ema is not None
        for parameter in model.ema.parameters():  # so that the average is something else, and sure of some pixels
            parameter.normal_(std=0.1)
        mask = torch.zeros(2, 32, 48, dtype=torch.uint8)
        mask[:, :, -5:] = VOID  # padding
        return model, torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8), mask

    @pytest.mark.parametrize("batch_norm", ["train", "frozen"])
    def test_they_leave_the_model_as_it_was(self, tmp_path: Path, batch_norm: str) -> None:
        model, weak, mask = self.build(tmp_path, f"model.batch_norm={batch_norm}")
        before = {key: value.clone() for key, value in model.state_dict().items()}
        modes = {name: module.training for name, module in model.named_modules()}
        label, _ = pseudo_labels(model, weak, mask)
        assert model.training and not label.requires_grad
        assert {name: module.training for name, module in model.named_modules()} == modes
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_they_are_what_the_average_is_sure_of(self, tmp_path: Path) -> None:
        model, weak, mask = self.build(tmp_path)
        assert model.ema is not None
        with torch.no_grad():
            probability = model.ema.module(model.normalization(weak))["logits"].softmax(dim=1)
            own = model.network(model.normalization(weak))["logits"].argmax(dim=1)
        model.semi.threshold = float(probability.amax(dim=1).median())
        trusted = (probability.amax(dim=1) >= model.semi.threshold) & (mask != VOID)
        label, found = pseudo_labels(model, weak, mask)
        assert torch.equal(found, trusted)
        assert torch.equal(label, probability.argmax(dim=1).where(trusted, torch.tensor(VOID)))
        assert 0.2 < trusted.float().mean() < 0.8
        assert not torch.equal(label[trusted], own[trusted])
        model.semi.soft = True
        soft, found = pseudo_labels(model, weak, mask)
        assert torch.equal(found, trusted)
        assert torch.equal(soft, probability.where(trusted.unsqueeze(1), torch.tensor(0.0)))

    def test_the_discriminator_may_be_asked_too(self, tmp_path: Path) -> None:
        options = ["model=gan", "model.semi.threshold=0", "model.semi.discriminator_threshold=0.5"]
        model, weak, mask = self.build(tmp_path, *options)
        label, trusted = pseudo_labels(model, weak, mask)
        with torch.no_grad():
            model.eval()
            valid = (mask != VOID).unsqueeze(1).float()
            confidence = model.confidence(model.probabilities(weak), model.normalization(weak), valid)  # type: ignore[operator]
        assert torch.equal(label != VOID, trusted)
        assert torch.equal(trusted, (confidence > 0.5) & (mask != VOID))
