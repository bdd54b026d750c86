"""Groups of runs that differ in one key, compared: over their seeds, and over images where they have per-image files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from src.errors import UserError
from src.evaluation.paired import Compared, OfSeeds, of_seeds
from src.reporting import per_image
from src.reporting.compare import SeedGroup
from src.reporting.per_image import Side
from src.reporting.tables import called

_MOST = 24  # pairs
_SAMPLES, _SEED = 1000, 0


@dataclass(frozen=True)
class Pair:
    """Two groups that differ in one key.

    Attributes:
        key, a, b: the key, and its value in each.
        rest: the values of the other keys that tell groups apart, which the two share.
        seeds: their scores over seeds.
        images: over images of val; None where a run has no per-image file, or scipy is missing.
    """

    key: str
    a: str
    b: str
    rest: str
    seeds: OfSeeds
    images: Compared | None


def pairs(groups: Sequence[SeedGroup], stage: Literal["val", "test"], metric: str) -> tuple[list[Pair], int]:
    """The pairs of groups that differ in exactly one key and both have scores; and how many more there are."""
    alike = [
        (one, other, keys[0])
        for one, other in itertools.combinations(groups, 2)
        if len(keys := [key for key in one.values if one.values[key] != other.values.get(key)]) == 1
        and _scores(one, stage, metric) and _scores(other, stage, metric)
    ]  # fmt: skip
    return [_pair(*each, stage, metric) for each in alike[:_MOST]], max(0, len(alike) - _MOST)


def table(found: Sequence[Pair], metric: str) -> Table:
    """The pairs as a table for a terminal."""
    shown = Table(title="groups that differ in one key", title_justify="left")
    for at, head in enumerate(heads(metric)):
        shown.add_column(Text(head), justify="left" if at < 2 else "right", overflow="fold")
    for pair in found:
        shown.add_row(*map(Text, cells(pair)))
    return shown


def heads(metric: str) -> list[str]:
    over = ["val mIoU, b less a", "95 % over images", "p over images"]
    return ["a to b", "else", "seeds", f"val {called(metric)}, b less a", "p over seeds", *over]


def cells(pair: Pair) -> list[str]:
    """One pair's texts, in the order of `heads`."""
    seeds, images = pair.seeds, pair.images
    count = len(seeds.rows) if seeds.paired else f"{_given(seeds, 1)} and {_given(seeds, 2)}"
    spread = "" if seeds.deviation is None else f" ± {seeds.deviation:.4f}"
    over: list[str] = ["–"] * 3
    if images is not None:
        by = images.data_set.by
        over = [f"{by.value:+.4f}", f"{by.low:+.4f} to {by.high:+.4f}", _p(images.data_set.p)]
    change = f"{pair.key}: {pair.a or '–'} to {pair.b or '–'}"
    return [change, pair.rest or "–", str(count), f"{seeds.mean:+.4f}{spread}", _p(seeds.p), *over]


def _pair(one: SeedGroup, other: SeedGroup, key: str, stage: Literal["val", "test"], metric: str) -> Pair:
    rest = ", ".join(f"{name}={value}" for name, value in one.values.items() if name != key and value)
    scores = [_scores(group, stage, metric) for group in (one, other)]
    return Pair(key, one.values[key], other.values.get(key, ""), rest, of_seeds(*scores), _over_images(one, other))


def _scores(group: SeedGroup, stage: Literal["val", "test"], metric: str) -> dict[int, float]:
    known = ((run.seed, run.score(stage, metric)) for run in group.completed)
    return {seed: score for seed, score in known if seed is not None and score is not None}


def _over_images(one: SeedGroup, other: SeedGroup) -> Compared | None:
    sides: list[Side] = []
    try:
        for group in (one, other):
            folders = [run.folder for run in group.completed]
            images = [found for folder in folders if (found := per_image.of_folder(folder, "val")[0]) is not None]
            if len(images) < len(folders):
                return None
            sides.append(per_image.side(folders, images))
        return per_image.compared(sides[0], sides[1], _SAMPLES, None, _SEED)
    except UserError:  # other images, a damaged file, or no scipy: the seeds' line stands
        return None


def _given(seeds: OfSeeds, column: int) -> int:
    return sum(row[column] is not None for row in seeds.rows)


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
