"""A paired comparison for a terminal, as JSON, and as one page."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from rich.table import Table
from rich.text import Text

from src.evaluation.paired import Compared, OfClass, OfSeeds, SignedRank
from src.evaluation.scores import Interval
from src.reporting.page import style
from src.reporting.per_image import Side, verdict
from src.reporting.tables import console

_TEMPLATE = Path(__file__).with_name("comparison.html")
_LISTED = 20  # images on the page, of those that gain and of those that lose


def extremes(found: Compared, a: Side, count: int) -> list[tuple[str, str]]:
    """The names of the images that gain the most and that lose the most, and what is said of each."""
    gains, losses = _order(found)
    chosen = [*gains[:count], *losses[:count]]
    return [(a.images[0].ids[at], f"{a.images[0].ids[at]}: {_own(found, at)}") for at in chosen]


def show(a: Side, b: Side, split: str, found: Compared, seeds: OfSeeds | None) -> None:
    """Prints the comparison."""
    out = console()
    means = _table(f"a: {a.name}, b: {b.name}; {split}, {found.images} images", [c for c, _ in _MEANS])
    for cells in _means(found):
        means.add_row(*map(Text, cells))
    out.print(means)
    classes = _table("classes, by IoU over the data set; Wilcoxon's p over images, corrected by Holm", _CLASSES)
    for one in found.classes:
        classes.add_row(*map(Text, _class_cells(one)))
    out.print(classes)
    if seeds is not None:
        table = _table("over seeds", ["seed", "mIoU a", "mIoU b", "b less a"])
        for cells in _seed_cells(seeds):
            table.add_row(*map(Text, cells))
        out.print(table)
    out.print(verdict(found, seeds), markup=False, highlight=False, soft_wrap=True)


def as_json(a: Side, b: Side, split: str, found: Compared, seeds: OfSeeds | None) -> str:
    """Everything that was computed; what is no number is null."""
    ids = a.images[0].ids
    by_image = [
        {"id": name, "a": _finite(x), "b": _finite(y)} for name, x, y in zip(ids, *found.own, strict=True)
    ]  # fmt: skip
    said = {
        "a": [str(folder) for folder in a.folders], "b": [str(folder) for folder in b.folders], "split": split,
        "verdict": verdict(found, seeds), "images": found.images, "groups": found.groups, "samples": found.samples,
        "data_set_miou": asdict(found.data_set), "per_image_miou": asdict(found.per_image),
        "wilcoxon": asdict(found.test), "classes": [asdict(one) for one in found.classes],
        "seeds": None if seeds is None else asdict(seeds), "by_image": by_image,
    }  # fmt: skip
    return json.dumps(_plain(said), indent=2, ensure_ascii=False) + "\n"


def page(
    a: Side, b: Side, split: str, found: Compared, seeds: OfSeeds | None, pictures: Sequence[tuple[str, str]]
) -> str:
    """The page as text; it holds all that it shows.

    Args:
        pictures: captions and data URIs.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    gains, losses = _order(found)
    ids = a.images[0].ids
    return template.render(
        title=f"{b.name} against {a.name}", style=style(), written=time.strftime("%Y-%m-%d %H:%M"), split=split,
        a=a, b=b, found=found, verdict=verdict(found, seeds), means=_MEANS, mean_cells=_means(found),
        classes=_CLASSES, class_cells=[(_class_cells(one), _bar(one, found)) for one in found.classes],
        seeds=seeds, seed_cells=[] if seeds is None else _seed_cells(seeds), points=_points(found, ids),
        gains=[(ids[at], _own(found, at)) for at in gains[:_LISTED]],
        losses=[(ids[at], _own(found, at)) for at in losses[:_LISTED]], pictures=pictures,
    )  # fmt: skip


_MEANS = [
    ("mean", "what is averaged"), ("a", ""), ("b", ""), ("b less a", ""),
    ("95 % interval", "percentile bootstrap"), ("p", "two-sided"), ("effect", "rank-biserial, -1 to 1"),
    ("b is better in", "share of images"),
]  # fmt: skip
_CLASSES = ["class", "IoU a", "IoU b", "b less a", "95 % interval", "images", "corrected p", "effect", "b is better in"]


def _means(found: Compared) -> list[list[str]]:
    data_set, own, test = found.data_set, found.per_image, found.test
    head = [_four(data_set.a), _four(data_set.b), f"{data_set.by.value:+.4f}", _span(data_set.by), _p(data_set.p)]
    return [
        ["data set: pixels of all images together (bootstrap)", *head, "", ""],
        ["per image: the images' own, averaged (bootstrap)", _four(own.a), _four(own.b), f"{own.by.value:+.4f}",
         _span(own.by), _p(own.p), "", ""],
        ["per image, by Wilcoxon's signed ranks", "", "", "", "", _p(test.p), f"{test.effect:+.2f}", f"{test.gain:.0%}"],
    ]  # fmt: skip


def _class_cells(one: OfClass) -> list[str]:
    iou, test = one.iou, one.test
    tested = ["–"] * 3 if test is None else [_p(one.corrected_p), *_effect(test)]
    by = "–" if math.isnan(iou.by.value) else f"{iou.by.value:+.4f}"
    return [one.name, _four(iou.a), _four(iou.b), by, _span(iou.by), str(test.count if test else 0), *tested]


def _effect(test: SignedRank) -> list[str]:
    return [f"{test.effect:+.2f}", f"{test.gain:.0%}"]


def _seed_cells(seeds: OfSeeds) -> list[list[str]]:
    rows = []
    for seed, one, other in seeds.rows:
        by = f"{other - one:+.4f}" if one is not None and other is not None else "–"
        rows.append([str(seed), _four(one), _four(other), by])
    spread = "" if seeds.deviation is None else f" ± {seeds.deviation:.4f}"
    return [*rows, ["mean", "", "", f"{seeds.mean:+.4f}{spread}, p = {_p(seeds.p)}"]]


def _order(found: Compared) -> tuple[list[int], list[int]]:
    """The numbers of images that gain, the most first, and of those that lose, the most first."""
    by = found.own[1] - found.own[0]
    order = [int(at) for at in np.argsort(-np.nan_to_num(by), kind="stable")]
    return [at for at in order if by[at] > 0], [at for at in reversed(order) if by[at] < 0]


def _own(found: Compared, at: int) -> str:
    one, other = (float(side[at]) for side in found.own)
    return f"{one:.4f} to {other:.4f} ({other - one:+.4f})"


def _points(found: Compared, ids: Sequence[str]) -> list[tuple[float, float, str]]:
    """Of each image its place in a square of 300, across a's mIoU and up b's, and its name."""
    return [
        (round(float(x) * 300, 1), round(300 - float(y) * 300, 1), name)
        for x, y, name in zip(*found.own, ids, strict=True) if math.isfinite(x) and math.isfinite(y)
    ]  # fmt: skip


def _bar(one: OfClass, found: Compared) -> tuple[float, float, float] | None:
    """Where a class's interval and value lie in a strip of 200 whose middle is no difference."""
    spans = [abs(v) for c in found.classes for v in (c.iou.by.low, c.iou.by.high) if math.isfinite(v)]
    widest = max(spans, default=0.0) or 1.0
    if not all(math.isfinite(v) for v in (one.iou.by.low, one.iou.by.value, one.iou.by.high)):
        return None
    low, value, high = (round(100 + 96 * v / widest, 1) for v in (one.iou.by.low, one.iou.by.value, one.iou.by.high))
    return low, value, high


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if at else "left")
    return table


def _four(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _span(of: Interval) -> str:
    return f"{of.low:+.4f} to {of.high:+.4f}" if math.isfinite(of.low) else "–"


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return _finite(value) if isinstance(value, float) else value
