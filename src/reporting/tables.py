"""The comparison as columns: for a terminal, as CSV, and for the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.files.spreadsheets import cell
from src.metrics.names import falls
from src.reporting.compare import SeedGroup
from src.reporting.read import Run, number

_STYLES = {"completed": "green", "running": "cyan", "interrupted": "yellow", "stopped": "yellow", "failed": "red"}
_VAST = 1e12


@dataclass(frozen=True)
class Column:
    """One property of each run: `values` to sort by (numbers, texts or None), `shown` to read."""

    key: str
    title: str
    values: Sequence[Any]
    shown: Sequence[str]
    descending: bool = False  # what comes first when sorted by it
    difference: bool = False  # a key in which the runs differ

    @property
    def numeric(self) -> bool:
        return all(isinstance(v, int | float) for v in self.values if v is not None)


def called(metric: str) -> str:
    """A score's key; of Dice with what it is a mean of."""
    return "dice (all classes)" if metric == "dice" else metric


def own_mode(runs: Sequence[Run], metric: str) -> str | None:
    """What the runs say of the direction of a metric that they monitor: "min" or "max"; None where none does."""
    said = (run.config.get("monitor_mode") for run in runs if run.config.get("monitor") == f"val/{metric}")
    return next((str(mode) for mode in said if mode), None)


def columns(runs: Sequence[Run], different: Mapping[str, Sequence[str]], metric: str) -> list[Column]:
    """What the table of runs shows."""

    def of(key: str, title: str, values: Sequence[object], form: str = "", descending: bool = False) -> Column:
        return Column(key, title, values, [_dash(v) or _shown(v, form) for v in values], descending)

    best_first = not falls(metric, own_mode(runs, metric))
    scores = [
        of(stage, f"{stage} {called(metric)}", [run.score(stage, metric) for run in runs], ".4f", best_first)
        for stage in ("val", "test")
    ]
    seconds = [run.seconds for run in runs]
    return [
        of("run", "run", [run.name for run in runs]),
        of("status", "status", [run.status for run in runs]),
        *(_difference(key, values) for key, values in different.items()),
        *scores,
        of("epochs", "epochs", [run.epochs for run in runs]),
        Column("time", "time", seconds, [duration(s) for s in seconds]),
        of("images_per_second", "images/s", [run.images_per_second for run in runs], ".1f", descending=True),
        of("memory", "GiB", [run.memory for run in runs], ".2f"),
    ]


def order(column: Column) -> list[int]:
    """The runs' numbers, sorted by a column; those without a value come last."""
    have = [i for i, value in enumerate(column.values) if value is not None]
    numeric = column.numeric
    have.sort(key=lambda i: column.values[i] if numeric else str(column.values[i]), reverse=column.descending)
    return have + [i for i, value in enumerate(column.values) if value is None]


def run_table(shown: Sequence[Column]) -> Table:
    """The runs as a table for a terminal."""
    table = _table("runs", shown)
    for cells in zip(*(column.shown for column in shown), strict=True):
        table.add_row(
            *(Text(c, _STYLES.get(c, "") if col.key == "status" else "") for c, col in zip(cells, shown, strict=True))
        )
    return table


def seed_columns(groups: Sequence[SeedGroup], metric: str) -> list[Column]:
    """What the table over seeds shows; a column of a value that all groups share is left out."""
    keys = [key for key in (groups[0].values if groups else {}) if len({group.values[key] for group in groups}) > 1]
    scores, best_first = [], not falls(metric, own_mode([run for group in groups for run in group.runs], metric))
    for stage in ("val", "test"):
        found = [group.score(stage, metric) for group in groups]
        texts = [_mean(*score) if score else "–" for score in found]
        means = [score[0] if score else None for score in found]
        scores.append(Column(stage, f"{stage} {called(metric)}", means, texts, best_first))
    done = [len(group.completed) for group in groups]
    seeds = [len({run.seed for run in group.runs}) for group in groups]
    counts = [f"{d}" if d == all_ else f"{d} of {all_}" for d, all_ in zip(done, seeds, strict=True)]
    seconds, speed, memory = ([group.mean(n) for group in groups] for n in ("seconds", "images_per_second", "memory"))
    return [
        *(_difference(key, [group.values[key] for group in groups]) for key in keys),
        Column("seeds", "seeds", done, counts),
        *scores,
        Column("time", "time", seconds, [duration(s) for s in seconds]),
        Column("images_per_second", "images/s", speed, [_dash(v) or _shown(v, ".1f") for v in speed], descending=True),
        Column("memory", "GiB", memory, [_dash(v) or _shown(v, ".2f") for v in memory]),
    ]


def seed_table(shown: Sequence[Column]) -> Table:
    table = _table("over seeds: mean ± standard deviation of the completed ones", shown)
    for cells in zip(*(column.shown for column in shown), strict=True):
        table.add_row(*map(Text, cells))
    return table


def as_csv(
    runs: Sequence[Run], different: Mapping[str, Sequence[str]], groups: Sequence[SeedGroup], metric: str
) -> str:
    """One line a run: its differences, every score, and the mean and deviation over its seeds."""
    scores = sorted({f"{s}/{k}" for run in runs for s in ("val", "test") for k in _of(run, s)})
    group_of = {run.folder: group for group in groups for run in group.runs}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    over = [f"{stage}/{metric}/{what}" for stage in ("val", "test") for what in ("mean", "std")]
    head = [
        "run", "status", *different, "best_val", "best_test", "completed_seeds", *over, "epochs", "seconds",
        "images_per_second", "memory_gib", "error", *scores,
    ]  # fmt: skip
    writer.writerow([cell(title) for title in head])
    for i, run in enumerate(runs):
        group = group_of[run.folder]
        found = [group.score("val", metric), group.score("test", metric)]
        cells: list[object] = [run.name, run.status, *(values[i] for values in different.values())]
        cells += [run.score("val", metric), run.score("test", metric), len(group.completed)]
        cells += [value for score in found for value in (score[:2] if score else (None, None))]
        cells += [run.epochs, run.seconds, run.images_per_second, run.memory, run.error]
        cells += [number(_of(run, s).get(k)) for s, _, k in (name.partition("/") for name in scores)]
        writer.writerow([cell(value) for value in cells])
    return stream.getvalue()


def console() -> Console:
    """As wide as the terminal; where there is none, wide enough that nothing is cut."""
    wide = Console()
    return wide if wide.is_terminal else Console(width=240)


def duration(seconds: float | None) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _table(title: str, shown: Sequence[Column]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in shown:
        heading = column.title.replace(".", ".\n")  # keys are long, their values short
        table.add_column(Text(heading), justify="right" if column.numeric else "left", overflow="fold")
    return table


def _difference(key: str, values: Sequence[str]) -> Column:
    numbers = [_as_number(value) for value in values]
    if all(n is not None for n, value in zip(numbers, values, strict=True) if value):
        return Column(key, key, numbers, [v or "–" for v in values], difference=True)
    return Column(key, key, [v or None for v in values], [v or "–" for v in values], difference=True)


def _as_number(value: str) -> float | None:
    try:
        return number(float(value))
    except ValueError:
        return None


def _of(run: Run, stage: str) -> Mapping[str, object]:
    scores = run.metrics.get(stage)
    return scores if isinstance(scores, Mapping) else {}


def _mean(mean: float, deviation: float | None, count: int) -> str:
    return _shown(mean, ".4f") if deviation is None else f"{_shown(mean, '.4f')} ± {_shown(deviation, '.4f')}"


def _shown(value: Any, form: str) -> str:
    """A number by its format, one that is no score or size of a run (1e300) short."""
    return f"{value:.4g}" if form and abs(value) >= _VAST else format(value, form)


def _dash(value: object) -> str:
    return "–" if value is None else ""
