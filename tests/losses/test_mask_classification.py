"""The set loss beside transformers' own, and what it does with ignored pixels and padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from src.errors import UserError
from src.losses.mask_classification import MaskClassification

K, QUERIES, LAYERS, VOID = 4, 7, 3, 255


def outputs(height: int = 12, width: int = 10, images: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "mask_classes": torch.randn(images, LAYERS, QUERIES, K + 1, generator=generator).requires_grad_(),
        "mask_logits": (3 * torch.randn(images, LAYERS, QUERIES, height, width, generator=generator)).requires_grad_(),
        "extent": torch.ones(images, 2),
    }


def squares(height: int = 48, width: int = 40, images: int = 2) -> Tensor:
    """Masks of blocks of classes; the second image has two of the four."""
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, K, (images, height // 8, width // 8), generator=generator)
    blocks[1] %= 2
    return blocks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)


def value_and_gradients(
    loss: MaskClassification, given: dict[str, Tensor], mask: Tensor
) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(5)
    value = loss.of_outputs(given, mask)
    leaves = [given["mask_classes"], given["mask_logits"]]
    return value.detach(), list(torch.autograd.grad(value, leaves))


def theirs(given: dict[str, Tensor], mask: Tensor, points: int) -> Tensor:
    """The loss of transformers' Mask2Former, all its layers summed with its weights."""
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    config = Mask2FormerConfig(num_labels=K, train_num_points=points)
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    present = [one.unique() for one in mask]
    layers: list[dict[str, Any]] = [
        {"masks_queries_logits": given["mask_logits"][:, i], "class_queries_logits": given["mask_classes"][:, i]}
        for i in range(LAYERS)
    ]
    torch.manual_seed(5)
    parts = Mask2FormerLoss(config, weights)(
        **layers[-1],
        mask_labels=[(one == there.view(-1, 1, 1)).float() for one, there in zip(mask, present, strict=True)],
        class_labels=present,
        auxiliary_predictions=layers[:-1],
    )
    return torch.stack([weights[name.rstrip("_0123456789")] * value for name, value in parts.items()]).sum()


def test_it_is_transformers_loss_at_the_same_points() -> None:
    given, mask = outputs(), squares()
    value, gradients = value_and_gradients(MaskClassification(num_points=300), given, mask)
    expected = theirs(given, mask, 300)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=1e-5)
    their_gradients = torch.autograd.grad(expected, [given["mask_classes"], given["mask_logits"]])
    for own, their in zip(gradients, their_gradients, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-6)


def test_right_and_sure_queries_cost_little() -> None:
    mask = squares()
    given = outputs(*mask.shape[1:])
    classes, masks = torch.full_like(given["mask_classes"], -20.0), torch.full_like(given["mask_logits"], -20.0)
    classes[..., K] = 20.0
    for image in range(2):
        for label in mask[image].unique():  # the query of a class is any of them
            query = QUERIES - 1 - int(label)
            classes[image, :, query, label], classes[image, :, query, K] = 20.0, -20.0
            masks[image, :, query] = torch.where(mask[image] == label, 20.0, -20.0)
    loss = MaskClassification(num_points=300, importance_sample_ratio=0.0)  # not at the outlines alone
    right = loss.of_outputs({**given, "mask_classes": classes, "mask_logits": masks}, mask)
    assert right < 0.2 * loss.of_outputs(given, mask)


def test_an_image_without_a_labelled_pixel_costs_nothing_and_its_gradients_are_zero() -> None:
    given, mask = outputs(), squares()
    value, gradients = value_and_gradients(MaskClassification(num_points=50), given, torch.full_like(mask, VOID))
    assert value == 0
    assert all((gradient == 0).all() for gradient in gradients)
    mask[1] = VOID
    _, gradients = value_and_gradients(MaskClassification(num_points=50), given, mask)
    assert all(gradient[0].any() and not gradient[1].any() for gradient in gradients)


def test_no_point_is_drawn_from_ignored_pixels() -> None:
    """What a mask shows in the middle of them has no gradient, however wrong it is."""
    mask = squares()
    mask[:, :, 20:] = VOID
    _, gradients = value_and_gradients(MaskClassification(num_points=300), outputs(), mask)
    assert not gradients[1][..., 6:].any()
    assert gradients[1][..., :4].any()


def test_padding_below_and_at_the_right_is_no_part_of_the_image() -> None:
    given, mask = outputs(12, 10), squares()
    padded = {name: value.detach().clone().requires_grad_() for name, value in given.items()}
    padded["mask_logits"] = torch.nn.functional.pad(padded["mask_logits"], (0, 4, 0, 2), value=9.0)
    padded["extent"] = torch.tensor([[12 / 14, 10 / 14]]).expand(2, 2)
    loss = MaskClassification(num_points=3000)
    torch.manual_seed(0)
    value = loss.of_outputs(given, mask)
    torch.manual_seed(0)
    # only the outermost half pixel differs: it borders on something else
    torch.testing.assert_close(loss.of_outputs(padded, mask), value, rtol=0.05, atol=0)


def test_class_weights_weigh_the_classes_of_queries() -> None:
    given, mask = outputs(), squares()
    plain, _ = value_and_gradients(MaskClassification(num_points=50), given, mask)
    ones, _ = value_and_gradients(MaskClassification(num_points=50, class_weights=torch.ones(K)), given, mask)
    other, _ = value_and_gradients(
        MaskClassification(num_points=50, class_weights=torch.tensor([9.0, 1, 1, 1])), given, mask
    )
    assert plain == ones != other


def test_bf16_outputs_are_computed_in_float32() -> None:
    given, mask = outputs(), squares()
    half = {name: value.detach().bfloat16() for name, value in given.items() if name != "extent"}
    loss = MaskClassification(num_points=50)
    values = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            cast = {name: value.to(dtype) for name, value in half.items()}
            values.append(loss.of_outputs({**cast, "extent": given["extent"]}, mask))
    assert values[0].dtype == torch.float32
    assert torch.equal(*values)


def test_points_come_from_torchs_generator_alone() -> None:
    given, mask = outputs(), squares()
    loss = MaskClassification(num_points=50)
    first, second = value_and_gradients(loss, given, mask), value_and_gradients(loss, given, mask)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(loss.of_outputs(given, mask), first[0])


def test_a_network_without_queries_is_named() -> None:
    with pytest.raises(UserError, match="network=mask2former"):
        MaskClassification().of_outputs({"logits": torch.zeros(1, K, 4, 4)}, torch.zeros(1, 4, 4, dtype=torch.long))
