"""Learning from images without labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from src.data.labels import LabelSet
from src.data.samples import Batch
from src.errors import UserError
from src.models.alignment import Alignment
from src.models.base import Segmenter
from src.models.channel_dropout import channel_mask, complementary_dropout
from src.models.fixmatch import fixmatch, pseudo_labels
from src.models.mean_teacher import mean_teacher
from src.models.semi import SemiSupervision, cutmix, label_figures, ramped, unlabeled_loss
from src.models.unimatch_v2 import unimatch_v2
from src.train import train
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
            mixed, moved = cutmix(1.0, image, label)
            assert torch.equal(mixed[:, 0].long(), moved)
            assert torch.equal(moved % label[0].numel(), label % label[0].numel())  # row and column are kept
            origin = moved // label[0].numel()
            for i in range(4):
                assert set(origin[i].flatten().tolist()) <= {i, (i - 1) % 4}

    def test_distributions_move_as_classes_do(self) -> None:
        image, label = coded()
        torch.manual_seed(0)
        moved = cutmix(1.0, image, label)[1]
        torch.manual_seed(0)
        distribution = torch.stack([label, -label], dim=1)
        assert torch.equal(cutmix(1.0, image, distribution)[1], torch.stack([moved, -moved], dim=1))

    def test_what_is_pasted_is_one_box_of_a_moderate_size(self) -> None:
        image, label = coded()
        for seed in range(30):
            torch.manual_seed(seed)
            pasted = cutmix(1.0, image, label)[1] != label
            for one in pasted:
                rows, columns = (axis.nonzero().flatten() for axis in (one.any(dim=1), one.any(dim=0)))
                assert int(one.sum()) == len(rows) * len(columns)
                assert rows.tolist() == list(range(int(rows[0]), int(rows[-1]) + 1))
                assert 0.01 < one.float().mean() < 0.45

    def test_how_often(self) -> None:
        image, label = coded(count=400, height=8, width=8)
        torch.manual_seed(0)
        shares = [float((cutmix(p, image, label)[1] != label).flatten(1).any(1).float().mean()) for p in (0, 0.5, 1)]
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


class Coded(torch.nn.Module):
    """A network whose logits are a fixed function of each pixel, and which has an encoder."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder = torch.nn.Conv2d(3, 8, 1)
        self.head = torch.nn.Conv2d(8, classes, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.encoder(image))}


class Small:
    """What the methods ask of a model, and no more; the teacher is a network of its own."""

    partner: torch.nn.Module | None = None
    alignment: Alignment | None = None

    def __init__(self, **options: Any) -> None:
        self.semi = SemiSupervision(**options)
        self.label_set = LabelSet(("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (99, 99, 99)))
        self.network, self.teacher, self.training = Coded(), Coded(), True
        with torch.no_grad():
            self.teacher.head.weight += 0.3 * torch.randn_like(self.teacher.head.weight)

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        return self.outputs_of(self.network if self.training else self.teacher, image)

    def outputs_of(self, network: torch.nn.Module, image: Tensor) -> dict[str, Tensor]:
        result: dict[str, Tensor] = network(image)
        return result

    def segmentation_loss(self, outputs: dict[str, Tensor], mask: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs["logits"], mask.long(), ignore_index=VOID)

    def probabilities(self, image: Tensor) -> Tensor:
        return self.outputs(image)["logits"].softmax(dim=1)

    def trusts(self, weak: Tensor, probability: Tensor, mask: Tensor) -> Tensor:
        return probability.amax(dim=1) >= self.semi.threshold

    def eval(self) -> None:
        self.training = False

    def train(self) -> None:
        self.training = True


def unlabelled_batch(views: int = 1) -> Batch:
    torch.manual_seed(3)
    shape = (4, 3, 6, 8)
    mask = torch.zeros(4, 6, 8, dtype=torch.uint8)
    mask[0, :, 5:] = VOID  # padding, of one image only: CutMix moves it
    batch: Batch = {
        "image": torch.randn(2, 3, 6, 8), "mask": torch.zeros(2, 6, 8, dtype=torch.uint8), "id": ["0", "1"],
        "unlabeled_image": torch.randn(shape), "unlabeled_strong": torch.randn(shape), "unlabeled_mask": mask,
    }  # fmt: skip
    if views == 2:
        batch["unlabeled_strong2"] = torch.randn(shape)
    return batch


def by_hand(logits: Tensor, confidence: Tensor, label: Tensor, mask: Tensor, threshold: float) -> float:
    """FixMatch's loss pixel by pixel: -log p of the label where the teacher is sure, over all pixels that are image."""
    total, image = 0.0, 0
    for b, y, x in np.ndindex(*mask.shape):
        if mask[b, y, x] == VOID:
            continue
        image += 1
        if confidence[b, y, x] >= threshold:
            total -= float(logits[b, :, y, x].detach().double().log_softmax(dim=0)[label[b, y, x]])
    return total / image


class TestMethods:
    def test_fixmatch_is_its_papers_loss_after_cutmix(self) -> None:
        model, batch = Small(method="fixmatch", threshold=0.45, cutmix=1.0), unlabelled_batch()
        torch.manual_seed(5)
        outputs, loss, figures, _ = fixmatch(model, batch)
        with torch.no_grad():
            confidence, label = model.teacher(batch["unlabeled_image"])["logits"].softmax(dim=1).max(dim=1)
        torch.manual_seed(5)
        strong, label, confidence, mask = cutmix(
            1.0, batch["unlabeled_strong"], label, confidence, batch["unlabeled_mask"]
        )
        expected = by_hand(model.network(strong)["logits"], confidence, label, mask, 0.45)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        assert torch.equal(outputs["logits"], model.network(batch["image"])["logits"])
        assert 0.2 < float(figures["pseudo_labels"]) < 0.9
        assert loss.requires_grad and model.training

    def test_what_is_image_moves_with_its_box(self) -> None:
        """The loss is over the pixels that are image after CutMix, as in UniMatch's code."""
        model, batch = Small(method="fixmatch", threshold=0.0, cutmix=1.0), unlabelled_batch()
        batch["unlabeled_mask"][:] = VOID
        batch["unlabeled_mask"][1] = 0  # only image 1 has pixels, and gives a box to image 0
        for parameter in model.network.head.parameters():
            parameter.data.zero_()  # all classes alike: a loss of log 3 in each of these pixels
        for seed in range(5):
            torch.manual_seed(seed)
            assert float(fixmatch(model, batch).loss.detach()) == pytest.approx(math.log(3), rel=1e-5)

    def test_a_mean_teacher_asks_for_its_own_probabilities(self) -> None:
        model, batch = Small(method="mean_teacher", cutmix=1.0), unlabelled_batch()
        torch.manual_seed(5)
        loss = mean_teacher(model, batch).loss
        with torch.no_grad():
            probability = model.teacher(batch["unlabeled_image"])["logits"].softmax(dim=1)
        torch.manual_seed(5)
        strong, probability, mask = cutmix(1.0, batch["unlabeled_strong"], probability, batch["unlabeled_mask"])
        own = model.network(strong)["logits"].softmax(dim=1)
        total, image = 0.0, 0
        for b, y, x in np.ndindex(*mask.shape):
            if mask[b, y, x] != VOID:
                image += 1
                total += sum(float(own[b, k, y, x] - probability[b, k, y, x]) ** 2 for k in range(3))
        assert float(loss) == pytest.approx(total / image, rel=1e-5)
        loss.backward()
        assert all(p.grad is None for p in model.teacher.parameters())

    def test_unimatch_v2_is_the_mean_of_two_views_without_some_channels(self) -> None:
        model, batch = Small(method="unimatch_v2", threshold=0.45, cutmix=0.5), unlabelled_batch(views=2)
        torch.manual_seed(5)
        outputs, loss, _, _ = unimatch_v2(model, batch)
        with torch.no_grad():
            confidence, label = model.teacher(batch["unlabeled_image"])["logits"].softmax(dim=1).max(dim=1)
        torch.manual_seed(5)
        maps = (label, confidence, batch["unlabeled_mask"])
        first, second = (cutmix(0.5, batch[key], *maps) for key in ("unlabeled_strong", "unlabeled_strong2"))
        kept = torch.randperm(4)[:2]
        features = model.network.encoder(torch.cat([first[0], second[0]]))
        logits = model.network.head(features * channel_mask(features, kept)).chunk(2)
        expected = [
            by_hand(view, confidence, label, mask, 0.45)
            for view, (_, label, confidence, mask) in zip(logits, (first, second), strict=True)
        ]
        assert float(loss) == pytest.approx(sum(expected) / 2, rel=1e-5)
        assert torch.equal(outputs["logits"], model.network(batch["image"])["logits"])  # these keep their channels

    def test_unimatch_v2_says_what_network_it_needs(self) -> None:
        model = Small(method="unimatch_v2")
        model.network.encoder, features = None, model.network.encoder  # type: ignore[assignment]
        assert features is not None
        with pytest.raises(UserError, match="encoder"):
            unimatch_v2(model, unlabelled_batch(views=2))


class TestComplementaryDropout:
    def test_what_one_view_loses_the_other_keeps(self) -> None:
        features = torch.ones(8, 50, 2, 3)
        torch.manual_seed(0)
        mask = channel_mask(features, torch.tensor([1, 3]))
        assert mask.shape == (8, 50, 1, 1)
        assert torch.equal(mask[:4] + mask[4:], torch.full((4, 50, 1, 1), 2.0))
        assert (mask[[1, 3, 5, 7]] == 1).all()
        assert set(mask[[0, 2]].unique().tolist()) == {0.0, 2.0}
        assert 0.35 < float((mask[[0, 2]] == 0).float().mean()) < 0.65

    def test_lists_and_dicts_of_features_lose_some_and_the_image_none(self) -> None:
        class Encoder(torch.nn.Module):
            def __init__(self, named: bool) -> None:
                super().__init__()
                self.named = named

            def forward(self, image: Tensor) -> Any:
                return {"out": image + 1} if self.named else [image, image + 1]

        image = torch.ones(8, 16, 2, 2)
        for named in (False, True):
            encoder = Encoder(named)
            with complementary_dropout(encoder):
                features = encoder(image)
            dropped = features["out"] if named else features[1]
            assert named or features[0] is image
            assert set(dropped.unique().tolist()) == {0.0, 2.0, 4.0}
            after = encoder(image)
            assert torch.equal(after["out"] if named else after[1], image + 1)  # only while it lasts


def test_figures_of_labels_leave_out_what_is_not_known() -> None:
    label = torch.tensor([[[0, 1, 2, 1]]])
    trusted = torch.tensor([[[True, True, True, False]]])
    truth = torch.tensor([[[0, 2, VOID, 1]]], dtype=torch.uint8)
    figures = label_figures(label, trusted, truth, VOID)
    assert {name: float(value) for name, value in figures.items()} == {
        "pseudo_labels": 0.75, "pseudo_label_accuracy": 0.5, "pseudo_label_recall": pytest.approx((1 + 0 + 0) / 3),
    }  # fmt: skip
    assert label_figures(label, trusted, None, VOID).keys() == {"pseudo_labels"}
    distribution = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    assert label_figures(distribution, trusted, truth, VOID) == figures
    assert label_figures(label, ~trusted & False, truth, VOID)["pseudo_label_accuracy"] == 0


@pytest.mark.parametrize(
    ("method", "network"), [("mean_teacher", "tiny"), ("unimatch_v2", "small"), ("fixmatch", "tiny")]
)
def test_a_run_trains_with_it_and_tells_how_good_the_labels_are(tmp_path: Path, method: str, network: str) -> None:
    options = [f"model.semi={method}", "model.semi.threshold=0.1", "model.ema_decay=0.9", "data.labeled_fraction=1/2"]
    outcome = train(settings(tmp_path, *options, f"network={network}", "trainer.max_epochs=1", "test=false"))
    figures = {name: float(value) for name, value in outcome.trainer.logged_metrics.items()}
    assert figures["train/pseudo_labels"] > 0.9
    assert 0 < figures["train/pseudo_label_recall"] <= 1
    assert 0 < figures["train/pseudo_label_accuracy"] <= 1
    assert figures["train/unlabeled_loss"] > 0
