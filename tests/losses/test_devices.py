"""Losses of two devices that see half of a batch each are those of one that sees it whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from src.losses.base import SegmentationLoss
from src.losses.boundary import Boundary
from src.losses.cldice import ClDice
from src.losses.generalized_dice import GeneralizedDice
from src.losses.hausdorff import Hausdorff
from src.losses.sum import Sum
from src.losses.tversky import Tversky
from tests.losses.batches import VOID, batch, value_and_gradient

WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 3.0])


def losses() -> list[SegmentationLoss]:
    plain: list[SegmentationLoss] = [Tversky(exponent=0.75), GeneralizedDice(), ClDice(), Boundary(), Hausdorff()]
    weighted: list[SegmentationLoss] = [
        kind(class_weights=WEIGHTS) for kind in (Tversky, GeneralizedDice, ClDice, Boundary, Hausdorff)
    ]
    return [*plain, *weighted, Sum([(0.5, Tversky()), (2.0, ClDice())])]


def whole() -> tuple[Tensor, Tensor]:
    """Two images, of which the second is mostly ignored and shows fewer classes."""
    logits, mask = batch()
    mask[1, 2:] = VOID
    mask[1][mask[1] == 2] = VOID
    return logits, mask


def _device(rank: int, meet: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    logits, mask = whole()
    found = [value_and_gradient(loss, logits[rank : rank + 1], mask[rank : rank + 1]) for loss in losses()]
    torch.save(found, f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_two_devices_are_one(tmp_path: Path) -> None:
    spawn(_device, (str(tmp_path / "meet"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for loss, one, other in zip(losses(), first, second, strict=True):
        value, gradient = value_and_gradient(loss, *whole())
        assert float(one[0]) == pytest.approx(float(value), rel=1e-5) == float(other[0])
        # DDP averages what each device's share of the weights gets
        torch.testing.assert_close(torch.cat([one[1], other[1]]) / 2, gradient, msg=type(loss).__name__)
