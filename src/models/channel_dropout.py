"""Dropout of an encoder's channels: in a second copy of its features (UniMatch, Yang et al. 2023), or complementary in two
views of an image (UniMatch V2, Yang et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def with_dropped_twin(encoder: nn.Module) -> Iterator[None]:
    """While it lasts, what `encoder` gives for a batch [n, C, H, W] is twice as long: its features, and behind them these once
    more without half of their channels, each feature map and image with a draw of its own; what is kept is doubled. The image
    itself, which some encoders hand on, comes twice as it is."""

    def append(_: nn.Module, inputs: tuple[Any, ...], features: Any) -> Any:
        image = inputs[0]
        return _each(features, lambda one: torch.cat([one, one if one is image else F.dropout2d(one, 0.5)]))

    handle = encoder.register_forward_hook(append)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def complementary_dropout(encoder: nn.Module) -> Iterator[None]:
    """While it lasts, the features that `encoder` gives for a batch [2 n, C, H, W] lose channels: those that the first half of
    the batch keeps, the second half loses, and the other way round. What is kept is doubled.

    Of n // 2 images, drawn anew in each pass, both views keep all, as in the paper. Every feature map has a draw of its own
    (the paper's are all of one width and share it); the image itself, which some encoders hand on, stays as it is.
    """

    def drop(_: nn.Module, inputs: tuple[Any, ...], features: Any) -> Any:
        image = inputs[0]
        kept = torch.randperm(len(image) // 2)[: len(image) // 4]
        return _each(features, lambda one: one if one is image else one * channel_mask(one, kept))

    handle = encoder.register_forward_hook(drop)
    try:
        yield
    finally:
        handle.remove()


def channel_mask(features: Tensor, kept: Tensor) -> Tensor:
    """Factors 0, 1 or 2 [2 n, C, 1, 1] for features [2 n, C, H, W]; the two views of an image add up to 2.

    Args:
        kept: numbers of the images whose channels all stay, int64, below n.
    """
    first = 2.0 * torch.randint(2, (len(features) // 2, features.shape[1]))
    first[kept] = 1.0
    both = torch.cat([first, 2.0 - first])[:, :, None, None]
    return both.to(features.device, features.dtype, non_blocking=True)


def _each(features: Any, change: Any) -> Any:
    if isinstance(features, Tensor):
        return change(features)
    if isinstance(features, Mapping):
        return {name: _each(one, change) for name, one in features.items()}
    return [_each(one, change) for one in features]
