"""Looks on while a model is evaluated, and gathers what was seen over all devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from src.data.labels import LabelSet
from src.data.samples import Batch
from src.data.sources import Source, place_in_stack
from src.errors import UserError
from src.evaluation.boundary import Boundaries
from src.evaluation.calibration import Calibrated, Calibration
from src.evaluation.cases import Place, Slice
from src.evaluation.matrices import Cells

Row = tuple[str, str, Cells]  # an image's name, what it is cut out of, its matrix


@dataclass(frozen=True)
class Observed:
    """What was seen of a split, over all devices.

    Attributes:
        ids, wholes, matrices: of each image, in the order of the split.
        boundaries: see `Boundaries.finish`; None where it was not asked for.
        slices: what cases are made of; None where they were not asked for.
        calibrated: None where it was not asked for.
    """

    ids: Sequence[str]
    wholes: Sequence[str]
    matrices: Sequence[Cells]
    boundaries: tuple[Tensor, Tensor, Tensor] | None
    slices: Sequence[Slice] | None
    calibrated: Calibrated | None


class Observation:
    """An `Observer` of one split, exact on any number of devices: what each counts is integers that belong to an image's name,
    and an image that a device predicts only to keep others company is shown to none.

    Args:
        label_set: the classes.
        source: the split.
        boundaries, calibration: what is added up beside the matrices.
        cases: keep the predictions too, for figures of cases.

    Raises:
        UserError: two samples have one name.
    """

    def __init__(
        self, label_set: LabelSet, source: Source, boundaries: Boundaries | None, calibration: Calibration | None,
        cases: bool = False,
    ) -> None:  # fmt: skip
        self.label_set, self.boundaries, self.calibration = label_set, boundaries, calibration
        self.source, self.place = source, places(source)
        self._rows: list[Row] = []
        self._slices: list[Slice] | None = [] if cases else None

    def strip(self, batch: Batch, top: int, logits: Tensor) -> None:
        if self.calibration is None:
            return
        masks = batch["mask"]
        for name, values, mask in zip(batch["id"], logits, masks[..., top : top + logits.shape[-2], :], strict=True):
            self.calibration.add(name, top, values, mask, masks.shape[-2])

    def whole(self, batch: Batch, prediction: Tensor) -> None:
        wholes = batch.get("whole", batch["id"])
        for name, whole, given, truth in zip(batch["id"], wholes, prediction, batch["mask"], strict=True):
            self._rows.append((name, whole, self._cells(given, truth)))
            if self.boundaries is not None:
                self.boundaries.add(given, truth)
            if self._slices is not None:
                maps = (part.to(torch.uint8).cpu().numpy() for part in (given, truth))
                self._slices.append(Slice.of(self._place(name, whole), *maps))

    def finish(self) -> Observed:
        """Over all devices, each of which has to call it."""
        rows = sorted(_of_all(self._rows), key=lambda row: self.place[row[0]])
        return Observed(
            [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows],
            None if self.boundaries is None else self.boundaries.finish(),
            None if self._slices is None else _of_all(self._slices),
            None if self.calibration is None else self.calibration.finish(),
        )  # fmt: skip

    def _place(self, name: str, whole: str) -> Place:
        stacked = place_in_stack(self.source, self.place[name])
        return Place(name) if stacked is None else Place(whole, *stacked)

    def _cells(self, given: Tensor, truth: Tensor) -> Cells:
        k, known = self.label_set.num_classes, truth != self.label_set.ignore_index
        counts = torch.bincount(truth[known].int() * k + given[known].int(), minlength=k * k)
        cell = counts.nonzero().flatten()
        return Cells(cell.cpu().numpy().astype(np.int32), counts[cell].cpu().numpy())


def _of_all(own: list[Any]) -> list[Any]:
    """The items of all devices."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return own
    parts: list[list[Any]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, own)
    return [item for part in parts for item in part]


def places(source: Source) -> Mapping[str, int]:
    """The number of each sample by its name.

    Raises:
        UserError: two samples have one name.
    """
    numbers: dict[str, int] = {}
    for index in range(len(source)):
        if (name := source.name(index)) in numbers:
            raise UserError(
                f"metrics: two samples of the split {source.split!r} are called {name!r}; rename one of them"
            )
        numbers[name] = index
    return numbers


def indices_of(source: Source, names: Collection[str]) -> list[int]:
    """The numbers of the samples with these names, in the order of the names.

    Raises:
        UserError: there is none of such a name.
    """
    numbers = places(source)
    if missing := [name for name in names if name not in numbers]:
        raise UserError(f"data.root: the split {source.split!r} has no sample {missing[0]!r} any more")
    return [numbers[name] for name in names]
