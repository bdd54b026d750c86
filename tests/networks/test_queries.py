"""The map that is made of masks and their classes."""

from __future__ import annotations

import sys

import pytest
import torch

from src.errors import UserError
from src.networks.eomt import eomt
from src.networks.queries import semantic_logits


def test_logits_are_the_log_of_the_scores() -> None:
    torch.manual_seed(0)
    classes, masks = 3 * torch.randn(2, 6, 5), 3 * torch.randn(2, 6, 8, 9)
    scores = torch.einsum("bqk,bqhw->bkhw", classes.softmax(-1)[..., :-1], masks.sigmoid())
    logits = semantic_logits(classes, masks)
    torch.testing.assert_close(logits.exp(), scores)
    torch.testing.assert_close(logits.softmax(dim=1), scores / scores.sum(dim=1, keepdim=True))
    assert torch.equal(logits.argmax(dim=1), scores.argmax(dim=1))


def test_where_no_query_shows_anything_logits_and_gradients_are_finite() -> None:
    classes, masks = torch.zeros(1, 3, 5), torch.full((1, 3, 4, 4), -200.0)
    classes[..., -1] = 300
    classes.requires_grad_(), masks.requires_grad_()
    logits = semantic_logits(classes, masks)
    logits.sum().backward()
    assert logits.isfinite().all()
    for leaf in (classes, masks):
        assert leaf.grad is not None and leaf.grad.isfinite().all()


@pytest.mark.parametrize("package", ["transformers", "scipy.optimize"])
def test_a_missing_package_is_named_with_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[transformers\]"'):
        eomt(3, encoder="test_vit", image_size=64, num_queries=5)
