"""What is said of a split: as plain containers for `evaluation/SPLIT/metrics.json`, and as tables for a terminal."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor

from src.evaluation import calibration as of_calibration
from src.evaluation.calibration import Calibrated
from src.evaluation.matrices import PerImage
from src.evaluation.scores import (
    LEVEL,
    Interval,
    data_set_miou,
    groups_of,
    intervals,
    mean_of_known,
    of_classes,
    per_image_miou,
)

Plain = dict[str, Any]
_KINDS = ("iou", "dice", "precision", "recall")


def of_images(images: PerImage, samples: int, group: str | None, seed: int) -> Plain:
    """Scores over classes, both means, and their intervals.

    Raises:
        UserError: the images cannot be grouped so.
    """
    groups = groups_of(images.ids, images.wholes, group) if samples else np.arange(len(images))
    named, by_class = intervals(images, groups, samples, seed)
    pooled = of_classes(*(part.sum(0) for part in (images.right, images.true, images.predicted)))
    own = of_classes(images.right, images.true, images.predicted)
    data_set = {f"mean_{kind}" if kind != "iou" else "miou": _number(mean_of_known(pooled[kind])) for kind in _KINDS}
    per_image = {
        f"mean_{kind}" if kind != "iou" else "miou": _number(mean_of_known(mean_of_known(own[kind]))) for kind in _KINDS
    }
    classes = {}
    for k, name in enumerate(images.names):
        classes[name] = {
            **{kind: _number(pooled[kind][k]) for kind in _KINDS},
            "iou_interval": _bounds(by_class[k]),
            "per_image_iou": _number(mean_of_known(own["iou"][:, k])),
            "images_with_it": int((images.true[:, k] > 0).sum()),
            "true_pixels": int(images.true[:, k].sum()),
        }
    return {
        "images": len(images),
        "data_set": {**data_set, "miou_interval": _bounds(named["data_set_miou"])},
        "per_image": {**per_image, "miou_interval": _bounds(named["per_image_miou"])},
        "bootstrap": {"samples": samples, "groups": int(groups.max(initial=-1)) + 1, "seed": seed, "level": LEVEL},
        "classes": classes,
    }


def of_boundaries(
    seen: tuple[Tensor, Tensor, Tensor], names: Sequence[str], ratio: float, widths: Sequence[int]
) -> Plain:
    """Boundary IoU of each class and over them, and the trimap curve."""
    shared, either, bands = (part.numpy() for part in seen)
    iou = np.divide(shared, either, out=np.full(len(names), np.nan), where=either > 0)
    curve = [
        {"pixels": width, "miou": _number(data_set_miou(np.diagonal(band), band.sum(1), band.sum(0)))}
        for width, band in zip(widths, bands, strict=True)
    ]
    return {
        "ratio": ratio, "data_set_boundary_iou": _number(mean_of_known(iou)),
        "classes": {name: _number(value) for name, value in zip(names, iou, strict=True)}, "trimap": curve,
    }  # fmt: skip


def of_probabilities(seen: Calibrated, bins: int, fitted: float | None, given_by: str) -> Plain:
    """Calibration as it is, at the temperature that there was before, and at one that was fitted on this split.

    Args:
        fitted: the temperature that was fitted on this split's sample; None where none was.
        given_by: what the temperature that there was before is of, "the checkpoint" or "val".
    """
    said: Plain = {"bins": bins, "at": []}
    for temperature, diagram, nll in zip(seen.temperatures, seen.diagrams, seen.nll, strict=True):
        of = given_by if said["at"] else "the network"
        rows, pixels = diagram.rows(), int(diagram.pixels.sum())
        said["at"].append({"temperature": temperature, "of": of, "ece": diagram.error, "nll": nll, "pixels": pixels,
                           "reliability": rows})  # fmt: skip
    if fitted is not None:
        diagram = of_calibration.reliability(seen.logits / fitted, seen.truth, bins)
        nll = of_calibration.nll(seen.logits / fitted, seen.truth)
        said["fitted"] = {"temperature": fitted, "of": "this split", "ece": diagram.error, "nll": nll,
                          "sampled_pixels": len(seen.truth), "reliability": diagram.rows()}  # fmt: skip
    if int(seen.binary.sum()):
        points = of_calibration.curves(seen.binary)
        best = max(points, key=lambda point: point["iou"])
        said["curves"] = {
            "average_precision": of_calibration.average_precision(seen.binary), "best_iou": best,
            "points": points[:: len(points) // 100],
        }  # fmt: skip
    return said


def tables(said: Mapping[str, Any], title: str) -> str:
    """The scores of a split as tables."""
    console = Console(file=io.StringIO(), width=110)
    console.print(_means(said, title))
    console.print(_classes(said))
    if (cases := said.get("cases")) is not None:
        console.print(_cases(cases))
    if (probabilities := said.get("calibration")) is not None:
        console.print(_calibration(probabilities))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in str(text).splitlines())


def _means(said: Mapping[str, Any], title: str) -> Table:
    boot = said["bootstrap"]
    drawn = f", 95 % intervals by {boot['samples']} resamples of {boot['groups']} groups" if boot["samples"] else ""
    if boot["samples"] and boot["groups"] == said["images"]:
        drawn = f", 95 % intervals by {boot['samples']} resamples of the images"
    table = Table(title=f"{title}: {said['images']} images{drawn}", title_justify="left")
    for name in ("mean", "mIoU", "interval", "Dice", "precision", "recall"):
        table.add_column(name, justify="left" if name == "mean" else "right")
    of = {"data_set": "data set: pixels of all images together", "per_image": "per image: the images' own, averaged"}
    for key, text in of.items():
        part = said[key]
        means = [_shown(part[f"mean_{kind}"]) for kind in ("dice", "precision", "recall")]
        table.add_row(text, _shown(part["miou"]), _span(part["miou_interval"]), *means)
    if (boundary := said.get("boundary")) is not None:
        table.add_section()
        table.add_row(
            f"boundary IoU ({boundary['ratio']:g} of the diagonal)", _shown(boundary["data_set_boundary_iou"])
        )
        for point in boundary["trimap"]:
            table.add_row(f"mIoU within {point['pixels']} px of the truth's boundaries", _shown(point["miou"]))
    return table


def _classes(said: Mapping[str, Any]) -> Table:
    table = Table(title="classes, over the data set", title_justify="left")
    boundary = (said.get("boundary") or {}).get("classes")
    heads = ["class", "IoU", "interval", "Dice", "precision", "recall", "IoU per image", "images"]
    for name in [*heads, *(["boundary IoU"] if boundary else [])]:
        table.add_column(name, justify="left" if name == "class" else "right")
    for name, part in said["classes"].items():
        cells = [_shown(part["iou"]), _span(part["iou_interval"])]
        cells += [_shown(part[kind]) for kind in ("dice", "precision", "recall", "per_image_iou")]
        table.add_row(name, *cells, str(part["images_with_it"]), *([_shown(boundary[name])] if boundary else []))
    return table


def _cases(said: Mapping[str, Any]) -> Table:
    unit = said["unit"]
    title = f"cases: {said['cases']}; mean ± standard deviation over those that have the class"
    table = Table(title=title, title_justify="left")
    heads = {"dice": "Dice", "iou": "IoU", "surface_dice": f"surface Dice {said['tolerance']:g} {unit}",
             "hd95": f"HD95 {unit}", "assd": f"ASSD {unit}", "lesion_f1": "lesion F1",
             "volume_error": "volume error " + ("ml" if unit == "mm" else "px")}  # fmt: skip
    for name in ("class", *heads.values(), "missed, invented"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for name, part in said["classes"].items():
        cells = [_with_spread(part[kind]) for kind in heads]
        table.add_row(name, *cells, f"{part['missed']}, {part['invented']}")
    table.add_section()
    means = said["foreground"]
    table.add_row("mean of the classes", *(_shown(means.get(kind)) for kind in heads), "")
    return table


def _with_spread(of: Mapping[str, float | None]) -> str:
    mean, std = of["mean"], of["std"]
    return "–" if mean is None else f"{mean:.3f}" + ("" if std is None else f" ± {std:.3f}")


def _calibration(said: Mapping[str, Any]) -> Table:
    table = Table(title="calibration", title_justify="left")
    for name in ("probabilities", "temperature", "ECE", "NLL", "average precision"):
        table.add_column(name, justify="left" if name == "probabilities" else "right")
    own = "" if "curves" not in said else _shown(said["curves"]["average_precision"])
    for at, part in enumerate(said["at"]):
        text = "as the network gives them" if not at else f"at the temperature of {part['of']}"
        table.add_row(
            text, f"{part['temperature']:.4g}", _shown(part["ece"]), _shown(part["nll"]), own if not at else ""
        )
    if (part := said.get("fitted")) is not None:
        text = f"fitted here, on {part['sampled_pixels']:,} pixels"
        table.add_row(text, f"{part['temperature']:.4g}", _shown(part["ece"]), _shown(part["nll"]), "")
    return table


def summary(images: PerImage) -> list[Plain]:
    """Each image's name and own mIoU, the lowest first."""
    own = per_image_miou(images)
    rows = [{"id": name, "miou": _number(value)} for name, value in zip(images.ids, own, strict=True)]
    return sorted(rows, key=lambda row: (row["miou"] is None, row["miou"], row["id"]))


def _bounds(of: Interval) -> list[float | None]:
    return [_number(of.low), _number(of.high)]


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _span(bounds: Sequence[float | None]) -> str:
    low, high = bounds
    return "–" if low is None or high is None else f"{low:.3f} to {high:.3f}"
