"""Labels held against what models say of them: which are likely wrong, as lists and pictures."""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from src.config.evaluation import Evaluation
from src.data.labels import LabelSet
from src.data.samples import Split
from src.data.sources import Source, whole_of
from src.errors import UserError
from src.evaluation.folds import FILE as FOLDS
from src.evaluation.label_quality import Quality, quality, ranked
from src.evaluation.observation import places
from src.files import untrusted
from src.files.pictures import save_picture
from src.files.untrusted import shown
from src.inference.devices import autocast
from src.inference.drawing import as_picture, comparison
from src.inference.sizes import sized
from src.models.base import Segmenter
from src.storage.run_folder import write_text
from src.training.scoring import open_checkpoint

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Images, and the model that is asked about their labels."""

    model: Segmenter
    device: torch.device
    precision: object
    source: Source


@dataclass(frozen=True)
class Limits:
    """What counts as doubtful: see `label_quality.quality`."""

    threshold: float
    smallest: int


def runs_of_folds(folder: Path) -> list[Path] | None:
    """The run folders of a sweep over folds, one a fold; None where the folder is none. Of several combinations those of the
    best.

    Raises:
        UserError: its folds.json is damaged, or leads elsewhere.
    """
    file = folder / FOLDS
    if not file.is_file():
        return None
    try:
        combinations = untrusted.read_json(file)["combinations"]
        best = max(combinations, key=lambda one: float(one["pooled"]["miou"]))
        names = [str(each["run"]) for each in best["folds"]["each"]]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"ckpt: {file} is not what folds=… writes; start the sweep again, which goes on") from None
    if len(combinations) > 1:
        _log.info("of %d combinations the best: %s", len(combinations), shown(" ".join(map(str, best["overrides"]))))
    return [untrusted.inside(folder, name) for name in names]


def part_of(asked: Evaluation, split: Split, typed: Collection[str] | None = None) -> Part:
    """A checkpoint's images and its model.

    Args:
        asked: the evaluation of the checkpoint; its splits are not looked at.
        split: whose labels are looked at.

    Raises:
        UserError: as `open_checkpoint`.
    """
    opened = open_checkpoint(asked, typed, splits=(split,))
    device = torch.device("cpu")
    if opened.on.accelerator != "cpu":
        device = torch.accelerator.current_accelerator(check_available=True) or device
    return Part(opened.model.to(device).eval(), device, opened.on.precision, opened.datamodule.source(split))


def qualities(parts: Iterator[Part], limits: Limits) -> tuple[LabelSet, list[Quality]]:
    """What is thought of each image's label, the most suspicious first.

    Raises:
        UserError: an image cannot be read, two have one name, or no pixel is labelled.
    """
    from rich.progress import track

    found: list[Quality] = []
    labels: LabelSet | None = None
    for part in parts:
        labels = part.model.label_set
        names = list(places(part.source))
        for index in track(range(len(names)), "asking", disable=not sys.stdout.isatty()):
            own, mask, predicted = _seen(part, index)
            one = quality(
                names[index], whole_of(part.source, index) or names[index], own, mask, predicted, labels,
                limits.threshold, limits.smallest,
            )  # fmt: skip
            if one is not None:
                found.append(one)
    if labels is None or not found:
        raise UserError("data: no image has a labelled pixel, so there is nothing to doubt")
    return labels, ranked(found)


@torch.inference_mode()
def _seen(part: Part, index: int) -> tuple[Any, Any, Any]:
    """The probability of each pixel's label float32, the labels and the predicted classes, [H, W]."""
    image, mask = part.source.read(index)
    own = np.ones(tuple(mask.shape), np.float32)
    predicted = np.zeros(tuple(mask.shape), np.int64)
    with autocast(part.device, part.precision):
        for top, outputs in part.model.predicted(image[None].to(part.device), tuple(mask.shape)):
            share = part.model.shares(outputs["logits"])[0].cpu()
            rows = slice(top, top + share.shape[-2])
            label = mask[rows].long().clamp(max=len(share) - 1)  # of an ignored pixel whatever
            own[rows] = share.gather(0, label[None])[0].numpy()
            predicted[rows] = share.argmax(dim=0).numpy()
    return own, mask.numpy(), predicted


def draw(parts: Iterator[Part], chosen: Sequence[Quality], folder: Path) -> None:
    """Writes a picture of each image that is chosen: image, label, prediction, errors, and the probability of the label.

    Raises:
        OSError: it cannot be written.
    """
    place = {one.name: at for at, one in enumerate(chosen, 1)}
    for part in parts:
        for name, index in places(part.source).items():
            if name not in place:
                continue
            own, mask, predicted = _seen(part, index)
            image = part.source.read(index)[0]
            if image.shape[-2:] != mask.shape:
                image = sized(image[None].float(), mask.shape)[0]
            picture = comparison(
                as_picture(image.numpy(), part.source.intensity), mask, predicted, part.model.label_set,
                {"how improbable the label is": np.where(mask == part.model.label_set.ignore_index, 0, 1 - own)},
            )  # fmt: skip
            save_picture(Image.fromarray(np.ascontiguousarray(picture)), folder / picture_name(place[name], name))


def picture_name(place: int, name: str) -> str:
    return f"{place:04}_{''.join(c if c.isalnum() or c in '.-_' else '_' for c in name)[-80:]}.png"


def write(labels: LabelSet, found: Sequence[Quality], listed: int, about: Mapping[str, Any], folder: Path) -> None:
    """Writes audit.json (all of it), images.csv, regions.csv, regions.json (COCO boxes) and review.txt, which names the first
    `listed` images.

    Raises:
        OSError: they cannot be written.
    """
    names = labels.names
    rows = [
        [rank, one.name, f"{one.score:.6f}", one.pixels, one.doubtful, len(one.regions)]
        for rank, one in enumerate(found, 1)
    ]
    _write_csv(folder / "images.csv", ["rank", "image", "quality", "labelled", "doubtful", "regions"], rows)
    regions = sorted(((one.name, region) for one in found for region in one.regions), key=lambda pair: -pair[1].doubt)
    _write_csv(
        folder / "regions.csv",
        ["image", "label", "looks_like", "pixels", "doubt", "top", "left", "bottom", "right"],
        [[name, names[r.label], names[r.predicted], r.pixels, f"{r.doubt:.1f}", *r.box] for name, r in regions],
    )
    _write_json(folder / "regions.json", _coco(labels, found))
    _write_json(folder / "audit.json", {
        **about,
        "images": [
            {"image": one.name, "of": one.whole, "quality": one.score, "labelled": one.pixels, "doubtful": one.doubtful,
             "regions": [{"label": names[r.label], "looks_like": names[r.predicted], "pixels": r.pixels, "doubt": r.doubt,
                          "box": list(r.box)} for r in one.regions]}
            for one in found
        ],
    })  # fmt: skip
    write_text(folder / "review.txt", "".join(f"{one.name}\n" for one in found[:listed]))


def _coco(labels: LabelSet, found: Sequence[Quality]) -> dict[str, Any]:
    """Boxes as labelling tools import them; a category says what the label is and what it looks like."""
    names = labels.names
    kinds = sorted({(r.label, r.predicted) for one in found for r in one.regions})
    category = {kind: number for number, kind in enumerate(kinds, 1)}
    boxes = [
        {"image_id": at, "category_id": category[r.label, r.predicted], "iscrowd": 0, "area": r.pixels,
         "bbox": [r.box[1], r.box[0], r.box[3] - r.box[1], r.box[2] - r.box[0]]}
        for at, one in enumerate(found, 1) for r in one.regions
    ]  # fmt: skip
    return {
        "images": [{"id": at, "file_name": one.name} for at, one in enumerate(found, 1)],
        "categories": [
            {"id": number, "name": f"{names[label]}: {names[predicted]}?"}
            for (label, predicted), number in category.items()
        ],
        "annotations": [{"id": number, **box} for number, box in enumerate(boxes, 1)],
    }


def _write_csv(file: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text(file, text.getvalue())


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
