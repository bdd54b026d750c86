"""Compares runs: `python -m src.report DIR [metric=…] [sort=…]` prints a table and writes DIR/report.csv and report.html."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from pydantic import NonNegativeInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.parts import Config
from src.errors import UserError, of_a_file


@dataclass(frozen=True, kw_only=True)
class Comparison(Asked):
    """What a report is told.

    Attributes:
        dir: the folder whose runs and sweeps are compared.
        metric: a score, without its stage.
        sort: a column of the table.
        output: where the files go; None writes them into `dir`.
        samples, pictures: so many validation samples of so many runs are shown.
    """

    dir: str
    metric: str
    sort: str
    output: str | None
    samples: NonNegativeInt
    pictures: NonNegativeInt


def report(settings: Config | Comparison) -> None:
    """Reads every run below `dir`, prints them sorted, and writes report.csv and report.html.

    Raises:
        UserError: there is no run, or none has this metric or column.
    """
    asked = settings if isinstance(settings, Comparison) else Comparison.of(settings)
    from src.reporting import compare, one_key, page, read, tables
    from src.storage.run_folder import write_text

    root = Path(asked.dir).expanduser()
    runs = read.find(root)
    if not runs:
        raise UserError(
            f"dir: no run folder in or below {root}; give the folder of some runs or a sweep, e.g. logs/train"
        )
    metric = asked.metric
    scores = set().union(*(run.metrics_known() for run in runs))
    if scores and metric not in scores:
        raise UserError(f"metric: no run has a score {metric!r}{_among(metric, scores)}")

    different = compare.differences(runs)
    columns = tables.columns(runs, different, metric)
    by_key = {column.key: column for column in columns}
    if asked.sort not in by_key:
        raise UserError(f"sort: the table has no column {asked.sort!r}{_among(asked.sort, by_key)}")
    places = tables.order(by_key[asked.sort])
    runs = [runs[i] for i in places]
    different = {key: [values[i] for i in places] for key, values in different.items()}
    columns = tables.columns(runs, different, metric)
    groups = compare.by_seed(runs, different)
    repeated = any(len(group.runs) > 1 for group in groups)
    over_seeds = tables.seed_columns(groups, metric) if repeated else []
    if by_sort := [column for column in over_seeds if column.key == asked.sort]:
        groups = [groups[i] for i in tables.order(by_sort[0])]
        over_seeds = tables.seed_columns(groups, metric)

    output = Path(asked.output or root).expanduser()
    title = f"Runs in {root.resolve().name}"
    pairs, more = one_key.pairs(groups, "val", metric)
    html = page.page(title, runs, columns, groups, over_seeds, metric, asked.samples, asked.pictures, pairs)
    try:
        write_text(output / "report.csv", tables.as_csv(runs, different, groups, metric))
        write_text(output / "report.html", html)
    except OSError as error:
        if told := of_a_file(error):
            raise UserError(f"output: {told}") from None
        raise
    console = tables.console()
    console.print(tables.run_table(columns))
    if repeated:
        console.print(tables.seed_table(over_seeds))
    if pairs:
        console.print(one_key.table(pairs, metric))
        if any(pair.images is None for pair in pairs):
            print("over images: python -m src.compare a=RUN b=RUN evaluates runs image by image")
    if more:
        print(f"{more} more pairs of groups differ in one key; give a folder of fewer runs to see them")
    for run in runs:
        for problem in run.problems:
            console.print(f"not read: {problem}", markup=False, highlight=False, soft_wrap=True)
        if run.error:
            console.print(f"{run.name}: {run.error}", markup=False, highlight=False, soft_wrap=True)
    print(f"written: {output / 'report.html'} and {output / 'report.csv'}")


def _among(word: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.4)
    suggestion = f", did you mean {close[0]!r}?" if close else ""
    return f"{suggestion}; there are: {', '.join(sorted(choices))}"


def _task(asked: Comparison, _: DictConfig) -> None:
    report(asked)


if __name__ == "__main__":
    start("report", _task, Comparison.of)
