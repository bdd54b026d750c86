"""What keeps pseudo labels from forgetting classes: alignment, Dice, batch norm's own statistics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from src.models.alignment import Alignment
from src.models.fixmatch import fixmatch, pseudo_labels
from src.models.semi import labelled_and_strong
from src.train import train
from tests.conftest import settings
from tests.models.test_semi import VOID, Small, unlabelled_batch
from tests.same import assert_same


def test_running_averages_are_those_of_a_plain_loop() -> None:
    rng, alignment = np.random.default_rng(0), Alignment(3)
    labelled, predicted = np.full(3, 1 / 3), np.full(3, 1 / 3)
    for _ in range(5):
        mask = rng.choice([0, 1, 2, VOID], size=(2, 4, 5)).astype(np.uint8)
        probability = rng.dirichlet(np.ones(3), size=(2, 4, 5)).transpose(0, 3, 1, 2)
        valid = rng.random((2, 4, 5)) < 0.7
        counts = np.array([(mask == k).sum() for k in range(3)])
        labelled = 0.99 * labelled + 0.01 * counts / counts.sum()
        mean = np.array([probability[:, k][valid].mean() for k in range(3)])
        predicted = 0.99 * predicted + 0.01 * mean
        expected = probability * (labelled / predicted)[None, :, None, None]
        alignment.see(torch.from_numpy(mask))
        aligned = alignment.align(torch.from_numpy(probability).float(), torch.from_numpy(valid))
        np.testing.assert_allclose(aligned, expected / expected.sum(1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(alignment.labelled, labelled, rtol=1e-5)


def test_a_batch_without_a_label_or_an_image_changes_no_average() -> None:
    alignment = Alignment(2)
    alignment.see(torch.full((1, 3, 3), VOID, dtype=torch.uint8))
    probability = torch.rand(1, 2, 3, 3)
    alignment.align(probability, torch.zeros(1, 3, 3, dtype=torch.bool))
    assert alignment.labelled.tolist() == alignment.predicted.tolist() == [0.5, 0.5]


def test_a_class_that_predictions_forget_gets_its_labels_back() -> None:
    """Predicted in a tenth of what the labels show, it is the label where it was the runner-up."""
    model, batch = Small(method="fixmatch", threshold=0.0, align=True), unlabelled_batch()
    model.alignment = Alignment(3)
    before, _ = pseudo_labels(model, batch["unlabeled_image"], batch["unlabeled_mask"])
    rare = int(torch.bincount(before[before != VOID], minlength=3).argmin())
    model.alignment.labelled.copy_(torch.full((3,), 0.25))
    model.alignment.labelled[rare] = 0.5
    model.alignment.predicted.copy_(torch.full((3,), 0.475))
    model.alignment.predicted[rare] = 0.05
    after, _ = pseudo_labels(model, batch["unlabeled_image"], batch["unlabeled_mask"])
    assert (after == rare).sum() > (before == rare).sum()
    assert torch.equal(after == VOID, before == VOID)


def test_dice_counts_each_class_of_the_pseudo_labels_once() -> None:
    batch, losses = unlabelled_batch(), {}
    for weight in (0.0, 0.5):
        model = Small(method="fixmatch", threshold=0.45, cutmix=0.0, dice_weight=weight)
        losses[weight] = float(fixmatch(model, batch).loss.detach())
    label, _ = pseudo_labels(model, batch["unlabeled_image"], batch["unlabeled_mask"])
    probability = model.network(batch["unlabeled_strong"])["logits"].detach().double().softmax(dim=1)
    scores = []
    for k in label[label != VOID].unique():
        truth, given = label == k, probability[:, int(k)] * (label != VOID)
        scores.append(float((2 * (given * truth).sum() + 1) / (given.sum() + truth.sum() + 1)))
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * (1 - sum(scores) / len(scores)), rel=1e-4)


@pytest.mark.parametrize(("apart", "passes"), [(False, [6]), (True, [2, 4])])
def test_images_pass_together_or_apart(apart: bool, passes: list[int]) -> None:
    model, batch, seen = Small(method="fixmatch", apart=apart), unlabelled_batch(), []
    model.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    outputs, logits = labelled_and_strong(model, batch["image"], batch["unlabeled_strong"])
    assert seen == passes and len(outputs["logits"]) == 2 and len(logits) == 4


OPTIONS = [
    "data.labeled_fraction=1/4", "data.dataset.train_length=16", "data.batch_size=2", "model.semi=fixmatch",
    "model.semi.align=true", "model.semi.dice_weight=1", "model.semi.apart=true", "model.semi.threshold=0.1",
    "model.ema_decay=0.9", "network=tiny", "trainer.max_epochs=2", "scheduler=constant", "test=false",
]  # fmt: skip


def test_a_resumed_run_has_the_same_bits_and_averages(tmp_path: Path) -> None:
    whole = train(settings(tmp_path / "whole", *OPTIONS)).model.state_dict()
    train(settings(tmp_path / "halves", *OPTIONS, "trainer.max_epochs=1"))
    outcome = train(settings(tmp_path / "halves", *OPTIONS), resume=True)
    assert_same(outcome.model.state_dict(), whole)
    assert float(whole["alignment.labelled"].sum()) == pytest.approx(1, rel=1e-4)
    assert not math.isclose(float(whole["alignment.labelled"][0]), 1 / 6, rel_tol=1e-2)
    fresh: list[str] = [option for option in OPTIONS if "align" not in option]
    other = train(settings(tmp_path / "other", *fresh, f"init_from={tmp_path / 'whole'}", "trainer.max_steps=1"))
    assert "alignment.labelled" not in other.model.state_dict()  # it learns without what predicts nothing
