"""The private parts of Hydra that this program leans on, all of them, each as one function.

A private name may change with any release. So none is used elsewhere (`tests/test_private_names.py`), and for each there is a
test in `tests/config/test_hydra_internals.py` that fails by name when a new version has changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig


def run_composed(config: DictConfig, job: Callable[[DictConfig], object]) -> None:
    """Runs a job as `hydra.main` does, with its folder, its log and the user's callbacks, but with a config that is composed.

    Hydra's public `main` composes by itself, so a config that was composed to be checked would be composed twice. To be called
    where Hydra is initialized. Test: `test_a_composed_config_is_run`.
    """
    callbacks = Callbacks(config)
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    callbacks.on_run_start(config=config, config_name=config.hydra.job.config_name)
    context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=callbacks)
    ended = run_job(job, config, "hydra.run.dir", None, context)
    callbacks.on_run_end(config=config, config_name=config.hydra.job.config_name, job_return=ended)
    _ = ended.return_value  # raises what the job raised


def run_main(job: Callable[[DictConfig], object], arguments: Sequence[str], config_dir: Path, config_name: str) -> None:
    """Does as `hydra.main` does with a command line: a sweep, --help, --cfg …

    The public one reads `sys.argv`, which is the user's line, in the user's own words. Test:
    `test_a_command_line_is_given_as_arguments`.
    """
    parser = get_args_parser()
    version.setbase("1.3")
    _run_hydra(parser.parse_args(list(arguments)), parser, job, str(config_dir), config_name)


def apply_overrides(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Changes a config in place as Hydra does when it composes one.

    Hydra's public `compose` starts from its own config files only, and a run folder's config must not be composed again. Test:
    `test_overrides_are_applied_to_a_config`.
    """
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), config)


def combinations(overrides: list[Override]) -> list[list[str]]:
    """Each combination of the values of sweeps, as the overrides of a job, in the order of Hydra's own sweeper.

    Hydra offers the grid only as a whole sweeper, which also starts the jobs. Test: `test_sweeps_become_a_grid`.
    """
    (batch,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [list(job) for job in batch]


def written(value: Any) -> str:
    """A list or mapping as it would be written on the command line.

    Hydra writes only whole overrides, key and all, in public. Test: `test_values_are_written_and_read_back`.
    """
    return Override._get_value_element_as_str(value)


def plain_value(item: Any) -> object:
    """A value out of a parsed sweep, as a config would hold it.

    Hydra converts whole values in public, and none that is listed in a sweep. Test: `test_values_are_written_and_read_back`.
    """
    return Override._convert_value(item)
