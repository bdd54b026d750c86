"""What Hydra composes becomes one typed object: it holds what the config says, and its fields are the schema."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import get_args

import pytest

from src.cli.command import compose
from src.config.check import check, checked
from src.config.parts import Data, Model, Optimizer, Part, Trainer, types_of
from src.config.schema import GROUPS, OURS, TYPES
from src.config.settings import ModelSettings, Settings, Trained
from src.errors import UserError
from tests.conftest import ROOT

# Look-ups of a composed config by a string, where a typed part should be taken.
LOOKUP = re.compile(r"\b(config|settings|composed|asked)(\.get\(|\[)[\"']")
MOST = 20


def test_settings_hold_what_the_config_says() -> None:
    composed = compose("train", ["model=gan", "init_from=x", "test=false"])
    settings = Settings.of(composed)
    assert settings.plain == composed
    assert (settings.seed, settings.test, settings.init_from) == (42, False, "x")
    assert settings.optimizer.lr == composed["optimizer"]["lr"] and settings.optimizer.node == composed["optimizer"]
    assert settings.data.dataset.name == "Shapes" and settings.data.batch_size == composed["data"]["batch_size"]
    assert settings.model.has_adversary and settings.discriminator is not None
    assert settings.model.noise is not None and settings.model.noise.channels == composed["model"]["noise"]["channels"]
    assert settings.tasks is None and not settings.use_depth
    assert settings.callbacks.keys() == composed["callbacks"].keys()


def test_tasks_are_those_that_have_a_weight() -> None:
    settings = Settings.of(compose("train", ["tasks=depth_boundary", "tasks.boundary=0"]))
    assert settings.tasks is not None and settings.tasks.learnt == ["depth"] and settings.use_depth


def test_what_is_checked_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = checked(compose("train", []))
    monkeypatch.setattr("src.config.check.check", lambda config: pytest.fail("checked twice"))
    assert checked(settings) is settings


def test_a_mistake_in_a_config_is_no_settings() -> None:
    with pytest.raises(UserError, match=r"optimizer\.lr: should be greater than 0"):
        checked(compose("train", ["optimizer.lr=0"]))


@pytest.mark.parametrize(
    ("trainer", "processes"),
    [
        ({"devices": 2, "num_nodes": 3}, 6),
        ({"devices": [0, 4]}, 2),
        ({"devices": -1}, None),
        ({"devices": "auto"}, None),
        ({}, 1),
    ],
)
def test_how_many_processes_a_run_has(trainer: dict[str, object], processes: int | None) -> None:
    assert Trainer.of(trainer).processes == processes


def test_weights_of_a_checkpoint_are_looked_for_nowhere_else() -> None:
    settings = Settings.of(compose("train", ["network=unet", "network.encoder_weights=imagenet"]))
    without = settings.without_weights()
    assert without.network.node["encoder_weights"] is None and settings.network.node["encoder_weights"] == "imagenet"
    assert without.network.name == settings.network.name


@pytest.mark.parametrize(
    "config", [{}, {"data": None}, {"data": {"dataset": None}}, {"seed": "x"}, {"trainer": [1], "tasks": "x"}]
)
def test_a_strangers_config_may_say_little(config: dict[str, object]) -> None:
    trained = Trained.of(config)
    assert trained.seed == 0 and trained.dataset.node == {} and trained.plain == config
    assert trained.trainer.accelerator == "auto" and not trained.tasks.use_depth


def test_every_key_of_our_configs_fits_its_field() -> None:
    """The dataclasses are the schema, so a field without a key in conf/ would be an option that nobody finds."""
    for group, cls in (("optimizer", Optimizer), ("trainer", Trainer), ("model", Model), ("data", Data)):
        options = (ROOT / "conf" / group).glob("*.yaml")
        composed = [compose("train", [f"{group}={file.stem}"])[group] for file in options]
        known = set().union(*(node.keys() for node in composed))
        assert {field.name for field in dataclasses.fields(cls) if field.name not in ("node", "plain")} <= known | {
            *OURS.get(group, {}), *TYPES.get(group, {}),
        }  # fmt: skip
    groups = {name for name in types_of(Settings) if name in GROUPS}
    assert groups == set(GROUPS)


def test_a_part_knows_its_name() -> None:
    part = Part.of({"_target_": "a.b.C", "x": 1, "y": 2})
    assert (part.target, part.name, part.keys_but("_target_", "y")) == ("a.b.C", "C", {"x": 1})
    assert Part().name == ""


def test_a_model_that_predicts_has_no_loss() -> None:
    composed = compose("train", [])
    settings = ModelSettings.of({"model": composed["model"], "network": composed["network"]})
    assert settings.loss is None and settings.metrics == {} and settings.monitor_mode is None


def test_settings_are_looked_up_by_attribute() -> None:
    """Outside `config/` code takes typed parts; what reads a stranger's or another run's raw config is all that is left."""
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sorted((ROOT / "src").rglob("*.py"))
        if file.parent.name != "config"
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if LOOKUP.search(line)
    ]
    assert len(found) < MOST, "\n".join(found)


def test_precisions_are_one_list() -> None:
    check(compose("train", ["trainer=cpu", "trainer.precision=64-true"]))
    assert {"32-true", "bf16-mixed", 64} <= set(get_args(types_of(Trainer)["precision"]))
    assert Settings.of(compose("train", ["paths.output_dir=/x"])).run_dir == Path("/x")
