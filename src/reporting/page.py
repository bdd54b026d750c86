"""The comparison as one HTML page that holds everything it shows: nothing is fetched, and it can be mailed."""

from __future__ import annotations

import base64
import io
import shlex
import struct
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import jinja2
from markupsafe import Markup

from src.reporting import events, one_key
from src.reporting.charts import Chart, chart
from src.reporting.compare import SeedGroup
from src.reporting.one_key import Pair
from src.reporting.read import Run, Status
from src.reporting.tables import Column, called
from src.storage import run_folder

_TEMPLATE = Path(__file__).with_name("page.html")
_STYLE = Path(__file__).with_name("style.html")
_GOLDEN = 137.508  # degrees between neighbouring hues, so that few and many are told apart
_LARGEST = 720  # pixels a side of a picture
_MOST_PIXELS = 40_000_000  # of a picture before it is made smaller
_SPEED = "train/images_per_second"


@dataclass(frozen=True)
class Sample:
    """One validation sample: its name, and each run's number, name and picture."""

    name: str
    pictures: Sequence[tuple[int, str, str]]


def page(
    title: str, runs: Sequence[Run], shown: Sequence[Column], groups: Sequence[SeedGroup], over_seeds: Sequence[Column],
    metric: str, samples: int, with_pictures: int, pairs: Sequence[Pair] = (),
) -> str:  # fmt: skip
    """The page as text.

    Args:
        runs: in the order in which they are shown; `shown` are their columns in the same order.
        groups, over_seeds: the runs by what differs but for the seed, and their table.
        pairs: groups that differ in one key, compared.
        samples: how many validation samples are shown, of how many runs with pictures (the first `with_pictures`).
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    colors = _colors(runs, groups)
    counts = {status: sum(run.status == status for run in runs) for status in get_args(Status)}
    return template.render(
        title=title,
        style=style(),
        written=time.strftime("%Y-%m-%d %H:%M"),
        counts=", ".join(f"{count} {status}" for status, count in counts.items() if count),
        columns=shown,
        cells=[
            (i, colors[i], run, [(c, c.values[i], c.shown[i]) for c in shown]) for i, run in enumerate(runs)
        ],
        over_seeds=over_seeds,
        seed_cells=[[(c, c.values[i], c.shown[i]) for c in over_seeds] for i in range(len(groups))],
        pair_heads=one_key.heads(metric),
        pair_cells=[one_key.cells(pair) for pair in pairs],
        charts=_charts(runs, colors, metric),
        samples=_samples(runs, samples, with_pictures),
        captions=[_caption(i, run, shown) for i, run in enumerate(runs)],
        metric=called(metric),
        unfinished=[(run, _resume(run)) for run in runs if run.status in ("failed", "interrupted", "stopped")],
        not_read=[problem for run in runs for problem in run.problems],
    )  # fmt: skip


def style() -> Markup:
    """The style sheet of all pages."""
    return Markup(_STYLE.read_text(encoding="utf-8"))  # the program's own text


def _colors(runs: Sequence[Run], groups: Sequence[SeedGroup]) -> list[str]:
    """A colour for each run; those that differ in the seed only share one."""
    hue = {run.folder: k * _GOLDEN % 360 for k, group in enumerate(groups) for run in group.runs}
    return [f"hsl({hue[run.folder]:.0f} 65% 50%)" for run in runs]


def _charts(runs: Sequence[Run], colors: Sequence[str], metric: str) -> list[Chart]:
    tags = dict.fromkeys([f"val/{metric}", "val/loss", "train/loss", _SPEED])
    drawn = (
        chart(tag, ((i, run.name, colors[i], events.curve(run.events, tag)) for i, run in enumerate(runs)))
        for tag in tags
    )
    return [c for c in drawn if c is not None]


def _samples(runs: Sequence[Run], samples: int, with_pictures: int) -> list[Sample]:
    found: dict[str, list[tuple[int, str, str]]] = {}
    showing = [(i, run, tags) for i, run in enumerate(runs) if (tags := _picture_tags(run.events.pictures))]
    for i, run, tags in showing[:with_pictures]:
        for tag in tags:
            if len(found) < samples or tag in found:
                picture = inlined(events.picture(run.events, tag))
                if picture is not None:
                    found.setdefault(tag, []).append((i, run.name, picture))
    return [Sample(tag.removeprefix("val/"), pictures) for tag, pictures in found.items()]


def _caption(i: int, run: Run, shown: Sequence[Column]) -> str:
    parts = [f"{c.key}={c.shown[i]}" for c in shown if c.difference and c.values[i] is not None]
    score = next(c for c in shown if c.key == "val")
    return f"{run.name}: {score.title} {score.shown[i]}{', ' if parts else ''}{', '.join(parts)}"


def _resume(run: Run) -> str:
    """The command that goes on with a run; none where no checkpoint was written."""
    there = not run.problems and (run.folder / run_folder.LAST).is_file()
    return f"python -m src.train {shlex.quote(f'resume={run.folder.resolve()}')}" if there else ""


def _picture_tags(pictures: Mapping[str, object]) -> list[str]:
    return [tag for tag, shown in pictures.items() if tag.startswith("val/") and tag != "val/confusion" and shown]


def inlined(encoded: bytes | None, largest: int = _LARGEST) -> str | None:
    """A picture as a data URI: made anew, so that it is one whatever the file held, and a fifth of the bytes."""
    from PIL import Image

    if encoded is None:
        return None
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(encoded), formats=("PNG",)) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            small = image.convert("RGB")
            small.thumbnail((largest, largest))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
        return None
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=82)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
