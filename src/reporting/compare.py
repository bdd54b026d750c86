"""What differs between runs, and what their seeds say together."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from src.reporting.read import Run

_RECIPES = ("experiment", "debug")  # choices that change keys of every group
_LEFT_OUT = ("paths", "resume", "hydra")  # where a run is, not what it is
SEED = "seed"


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in the seed only.

    Attributes:
        values: text of what tells them from the others, by key.
        runs: all of them, in the order given.
        completed: the newest completed one of each seed: a seed that was run twice is no second sample.
    """

    values: Mapping[str, str]
    runs: Sequence[Run]

    @property
    def completed(self) -> Sequence[Run]:
        done = sorted((run for run in self.runs if run.status == "completed"), key=lambda run: run.ended)
        return list({run.seed: run for run in done}.values())

    def score(self, stage: Literal["val", "test"], metric: str) -> tuple[float, float | None, int] | None:
        """Mean, sample standard deviation (None of one) and count over the completed seeds."""
        scores = [score for run in self.completed if (score := run.score(stage, metric)) is not None]
        if not scores:
            return None
        return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None, len(scores)

    def mean(self, name: Literal["seconds", "images_per_second", "memory"]) -> float | None:
        """Mean over the completed seeds."""
        values = [value for run in self.completed if (value := getattr(run, name)) is not None]
        return statistics.fmean(values) if values else None


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The keys in which the runs differ, and each run's value as text ("" where it has no such key).

    A key whose value follows from the option chosen of its group (or from the recipe) is left out unless a run was given
    it: of `network=fpn` and `network=unet` only `network` is told, not every key of the two networks.
    """
    leaves = [dict(_leaves(_own(run))) for run in runs]
    chosen = [_choices(run) for run in runs]
    known = [i for i, own in enumerate(leaves) if own]  # half-written folders tell nothing
    columns: dict[str, list[str]] = {}
    for group in sorted({key for choices in chosen for key in choices}):
        values = [choices.get(group, "") for choices in chosen]
        if len({values[i] for i in known}) > 1:
            columns[group] = values
    given = {key for run in runs for key in run.overrides}
    for key in dict.fromkeys(key for own in leaves for key in own):
        values = [own.get(key, "") for own in leaves]
        if key in columns or len({values[i] for i in known}) < 2:
            continue
        if key in given or not _follows(key, [(values[i], chosen[i]) for i in known]):
            columns[key] = values
    return dict(sorted(columns.items(), key=lambda item: (item[0] == SEED, "." in item[0], item[0])))


def by_seed(runs: Sequence[Run], different: Mapping[str, list[str]]) -> list[SeedGroup]:
    """The runs in groups that have the same config but for the seed, in the order of their first runs."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, run in enumerate(runs):
        own = {key: value for key, value in _own(run).items() if key != SEED}
        # Without a config nothing says what a run has in common with another.
        groups[json.dumps(own, sort_keys=True, default=str) if own else str(run.folder)].append(i)
    return [
        SeedGroup(
            {key: values[members[0]] for key, values in different.items() if key != SEED}, [runs[i] for i in members]
        )
        for members in groups.values()
    ]


def text(value: object) -> str:
    """A config's value as one would write it in an override."""
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{k}:{text(v)}' for k, v in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _own(run: Run) -> dict[str, object]:
    """A run's config without what says where it is."""
    here = str(run.folder.resolve())
    return {key: _without(here, value) for key, value in run.config.items() if key not in _LEFT_OUT}


def _without(path: str, value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _without(path, v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without(path, v) for v in value]
    return value.replace(path, "") if isinstance(value, str) else value


def _leaves(node: Mapping[str, object], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, where)
        else:
            yield where, text(value)


def _choices(run: Run) -> dict[str, str]:
    if not run.config:
        return {}
    return {
        group: text(choice)
        for group, choice in run.choices.items()
        if group.partition("/")[0] not in _LEFT_OUT
        and (isinstance(run.config.get(group), Mapping) or group in _RECIPES)
    }


def _follows(key: str, runs: Iterable[tuple[str, Mapping[str, str]]]) -> bool:
    """Whether runs that chose the same option of a key's group, and the same recipe, all have the same value of it."""
    seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for value, choices in runs:
        seen[tuple(choices.get(group, "") for group in (key.partition(".")[0], *_RECIPES))].add(value)
    return all(len(found) == 1 for found in seen.values())
