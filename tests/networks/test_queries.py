"""The map that is made of masks and their classes."""

from __future__ import annotations

import sys

import pytest
import torch
import transformers

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


@pytest.mark.parametrize("name", ["mask2former", "eomt"])
def test_the_largest_logits_are_transformers_map(name: str) -> None:
    torch.manual_seed(0)
    size = 384, 384  # at which Mask2Former's map is made, whatever the image's size
    given = {"class_queries_logits": 3 * torch.randn(2, 9, 5), "masks_queries_logits": 3 * torch.randn(2, 9, *size)}
    models = transformers.models
    if name == "eomt":
        output = models.eomt.modeling_eomt.EomtForUniversalSegmentationOutput(**given)
        processor = models.eomt.image_processing_pil_eomt.EomtImageProcessorPil(
            size={"shortest_edge": 384, "longest_edge": None}
        )
    else:
        output = models.mask2former.modeling_mask2former.Mask2FormerForUniversalSegmentationOutput(**given)
        processor = models.mask2former.image_processing_pil_mask2former.Mask2FormerImageProcessorPil()
    maps = semantic_logits(given["class_queries_logits"], given["masks_queries_logits"]).argmax(dim=1)
    assert torch.equal(maps, torch.stack(processor.post_process_semantic_segmentation(output, [size] * 2)))
    assert len(maps.unique()) == 4


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
