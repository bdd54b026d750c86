"""Figures of each case: a volume whose slices were predicted one by one, or an image.

A class's figures are of its voxels alone, and the background has none. A class that is in neither truth nor prediction of a
case has none there, and the case is in no mean of it, as in nnU-Net. Where it is in one of both alone, overlaps are 0, and
there are no distances, so that the case is left out of their mean: read them beside `missed` and `invented`, the numbers of
such cases.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.labels import LabelSet
from src.files.spreadsheets import cell
from src.metrics.names import background
from src.metrics.surfaces import average_distance, hausdorff_95, pieces, surface_dice, surface_distances

Mask = npt.NDArray[np.uint8]
Figures = dict[str, float | None]
FILE = "cases.csv"
OVERLAPS = ("dice", "iou", "surface_dice", "lesion_f1")
DISTANCES = ("hd95", "assd")


@dataclass(frozen=True)
class Place:
    """Where a sample lies: the case that it is a slice of, its number there, and mm to the next slice, row and column; an image
    is a case of one slice, whose pixels are 1 by 1."""

    case: str
    number: int = 0
    spacing: tuple[float, ...] = (1.0, 1.0)


@dataclass(frozen=True)
class Slice:
    """The prediction and the truth of a sample, packed: label maps shrink to a few hundredths."""

    place: Place
    shape: tuple[int, ...]
    packed: tuple[bytes, bytes]

    @classmethod
    def of(cls, place: Place, given: Mask, truth: Mask) -> Slice:
        return cls(place, given.shape, (zlib.compress(given.tobytes(), 1), zlib.compress(truth.tobytes(), 1)))

    def unpacked(self) -> tuple[Mask, Mask]:
        given, truth = (np.frombuffer(zlib.decompress(part), np.uint8).reshape(self.shape) for part in self.packed)
        return given, truth


@dataclass(frozen=True)
class Case:
    """The figures of a case by class, in `unit` ("mm", or "px" of an image); see the module for what is None."""

    name: str
    unit: str
    classes: Mapping[str, Figures]

    @property
    def dice(self) -> float | None:
        """The mean over its classes."""
        return _mean([one["dice"] for one in self.classes.values()])


def cases_of(slices: Sequence[Slice], labels: LabelSet, tolerance: float) -> Iterator[Case]:
    """Each case's figures, one case after the other, so that one is unpacked at a time.

    Args:
        slices: of a split, in any order. Where numbers of a case are missing, as in blocks of a volume, each run of
            neighbours is a case of its own.
        tolerance: of surface Dice, in mm, or pixels of an image.
    """
    ordered = sorted(slices, key=lambda one: (one.place.case, one.place.number))
    runs: list[list[Slice]] = []
    for one in ordered:
        last = runs[-1][-1].place if runs else None
        follows = last is not None and (one.place.case, one.place.number) == (last.case, last.number + 1)
        if follows:
            runs[-1].append(one)
        else:
            runs.append([one])
    parts = [run[0].place.case for run in runs]
    for run in runs:
        first, last = run[0].place, run[-1].place
        whole = parts.count(first.case) == 1
        name = first.case if whole else f"{first.case}[{first.number:03}-{last.number:03}]"
        both = [one.unpacked() for one in run]
        given, truth = (np.stack([pair[side] for pair in both]) for side in (0, 1))
        volume = len(first.spacing) == 3
        if not volume:
            given, truth = given[0], truth[0]
        yield Case(name, "mm" if volume else "px", figures_of(given, truth, labels, first.spacing, tolerance))


def figures_of(
    given: Mask, truth: Mask, labels: LabelSet, spacing: Sequence[float], tolerance: float
) -> dict[str, Figures]:
    """Figures of each class but the background; ignored voxels are of no class, in the prediction too.

    Returns:
        "dice", "iou", "surface_dice" and "lesion_f1" in 0…1, "hd95" and "assd" in the unit of `spacing`, "volume_error"
        (predicted less true) in ml, or in pixels of an image.
    """
    known = truth != labels.ignore_index
    voxel = math.prod(spacing) / (1000 if len(spacing) == 3 else 1)
    found = {}
    for k, name in enumerate(labels.names):
        if k != background(labels.names):
            found[name] = _of_bodies((given == k) & known, truth == k, spacing, voxel, tolerance)
    return found


def _of_bodies(
    given: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], spacing: Sequence[float], voxel: float, tolerance: float
) -> Figures:
    predicted, true, both = int(given.sum()), int(truth.sum()), int((given & truth).sum())
    found: Figures = dict.fromkeys((*OVERLAPS, *DISTANCES))
    found["volume_error"] = (predicted - true) * voxel
    found["true_volume"] = true * voxel
    if not predicted and not true:
        return found
    hit, missed, invented = pieces(given, truth)
    found["dice"] = 2 * both / (predicted + true)
    found["iou"] = both / (predicted + true - both)
    found["lesion_f1"] = 2 * hit / (2 * hit + missed + invented)
    if not predicted or not true:
        return {**found, "surface_dice": 0.0}
    distances = surface_distances(given, truth, spacing)
    found["surface_dice"] = surface_dice(distances, tolerance)
    return {**found, "hd95": hausdorff_95(distances), "assd": average_distance(distances)}


def summary(cases: Sequence[Case], tolerance: float) -> dict[str, Any]:
    """Means over cases of each class, means over the classes of these (as nnU-Net's `foreground_mean`), and each case, the one
    with the lowest Dice first."""
    names = list(cases[0].classes) if cases else []
    kinds = (*OVERLAPS, *DISTANCES, "volume_error")
    classes: dict[str, Any] = {}
    for name in names:
        rows = [case.classes[name] for case in cases]
        classes[name] = {kind: _spread([row[kind] for row in rows]) for kind in kinds}
        classes[name]["missed"] = sum(
            row["dice"] == 0 and row["assd"] is None and row["true_volume"] != 0 for row in rows
        )
        classes[name]["invented"] = sum(row["dice"] == 0 and row["true_volume"] == 0 for row in rows)
    means = {kind: _mean([classes[name][kind]["mean"] for name in names]) for kind in (*OVERLAPS, *DISTANCES)}
    by_case = [{"case": case.name, "dice": case.dice, "classes": dict(case.classes)} for case in cases]
    unit = cases[0].unit if cases else "px"
    return {
        "cases": len(cases), "unit": unit, "tolerance": tolerance, "foreground": means, "classes": classes,
        "by_case": sorted(by_case, key=lambda row: (row["dice"] is None, row["dice"] or 0.0, str(row["case"]))),
    }  # fmt: skip


def as_csv(cases: Sequence[Case]) -> str:
    """A line for each case and class, for statistics elsewhere; an empty cell where there is no figure."""
    kinds = (*OVERLAPS, *DISTANCES, "volume_error", "true_volume")
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["case", "class", *kinds])
    for case in cases:
        for name, figures in case.classes.items():
            lines.writerow(
                [cell(case.name), cell(name), *("" if figures[kind] is None else figures[kind] for kind in kinds)]
            )
    return text.getvalue()


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    known = [value for value in values if value is not None]
    spread = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": _mean(values), "std": spread, "cases": len(known)}
