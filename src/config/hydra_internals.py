"""The private parts of Hydra that this program leans on, all of them, each as one function.

A private name may change with any release. So none is used elsewhere (`tests/test_private_names.py`), and for each there is a
test in `tests/config/test_hydra_internals.py` that fails by name when a new version has changed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig


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


def plain_value(item: Any) -> Any:
    """A value out of a parsed sweep, as a config would hold it.

    Hydra converts whole values in public, and none that is listed in a sweep. Test: `test_values_are_written_and_read_back`.
    """
    return Override._convert_value(item)
