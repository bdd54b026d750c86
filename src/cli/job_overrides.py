"""Sweeps over groups: what all jobs are given may fit the jobs' configs and not the one that the sweep itself starts with.

Of `-m experiment=a,b data.root=DIR` Hydra composes the sweep's own config without the values that are swept over, so with
neither experiment, and refuses `data.root`, which the default data set has not. Such overrides are handed to each job alone, by
making them sweeps of one value, `data.root=choice(DIR)`; each job is then judged on its own composition.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from src.cli.overrides import literal
from src.errors import UserError
from src.which_src import CONFIG_DIR

_OF_SWEEP = ("sweep", "experiment", "debug")  # groups that may say something of the sweep itself
_FOLDER = ("--config-dir", "-cd")
_WITH_VALUE = (*_FOLDER, "--config-name", "-cn")


def left_to_the_jobs(config_name: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a sweep: as it is if the sweep's own config takes it, else with what is the jobs' for the jobs only.

    Raises:
        HydraException: an override cannot be read.
    """
    flags, overrides = split(arguments)
    parsed = OverridesParser.create().parse_overrides(overrides)
    if _lone(flags):
        return list(arguments)  # --config-path and the like: where configs are is Hydra's to find out
    named = dict(zip(flags, [*flags[1:], ""], strict=True))
    name = named.get("--config-name") or named.get("-cn") or config_name
    fixed = [o for o, p in zip(overrides, parsed, strict=True) if not p.is_sweep_override()]
    try:
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            hydra.compose(name, [*search_path(flags), *fixed], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError):
        return [*flags, *(_for_jobs(o, p) for o, p in zip(overrides, parsed, strict=True))]
    return list(arguments)


def as_given(override: str) -> str:
    """An override that `left_to_the_jobs` changed, as it was."""
    key, _, value = override.partition("=")
    if not (value.startswith("choice(") and value.endswith(")")):
        return override
    found = OverridesParser.create().parse_override(override)
    sweep = found.value()
    one = isinstance(sweep, ChoiceSweep) and len(sweep.list) == 1 and not sweep.shuffle
    return f"{key}={next(found.sweep_string_iterator())}" if one else override


def in_order(arguments: Sequence[str]) -> list[str]:
    """A command line as Hydra's parser takes it: `-m` and the options that say where configs are come first, wherever they were
    typed. The folder of `--config-dir` is absolute: a relative one counts from the working directory."""
    first: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        flag, equals, value = argument.partition("=")
        if flag in _WITH_VALUE:
            value = value if equals else next(left, "")
            first += [flag, str(Path(value).expanduser().absolute()) if flag in _FOLDER and value else value]
        elif argument in ("-m", "--multirun"):
            first.insert(0, argument)
        else:
            rest.append(argument)
    return [*first, *rest]


def own_configs(arguments: Sequence[str]) -> Path | None:
    """The folder that `--config-dir` names; of several the last, as Hydra has it.

    Raises:
        UserError: there is no such folder.
    """
    flags = in_order(arguments)
    folder = next((Path(value) for flag, value in list(pairwise(flags))[::-1] if flag in _FOLDER), None)
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"--config-dir: there is no folder {folder}; a relative one counts from the working directory, {Path.cwd()}"
        )
    return folder


def search_path(arguments: Sequence[str]) -> list[str]:
    """The override that makes `hydra.compose`, which knows no options, look into the folder of `--config-dir` too."""
    folder = own_configs(arguments)
    return [] if folder is None else [f"hydra.searchpath=[{literal(f'file://{folder}')}]"]


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options, with the values of those that have one, and the overrides."""
    flags: list[str] = []
    others: list[str] = []
    left = iter(in_order(arguments))
    for argument in left:
        if argument in _WITH_VALUE:
            flags += [argument, next(left, "")]
        else:
            (flags if argument.startswith("-") else others).append(argument)
    return flags, others


def _lone(flags: Sequence[str]) -> list[str]:
    """Options other than `-m` that take no value that is known here."""
    return [
        flag for before, flag in zip(["", *flags], flags, strict=False)
        if flag not in ("-m", "--multirun", *_WITH_VALUE) and before not in _WITH_VALUE
    ]  # fmt: skip


def _for_jobs(override: str, parsed: Override) -> str:
    key = parsed.key_or_group
    of_all = parsed.is_hydra_override() or key in _OF_SWEEP or ("." not in key and not (CONFIG_DIR / key).is_dir())
    if of_all or parsed.is_sweep_override() or parsed.is_delete():
        return override
    name, _, value = override.partition("=")
    return f"{name}=choice({value})" if value else override
