"""Compares runs: `python -m src.report DIR [metric=…] [sort=…]` prints a table and writes DIR/report.csv and report.html."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import NonNegativeInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import plain, start
from src.cli.overrides import literal
from src.config.check import check_keys
from src.errors import UserError, of_a_file

_KEYS: dict[str, Any] = {
    "dir": str, "metric": str, "sort": str, "output": str | None, "samples": NonNegativeInt, "pictures": NonNegativeInt,
}  # fmt: skip


def check(config: Mapping[str, Any]) -> None:
    check_keys(config, _KEYS)


def report(settings: Mapping[str, Any]) -> None:
    """Reads every run below `dir`, prints them sorted, and writes report.csv and report.html.

    Raises:
        UserError: there is no run, or none has this metric or column.
    """
    check(settings)
    from src.reporting import compare, page, read, tables
    from src.storage.run_folder import write_text

    root = Path(settings["dir"]).expanduser()
    runs = read.find(root)
    if not runs:
        raise UserError(
            f"dir: no run folder in or below {root}; give the folder of some runs or a sweep, e.g. logs/train"
        )
    metric = settings["metric"]
    scores = set().union(*(run.metrics_known() for run in runs))
    if scores and metric not in scores:
        raise UserError(f"metric: no run has a score {metric!r}{_among(metric, scores)}")

    different = compare.differences(runs)
    columns = tables.columns(runs, different, metric)
    by_key = {column.key: column for column in columns}
    if settings["sort"] not in by_key:
        raise UserError(f"sort: the table has no column {settings['sort']!r}{_among(settings['sort'], by_key)}")
    places = tables.order(by_key[settings["sort"]])
    runs = [runs[i] for i in places]
    different = {key: [values[i] for i in places] for key, values in different.items()}
    columns = tables.columns(runs, different, metric)
    groups = compare.by_seed(runs, different)
    repeated = any(len(group.runs) > 1 for group in groups)
    over_seeds = tables.seed_columns(groups, metric) if repeated else []
    if by_sort := [column for column in over_seeds if column.key == settings["sort"]]:
        groups = [groups[i] for i in tables.order(by_sort[0])]
        over_seeds = tables.seed_columns(groups, metric)

    output = Path(settings["output"] or root).expanduser()
    title = f"Runs in {root.resolve().name}"
    html = page.page(title, runs, columns, groups, over_seeds, metric, settings["samples"], settings["pictures"])
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
    for run in runs:
        for problem in run.problems:
            console.print(f"not read: {problem}", markup=False, highlight=False, soft_wrap=True)
        if run.error:
            console.print(f"{run.name}: {run.error}", markup=False, highlight=False, soft_wrap=True)
    print(f"written: {output / 'report.html'} and {output / 'report.csv'}")


def _among(word: str, choices: Any) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.4)
    suggestion = f", did you mean {close[0]!r}?" if close else ""
    return f"{suggestion}; there are: {', '.join(sorted(choices))}"


def named(arguments: list[str]) -> list[str]:
    """The arguments with a plain one, which is a folder, as `dir=…` in the grammar of overrides."""
    result: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        plain = argument[:1] not in ("-", "+", "~") and "=" not in argument and not before.startswith("-")
        if plain or _is_folder(argument):
            argument = f"dir={literal(argument)}"
        result.append(argument)
    return result


def _is_folder(argument: str) -> bool:
    try:
        return Path(argument).expanduser().is_dir()
    except OSError:  # no folder's name is so long
        return False


def _task(config: DictConfig) -> None:
    report(plain(config))


if __name__ == "__main__":
    sys.argv[1:] = named(sys.argv[1:])
    start("report", _task, check)
