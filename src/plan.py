"""Plans a run on this machine by trying it: `python -m src.plan data=… network=… [recipe=planned]`."""

from __future__ import annotations

import logging
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import CONFIG_DIR, compose, in_words, start
from src.cli.request import Request
from src.config.asked import Asked
from src.config.check import checked
from src.config.parts import Config
from src.config.settings import Settings
from src.errors import UserError
from src.storage.trust import OWN, check_targets

_log = logging.getLogger(__name__)
_KEYS = ("recipe", "steps", "gain", "largest_batch")
_OPTIONS = ("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")
_MADE_BY = "# Planned by python -m src.plan"
_PACKAGE = "# @package _global_"  # Hydra reads it in the first line alone
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NOT_OF_A_RECIPE = ("debug", "sweep", "hydra", "launcher", "logger")  # of one call, not of what is trained


@dataclass(frozen=True, kw_only=True)
class Plan(Asked):
    """What a plan is told beside the run's own keys.

    Attributes:
        recipe: name of the recipe that is written.
        steps: of each try.
        gain: by how much faster something must be to be chosen, as a share.
        largest_batch: try no larger one.
    """

    recipe: str
    steps: Annotated[int, Field(ge=2)]
    gain: Annotated[float, Field(ge=0, lt=1)]
    largest_batch: PositiveInt | None = None

    def check(self) -> None:
        if not _NAME.fullmatch(self.recipe):
            raise UserError(f"recipe: {self.recipe!r} should be a word of small letters, digits and _, e.g. planned")


@dataclass(frozen=True)
class Planned:
    """The run that is planned.

    Attributes:
        arguments: of `python -m src.train`.
        settings: what they come to.
        configs: the folder of recipes: of the user's own, if `--config-dir` names one.
        defaults, keys: a recipe that says the same.
    """

    arguments: tuple[str, ...]
    settings: Settings
    configs: Path
    defaults: list[object]
    keys: dict[str, Any]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Self:
        """The run of a command line.

        Raises:
            UserError: a key is wrong, it is no run that begins, or one key cannot stand in a recipe.
        """
        request = Request.parse("train", arguments)
        if request.sweeps or request.resume or request.like or request.trust or not request.is_one_run:
            raise UserError("plan: plans one run that begins; leave out -m, resume=, like= and trust=")
        try:
            config = compose("train", list(request.arguments))
            defaults, keys = recipe_of(request.overrides)
        except (HydraException, OmegaConfBaseException) as error:
            words = in_words(error, request.arguments, lambda groups: DictConfig(compose("train", groups)))
            raise UserError(words) from None
        check_targets(config, OWN)
        configs = (request.own_configs or CONFIG_DIR) / "experiment"
        return cls(request.arguments, checked(config), configs, defaults, keys)

    def file(self, recipe: str) -> Path:
        """Where a recipe of that name is written.

        Raises:
            UserError: another is there, which no plan made.
        """
        file = self.configs / f"{recipe}.yaml"
        if file.is_file() and _MADE_BY not in file.read_text(encoding="utf-8"):
            raise UserError(f"recipe: {file} is there, and no plan; give another name")
        return file


def plan(asked: Plan, planned: Planned) -> Path:
    """Tries precisions, batch sizes, numbers of worker processes and learning rates, each in a short run of its own, and writes
    a recipe of the run with what was found.

    Returns:
        The recipe's file.

    Raises:
        UserError: the run fails, or not even one image fits into memory.
    """
    run, file = planned.settings, planned.file(asked.recipe)
    from src.training.build import build_data
    from src.training.planning import choices, short_runs

    data = build_data(run.data, run.seed, run.model.uses_unlabeled, run.use_depth, run.model.strong_views, trust=OWN)
    samples = len(data.source("train"))
    with tempfile.TemporaryDirectory() as folder:
        attempt = short_runs(planned.arguments, Path(folder), asked.steps)
        found = list(choices(run, attempt, asked.gain, samples, asked.largest_batch, _log.info))
    for choice in found:
        print(f"{choice.key + ('' if choice.value is None else f'={choice.value}'):<34} {choice.why}")
        if choice.value is not None:
            _put(planned.keys, choice.key, choice.value)
    lines = [f"{_MADE_BY} {' '.join(planned.arguments)}".rstrip(), "# What was measured, on this machine:"]
    lines += [f"# {choice.key}{' stays' if choice.value is None else ''}: {choice.why}" for choice in found]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(recipe_text(lines, planned.defaults, planned.keys), encoding="utf-8")
    beside = "" if planned.configs.parent == CONFIG_DIR else f"--config-dir {planned.configs.parent} "
    print(f"written: {file}; train with it: python -m src.train {beside}experiment={asked.recipe}")
    return file


def recipe_of(overrides: Sequence[str]) -> tuple[list[object], dict[str, Any]]:
    """The defaults list and the keys of a recipe that says what these overrides do.

    Raises:
        UserError: one cannot stand in a recipe.
    """
    defaults: list[object] = []
    keys: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        name, said = override.key_or_group, str(override.input_line)
        if (
            override.is_sweep_override()
            or override.is_delete()
            or name.partition(".")[0].partition("/")[0] in _NOT_OF_A_RECIPE
        ):
            raise UserError(
                f"{said}: cannot stand in a recipe; plan without it, and give it to src.train beside experiment="
            )
        if name == "experiment":
            defaults.insert(0, str(override.value()))
        elif "." not in name and (CONFIG_DIR / name).is_dir() and isinstance(override.value(), str | QuotedString):
            defaults.append({f"{'' if override.is_add() else 'override '}/{name}": _plain(override.value())})
        else:
            _put(keys, name, _plain(override.value()))
    return defaults, keys


def _put(keys: dict[str, Any], name: str, value: object) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        keys = keys.setdefault(parent, {})
    keys[last] = value


def _plain(value: object) -> object:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def recipe_text(comments: Sequence[str], defaults: list[object], keys: dict[str, Any]) -> str:
    """A recipe as YAML, with comments in front."""
    parts: list[object] = [{"defaults": defaults}] if defaults else []
    written = (
        yaml.safe_dump(part, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        for part in [*parts, keys] if part
    )  # fmt: skip
    return "\n".join([_PACKAGE, *comments, *written])


def main(arguments: Sequence[str]) -> None:
    own = [argument for argument in arguments if argument.partition("=")[0] in (*_KEYS, *_OPTIONS)]
    of_run = [argument for argument in arguments if argument not in own]

    def read(config: Config) -> tuple[Plan, Planned]:
        asked, planned = Plan.of(config), Planned.of(of_run)
        planned.file(asked.recipe)
        return asked, planned

    def task(both: tuple[Plan, Planned], _: DictConfig) -> None:
        plan(*both)

    start("plan", task, read, request=Request.parse("plan", own))


if __name__ == "__main__":
    main(sys.argv[1:])
