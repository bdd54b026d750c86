"""`python -m src.plan`: the recipe that it writes is one that trains."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from src.cli.command import CONFIG_DIR, compose
from src.cli.recipe import recipe_of, recipe_text
from src.errors import UserError
from src.plan import Plan, Planned

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("network=tiny", "trainer=cpu", "data.crop=[32,32]", "data.dataset.train_length=24")


def of(**keys: object) -> Plan:
    return Plan.of({"recipe": "planned", "steps": 8, "gain": 0.05, "largest_batch": None, **keys})


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["network=tiny", "optimizer.lr=0.01", "data.crop=[32,48]", "seed=7"],
        ["experiment=shapes_gan", "model.semi.method=fixmatch", "data.labeled_fraction=1/8"],
        ["loss=dice", "data.dataset.train_length=24", "+optimizer.fused=true", "trainer.gradient_clip_val=null"],
        ["callbacks=[default,swa]", "callbacks.swa.start=2", "trainer=cpu"],
        ["tasks=depth", "metrics=topology", "data.augment.gamma_range=[0.5,2.0]"],
    ],
)
def test_a_recipe_says_what_the_line_says(tmp_path: Path, overrides: list[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(recipe_text(["# a comment\nof: lines"], *recipe_of(overrides)))
    assert compose("train", ["--config-dir", str(tmp_path), "experiment=mine"]) == compose("train", overrides)


def test_another_recipe_is_not_written_over() -> None:
    with pytest.raises(UserError, match="is there, and no plan"):
        Planned.of([]).file("camvid_cnn")
    assert Planned.of([]).file("planned") == CONFIG_DIR / "experiment/planned.yaml"


@pytest.mark.parametrize("override", ["debug=fast", "~tasks", "optimizer.lr=1,2", "hydra.run.dir=x", "logger=csv"])
def test_what_cannot_stand_in_a_recipe_is_refused(override: str) -> None:
    with pytest.raises(UserError, match="cannot stand in a recipe"):
        recipe_of([override])


@pytest.mark.parametrize("arguments", [["-m", "seed=1,2"], ["resume=logs"], ["like=logs"], ["trust=torch"]])
def test_only_a_run_that_begins_is_planned(arguments: list[str]) -> None:
    with pytest.raises(UserError, match="plans one run that begins"):
        Planned.of(arguments)


def test_a_wrong_key_of_the_run_is_told_as_train_tells_it(run: Run) -> None:
    for wrong in ("optimizer.lrr=1", "optimizer.lr=-1", "network=unett"):
        told = [run(f"src.{command}", *SMALL[1:], wrong) for command in ("train", "plan")]
        assert [one.returncode for one in told] == [2, 2]
        assert told[0].stderr.split("error: ")[-1] == told[1].stderr.split("error: ")[-1]


@pytest.mark.parametrize("keys", [{"recipe": "../x"}, {"steps": 1}, {"gain": 2.0}, {"largest_batch": 0}])
def test_a_bad_key_of_the_plan_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(keys))):
        of(**keys)


@pytest.mark.slow
def test_a_plan_is_made_and_its_recipe_trains(run: Run, tmp_path: Path) -> None:
    own = ("--config-dir", str(tmp_path / "conf"))
    (tmp_path / "conf").mkdir()
    made = run("src.plan", *own, *SMALL, "recipe=mine", "steps=4", "largest_batch=16", "data.batch_size=8", timeout=900)
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "conf/experiment/mine.yaml").read_text()
    for key in ("trainer.precision", "data.batch_size", "data.num_workers", "optimizer.lr"):
        assert f"# {key}" in text and key in made.stdout
    assert f"python -m src.train --config-dir {tmp_path / 'conf'} experiment=mine" in made.stdout
    trained = run("src.train", *own, "experiment=mine", "debug=fast")
    assert trained.returncode == 0, trained.stderr
    again = run("src.plan", *own, *SMALL, "recipe=mine", "steps=2", "largest_batch=8", timeout=900)
    assert again.returncode == 0, "its own recipe is written anew"
