"""Predictions in COCO's JSON (Lin et al. 2014): a file for each image, and one of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.labels import LabelSet, OwnIds
from src.files.atomic import replacing

Rings = list[list[tuple[float, float]]]


def run_lengths(mask: npt.NDArray[np.bool_], left: int = 0, width: int | None = None) -> list[int]:
    """COCO's uncompressed run-length code of a mask [H, w]: lengths of alternating runs of 0 and 1, column by column, beginning
    with 0.

    Args:
        left: the column of a wider mask at which this one begins; what is beside it is 0.
        width: of that mask.
    """
    height, columns = mask.shape
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    begin = left * height
    edges = [0, *(changes + begin).tolist(), (columns if width is None else width) * height]
    if flat[0]:
        edges.insert(1, begin)
    if flat[-1] and (end := begin + columns * height) < edges[-1]:
        edges.insert(-1, end)
    return np.diff(edges).tolist()  # type: ignore[no-any-return]


def image_file(
    mask: npt.NDArray[np.uint8], outlines: Sequence[tuple[int, Rings]] | None, labels: LabelSet, ids: OwnIds | None,
    file_name: str,
) -> dict[str, Any]:  # fmt: skip
    """COCO's JSON of one image.

    Args:
        mask: class numbers [H, W].
        outlines: class and rings of each region, which becomes an annotation: a polygon, or runs where it has holes, which
            COCO's polygons have not. None: one annotation for each class, as runs.
        ids: what categories are called by; None is the class number plus 1, as ids of 0 are taken for nothing by many tools.
    """
    height, width = mask.shape
    numbers = [k + 1 if ids is None else int(ids.table[k]) for k in range(labels.num_classes)]
    if outlines is None:
        found = [_by_runs(mask == k, k) for k in np.unique(mask) if k < labels.num_classes]
    else:
        found = [_by_outline(mask, number, rings) for number, rings in outlines]
    annotations = [
        {"id": at, "image_id": 1, "category_id": numbers[number], "iscrowd": 0, **rest}
        for at, (number, rest) in enumerate(found, 1)
    ]
    return {
        "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
        "categories": [{"id": number, "name": name} for number, name in zip(numbers, labels.names, strict=True)],
        "annotations": annotations,
    }


def _by_runs(of_class: npt.NDArray[np.bool_], number: int) -> tuple[int, dict[str, object]]:
    rows, columns = np.flatnonzero(of_class.any(axis=1)), np.flatnonzero(of_class.any(axis=0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
    code = {"size": list(of_class.shape), "counts": run_lengths(of_class)}
    return int(number), {"segmentation": code, "area": int(of_class.sum()), "bbox": box}


def _by_outline(mask: npt.NDArray[np.uint8], number: int, rings: Rings) -> tuple[int, dict[str, object]]:
    points = np.array(rings[0])
    (left, top), (right, bottom) = points.min(axis=0).astype(int), points.max(axis=0).astype(int)
    area = sum((1 if at == 0 else -1) * _area(ring) for at, ring in enumerate(rings))
    segmentation: object = [points[:-1].ravel().tolist()]
    if len(rings) > 1:
        filled = np.zeros((mask.shape[0], right - left), bool)
        filled[top:bottom] = _filled(rings, left, top, right - left, bottom - top)
        segmentation = {"size": list(mask.shape), "counts": run_lengths(filled, left, mask.shape[1])}
    box = [int(left), int(top), int(right - left), int(bottom - top)]
    return number, {"segmentation": segmentation, "area": round(area), "bbox": box}


def _filled(rings: Rings, left: int, top: int, width: int, height: int) -> npt.NDArray[np.bool_]:
    """The pixels inside the outer ring and outside the others: between vertical edges at an odd number of them."""
    crossings = np.zeros((height, width + 1), np.int64)
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            if x0 == x1:
                crossings[int(min(y0, y1)) - top : int(max(y0, y1)) - top, int(x0) - left] += 1
    inside: npt.NDArray[np.bool_] = crossings.cumsum(axis=1)[:, :-1] % 2 == 1
    return inside


def _area(ring: Sequence[tuple[float, float]]) -> float:
    x, y = np.array(ring).T
    return float(abs((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2)


def merge(files: Iterable[Path], target: Path) -> None:
    """Writes the files of images as one, with ids of their own; memory holds one of them.

    Raises:
        OSError: one cannot be read, or the output not be written.
    """
    kept = [file for file in files if file.is_file()]
    if not kept:
        return
    with replacing(target) as partial, partial.open("w", encoding="utf-8") as stream:
        last = 0
        stream.write('{"images":[')
        for at, file in enumerate(kept, 1):
            content = json.loads(file.read_text(encoding="utf-8"))
            stream.write(("," if at > 1 else "") + _text({**content["images"][0], "id": at}))
        stream.write(f'],"categories":{_text(content["categories"])},"annotations":[')
        for at, file in enumerate(kept, 1):
            for annotation in json.loads(file.read_text(encoding="utf-8"))["annotations"]:
                last += 1
                stream.write(("," if last > 1 else "") + _text({**annotation, "id": last, "image_id": at}))
        stream.write("]}")


def _text(content: object) -> str:
    return json.dumps(content, separators=(",", ":"))
