"""Each private part of Hydra that the program leans on is there and does what we rely on, in the installed version."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from omegaconf import OmegaConf

from src.config import hydra_internals


def test_overrides_are_applied_to_a_config() -> None:
    config = OmegaConf.create({"a": {"b": 1, "c": 2}, "d": "${a.b}"})
    OmegaConf.set_struct(config, True)
    hydra_internals.apply_overrides(config, OverridesParser.create().parse_overrides(["a.b=7", "+a.e=x", "~a.c"]))
    assert OmegaConf.to_container(config) == {"a": {"b": 7, "e": "x"}, "d": "${a.b}"}


def test_sweeps_become_a_grid() -> None:
    parsed = OverridesParser.create().parse_overrides(["a=1,2", "b=x", "c=range(2)"])
    jobs = [["a=1", "b=x", "c=0"], ["a=1", "b=x", "c=1"], ["a=2", "b=x", "c=0"], ["a=2", "b=x", "c=1"]]
    assert hydra_internals.combinations(parsed) == jobs


@pytest.mark.parametrize("value", [[1, "a b", None, [True]], {"k": 1.5, "l": ["x"]}])
def test_values_are_written_and_read_back(value: Any) -> None:
    sweep = OverridesParser.create().parse_override(f"key={hydra_internals.written(value)},1").value()
    assert isinstance(sweep, ChoiceSweep)
    first, second = sweep.list
    assert not isinstance(first, QuotedString)
    assert hydra_internals.plain_value(first) == value and hydra_internals.plain_value(second) == 1
