"""Which jobs a sweep has: a grid of values, or the same over seeds."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from pydantic import PositiveInt

from src.cli.command import plain
from src.cli.job_overrides import as_given
from src.config.check import check_keys
from src.config.hydra_internals import combinations
from src.config.schema import RESERVED
from src.errors import UserError
from src.sweep.launcher import NAMESPACE, ProcessLauncher


class GridSweeper(Sweeper):
    """Every combination of the values given: `network=unet,fpn seed=range(3)`.

    Args:
        params: more of them, by key, as they would be written on the command line.
    """

    __module__ = NAMESPACE
    keys: Mapping[str, object] = {"params": dict[str, object] | None}

    def __init__(self, params: Mapping[str, object] | None = None) -> None:
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        given = {k: v for k, v in plain(config.hydra.sweeper).items() if k not in RESERVED}
        check_keys(given, self.keys, "sweep")
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if not isinstance(launcher, ProcessLauncher):
            raise UserError(
                "hydra/launcher: this sweep needs process, joblib or submitit; with others take hydra/sweeper=basic"
            )
        self.launcher: ProcessLauncher = launcher

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Runs all jobs; ends with status 1 if one failed."""
        results = list(self.launcher.launch(combinations(self.parsed(self.written(arguments))), initial_job_idx=0))
        self.finished()
        exit_unless_good(self.launcher)
        return results

    def written(self, arguments: list[str]) -> list[str]:
        """All overrides and sweeps of the jobs as on a command line; later ones replace earlier ones."""
        return [*(f"{key}={value}" for key, value in self.params.items()), *arguments]

    def finished(self) -> None:
        """What is made of the jobs once all have ended."""

    def parsed(self, arguments: list[str]) -> list[Override]:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return parser.parse_overrides([as_given(argument) for argument in arguments])


class SeedsSweeper(GridSweeper):
    """The same over n seeds, counted up from `seed`; with values of other keys, each combination over all seeds."""

    __module__ = NAMESPACE
    keys: Mapping[str, object] = {"params": dict[str, object] | None, "n": PositiveInt}

    def __init__(self, n: int = 5, params: Mapping[str, object] | None = None) -> None:
        super().__init__(params)
        self.n = n

    def written(self, arguments: list[str]) -> list[str]:
        others = [o for o in self.parsed(super().written(arguments)) if o.get_key_element() == "seed"]
        if any(override.is_sweep_override() for override in others):
            raise UserError("seed: sweep=seeds counts it up from one seed; take sweep.n, or leave sweep=seeds out")
        first = int(others[-1].value()) if others else int(self.config.seed)  # type: ignore[arg-type, union-attr]
        seeds = ",".join(str(seed) for seed in range(first, first + self.n))
        return [o for o in super().written(arguments) if not o.startswith("seed=")] + [f"seed={seeds}"]


def exit_unless_good(launcher: ProcessLauncher) -> None:
    """Says what the sweep came to, and ends the program if that is not good."""
    status = launcher.close()
    if status:
        sys.exit(status)
