"""Probabilities of several predictors as their mean, strip by strip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from src.inference.windows import Strip

Shares = Iterator[tuple[int, Tensor]]  # strips from the top: their first row, and probabilities float32 [B, K, h, W]
ENTROPY = "member_entropy"


def averaged(members: Sequence[Shares]) -> Iterator[Strip]:
    """Strips with "logits", the logarithm of the members' mean probability, float32 [B, K, h, W], and "member_entropy", the
    mean of their entropies in nats, [B, 1, h, W].

    The strips are the first member's; the others' may begin at other rows. Beside the sum no more is held than what one strip
    of each has left over.
    """
    first, *others = members
    rests: list[list[tuple[int, Tensor]]] = [[] for _ in others]
    for top, total in first:
        end = top + total.shape[-2]
        spread = _entropy(total)
        for other, rest in zip(others, rests, strict=True):
            at = top
            while at < end:
                begin, values = rest.pop() if rest else next(other)
                stop = min(end, begin + values.shape[-2])
                part = values[..., at - begin : stop - begin, :].to(total.device)
                total[..., at - top : stop - top, :] += part
                spread[..., at - top : stop - top, :] += _entropy(part)
                if stop < begin + values.shape[-2]:
                    rest.append((stop, values[..., stop - begin :, :]))
                at = stop
        mean = total.div_(len(members)).clamp_min_(torch.finfo(torch.float32).tiny)
        yield top, {"logits": mean.log_(), ENTROPY: spread.div_(len(members))}


def _entropy(probability: Tensor) -> Tensor:
    nats: Tensor = torch.special.entr(probability).sum(dim=1, keepdim=True)
    return nats
