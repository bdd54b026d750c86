"""Lovász-softmax against its definition, brute force and smp's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from src.losses.lovasz import Lovasz
from tests.losses.batches import VOID, K, batch, value_and_gradient


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
