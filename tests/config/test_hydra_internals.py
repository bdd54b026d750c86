"""Each private part of Hydra that the program leans on is there and does what we rely on, in the installed version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from omegaconf import OmegaConf

from src.config import hydra_internals
from src.which_src import CONFIG_DIR


def test_overrides_are_applied_to_a_config() -> None:
    config = OmegaConf.create({"a": {"b": 1, "c": 2}, "d": "${a.b}"})
    OmegaConf.set_struct(config, True)
    hydra_internals.apply_overrides(config, OverridesParser.create().parse_overrides(["a.b=7", "+a.e=x", "~a.c"]))
    assert OmegaConf.to_container(config) == {"a": {"b": 7, "e": "x"}, "d": "${a.b}"}


def test_sweeps_become_a_grid() -> None:
    parsed = OverridesParser.create().parse_overrides(["a=1,2", "b=x", "c=range(2)"])
    jobs = [["a=1", "b=x", "c=0"], ["a=1", "b=x", "c=1"], ["a=2", "b=x", "c=0"], ["a=2", "b=x", "c=1"]]
    assert hydra_internals.combinations(parsed) == jobs


def test_a_composed_config_is_run(tmp_path: Path) -> None:
    """As `hydra.main` would: a folder with the config in it, a log, the user's callbacks, and errors handed on."""
    seen: list[object] = []
    overrides = [
        f"hydra.run.dir={tmp_path}/run",
        "seed=7",
        "+hydra.callbacks.mine._target_=hydra.experimental.callback.Callback",
    ]
    with hydra.initialize_config_dir(str(CONFIG_DIR), "train", version_base="1.3"):
        composed = hydra.compose("train", overrides, return_hydra_config=True)
        hydra_internals.run_composed(
            composed, lambda config: seen.append((config.seed, HydraConfig.get().runtime.output_dir))
        )
        assert seen == [(7, f"{tmp_path}/run")]
        assert {file.name for file in (tmp_path / "run/.hydra").iterdir()} == {
            "config.yaml",
            "hydra.yaml",
            "overrides.yaml",
        }
        assert (tmp_path / "run/train.log").is_file()
        with pytest.raises(ZeroDivisionError):
            hydra_internals.run_composed(composed, lambda config: 1 // 0)


def test_a_command_line_is_given_as_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("sys.argv", ["x", "nonsense"])
    with pytest.raises(SystemExit) as end:
        hydra_internals.run_main(lambda config: seen.append(config.seed), ["--help"], CONFIG_DIR, "train")
    assert end.value.code == 0
    hydra_internals.run_main(
        lambda config: seen.append(config.seed), [f"hydra.run.dir={tmp_path}/run", "seed=8"], CONFIG_DIR, "train"
    )
    assert seen == [8]


@pytest.mark.parametrize("value", [[1, "a b", None, [True]], {"k": 1.5, "l": ["x"]}])
def test_values_are_written_and_read_back(value: Any) -> None:
    sweep = OverridesParser.create().parse_override(f"key={hydra_internals.written(value)},1").value()
    assert isinstance(sweep, ChoiceSweep)
    first, second = sweep.list
    assert not isinstance(first, QuotedString)
    assert hydra_internals.plain_value(first) == value and hydra_internals.plain_value(second) == 1
