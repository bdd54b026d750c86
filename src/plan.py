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

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import CONFIG_DIR, compose, in_words, start
from src.cli.recipe import put, recipe_of, recipe_text
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
_NAME = re.compile(r"[a-z][a-z0-9_]*")


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
        overrides, options: of `python -m src.train`, and of Hydra.
        settings: what they come to.
        configs: the folder of recipes: of the user's own, if `--config-dir` names one.
        defaults, keys: a recipe that says the same.
    """

    overrides: list[str]
    options: list[str]
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
        return cls(request.overrides, request.options, checked(config), configs, defaults, keys)

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
        attempt = short_runs(planned.overrides, planned.options, Path(folder), asked.steps)
        found = list(choices(run, attempt, asked.gain, samples, asked.largest_batch, _log.info))
    for choice in found:
        print(f"{choice.key + ('' if choice.value is None else f'={choice.value}'):<34} {choice.why}")
        if choice.value is not None:
            put(planned.keys, choice.key, choice.value)
    lines = [f"{_MADE_BY} {' '.join(planned.overrides)}".rstrip(), "# What was measured, on this machine:"]
    lines += [f"# {choice.key}{' stays' if choice.value is None else ''}: {choice.why}" for choice in found]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(recipe_text(lines, planned.defaults, planned.keys), encoding="utf-8")
    beside = "" if planned.configs.parent == CONFIG_DIR else f"--config-dir {planned.configs.parent} "
    print(f"written: {file}; train with it: python -m src.train {beside}experiment={asked.recipe}")
    return file


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
