"""What the truth of each volume or scene shows: of nothing, or of one class only, scores say less than they seem to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

_NAMED = 5  # volumes that a message names


class Truths:
    """The classes that the masks of each whole have, a mask for each of its slices or windows.

    Args:
        num_classes: K; other mask values are ignored ones.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._shown: dict[str, Tensor] = {}  # bool [K]

    def add(self, wholes: Sequence[str], masks: Tensor) -> None:
        """Masks [B, H, W], and the names of what they are cut out of."""
        for whole, mask in zip(wholes, masks, strict=True):
            shown = torch.bincount(mask.flatten().int(), minlength=256)[: self.num_classes] > 0
            self._shown[whole] = self._shown[whole] | shown if whole in self._shown else shown

    def finish(self) -> dict[str, list[int]]:
        """The classes of each whole, over all devices (each of which has to call it); begins anew."""
        mine = {whole: shown.nonzero().flatten().tolist() for whole, shown in self._shown.items()}
        self._shown = {}
        every = [mine]
        if dist.is_initialized() and dist.get_world_size() > 1:
            every = [{} for _ in range(dist.get_world_size())]
            dist.all_gather_object(every, mine)
        wholes = sorted({whole for part in every for whole in part})
        return {whole: sorted({k for part in every for k in part.get(whole, ())}) for whole in wholes}


def words(shown: dict[str, list[int]], names: Sequence[str], stage: str) -> list[str]:
    """What is to be said of truths that show no class, or one.

    Args:
        shown: the classes of each whole.
        names: of the classes.
        stage: "val" or "test".
    """
    said = []
    if empty := [whole for whole, classes in shown.items() if not classes]:
        said.append(f"{stage}: {_listed(empty, len(shown))} without a labelled pixel, which count in no score")
    for k, name in enumerate(names):
        if constant := [whole for whole, classes in shown.items() if classes == [k]]:
            said.append(f"{stage}: {_listed(constant, len(shown))} labelled {name} only")
    return said


def _listed(wholes: Sequence[str], count: int) -> str:
    more = ", …" if len(wholes) > _NAMED else ""
    return f"{len(wholes)} of {count} truths ({', '.join(wholes[:_NAMED])}{more})"
