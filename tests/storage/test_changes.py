"""A run may be trained longer, at another rate, in other batches: what can change on the way does, the rest is refused."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from src import train as command
from src.cli.user_errors import USER_ERROR_STATUS
from src.config.changes import MAY, PLACE, Said, changed, check_place, may_change, refusal
from src.errors import Interrupted, UserError
from src.storage import run_folder
from src.train import train
from tests.conftest import ROOT, settings
from tests.same import assert_same, curves, state

SHORT = ["test=false", "trainer.log_every_n_steps=1", "model.ema_decay=0.9"]  # of 6 batches an epoch


def trained(run_dir: Path, *overrides: str, resume: bool = False) -> dict[str, Any]:
    """The last checkpoint of a run that was started, or gone on with, by the same words but for those that changed."""
    train(settings(run_dir, *SHORT, *overrides), resume=resume)
    return state(run_dir)


def curve(run_dir: Path, tag: str) -> list[float]:
    """By step; event files of one process are not read in the order in which they were written."""
    return [value for _, value in sorted(curves(run_dir)[tag])]


def rates(run_dir: Path) -> list[float]:
    """After each step."""
    return curve(run_dir, "learning_rate/head")


def test_a_run_that_is_trained_longer_is_the_longer_run(tmp_path: Path) -> None:
    """Where the rate does not depend on the length, to the bit: weights, optimizer, average, best score, curves."""
    longer = trained(tmp_path / "long", "scheduler=constant", "trainer.max_epochs=2")
    trained(tmp_path / "short", "scheduler=constant", "trainer.max_epochs=1")
    last = trained(tmp_path / "short", "scheduler=constant", "trainer.max_epochs=2", resume=True)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        assert_same(last[key], longer[key], key)
    ours, theirs = (run_folder.read_metrics(tmp_path / name) for name in ("short", "long"))
    assert ours is not None and theirs is not None
    assert_same(ours, theirs)
    for tag in ("train/loss", "val/loss", "val/miou", "learning_rate/head", "train/gradient_norm"):
        assert curve(tmp_path / "short", tag) == curve(tmp_path / "long", tag), tag


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["poly", "cosine", "onecycle"])
def test_its_rate_is_that_of_a_run_planned_so(tmp_path: Path, scheduler: str) -> None:
    options = [f"scheduler={scheduler}", "scheduler.warmup_fraction=0.25", "network.width=4"]
    longer = trained(tmp_path / "long", *options, "trainer.max_epochs=3")
    trained(tmp_path / "short", *options, "trainer.max_epochs=1")
    last = trained(tmp_path / "short", *options, "trainer.max_epochs=3", resume=True)
    assert last["lr_schedulers"] == longer["lr_schedulers"]
    ours, theirs = rates(tmp_path / "short"), rates(tmp_path / "long")
    assert ours[6:] == theirs[6:] and ours[:6] != theirs[:6]


def test_more_steps_than_those_that_cut_an_epoch_short(tmp_path: Path) -> None:
    options = ["scheduler=constant", "trainer.max_epochs=null"]
    longer = trained(tmp_path / "long", *options, "trainer.max_steps=10")
    trained(tmp_path / "short", *options, "trainer.max_steps=4")
    last = trained(tmp_path / "short", *options, "trainer.max_steps=10", resume=True)
    assert last["global_step"] == 10
    for key in ("state_dict", "optimizer_states", "epoch"):
        assert_same(last[key], longer[key], key)


def test_another_rate_and_decay(tmp_path: Path) -> None:
    trained(tmp_path, "scheduler=poly", "trainer.max_epochs=2", "optimizer=sgd", "trainer.max_steps=6")
    new = ["optimizer.lr=0.002", "optimizer.weight_decay=0.5", "optimizer.momentum=0.3"]
    last = trained(tmp_path, "scheduler=poly", "trainer.max_epochs=2", "optimizer=sgd", *new, resume=True)
    (group,) = last["optimizer_states"][0]["param_groups"]
    assert (group["initial_lr"], group["weight_decay"], group["momentum"]) == (0.002, 0.5, 0.3)
    expected = [0.002 * (1 - step / 12) ** 0.9 for step in range(7, 13)]
    assert rates(tmp_path)[6:] == pytest.approx(expected, abs=1e-9)
    again = trained(
        tmp_path, "scheduler=poly", "trainer.max_epochs=3", "optimizer=sgd", *new, resume=True
    )  # a further one goes on from there
    assert again["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.5


def test_batches_of_another_size_from_an_epochs_end(tmp_path: Path) -> None:
    """The rate goes by epochs then: halfway through them it is halfway down."""
    options = ["scheduler=poly", "scheduler.power=1"]
    trained(tmp_path, *options, "trainer.max_epochs=1")
    last = trained(tmp_path, *options, "trainer.max_epochs=2", "data.batch_size=8", resume=True)
    assert last["global_step"] == 6 + 3
    assert last["lr_schedulers"][0]["last_epoch"] == 2 * 3
    assert rates(tmp_path)[6:] == pytest.approx([0.01 * left for left in (1 / 3, 1 / 6, 0)], abs=1e-9)


def test_a_run_that_a_callback_ended_goes_on_when_told_to(tmp_path: Path) -> None:
    stop = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/miou, mode: max, %s}"
    first = trained(tmp_path, stop % "stopping_threshold: 0.0", "trainer.max_epochs=3")
    assert first["global_step"] == 6
    asked = settings(tmp_path, *SHORT, stop % "patience: 9", "trainer.max_epochs=3")
    train(asked, resume=True)
    assert state(tmp_path)["global_step"] == 6  # as an undisturbed run would have been
    train(asked, resume=True, said=Said(longer=True))
    assert state(tmp_path)["global_step"] == 18


# ---------------------------------------------------------------- as it is asked for, and written down


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an epoch, as a command leaves it."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    given = settings(run_dir, "trainer.max_epochs=1", "test=false", "~logger")
    (run_dir / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(given), run_dir / run_folder.CONFIG)
    train(given)
    return run_dir


def copied(run_dir: Path, to: Path) -> Path:
    shutil.copytree(run_dir, to)
    text = (to / run_folder.CONFIG).read_text().replace(str(run_dir), str(to))
    (to / run_folder.CONFIG).write_text(text)
    return to


def resume(monkeypatch: pytest.MonkeyPatch, run_dir: Path, *overrides: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train", f"resume={run_dir}", *overrides])
    command.main()


def test_it_is_written_down_and_holds_from_there_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = copied(finished, tmp_path / "run")
    resume(monkeypatch, run_dir, "trainer.max_epochs=2", "optimizer.lr=0.004", "callbacks.adversary=null")
    config = OmegaConf.load(run_dir / run_folder.CONFIG)
    assert (config.trainer.max_epochs, config.optimizer.lr, config.callbacks.adversary) == (2, 0.004, None)
    written = yaml.safe_load((run_dir / run_folder.CHANGES).read_text())
    assert {(c["key"], c["epoch"], c["step"]) for c in written} >= {
        ("optimizer.lr", 1, 6),
        ("trainer.max_epochs", 1, 6),
    }
    assert {"epoch": 1, "step": 6, "key": "trainer.max_epochs", "before": 1, "now": 2} in written
    resume(monkeypatch, run_dir, "trainer.max_epochs=3")
    last = state(run_dir)
    assert last["global_step"] == 18
    assert {group["initial_lr"] for group in last["optimizer_states"][0]["param_groups"]} == {0.004}
    assert yaml.safe_load((run_dir / run_folder.CHANGES).read_text())[: len(written)] == written
    assert last["segmenter"]["config"]["trainer"]["max_epochs"] == 3


def test_one_that_was_lost_with_its_first_epoch_holds_all_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config says so, the checkpoint does not yet."""
    run_dir = copied(finished, tmp_path / "run")
    config = OmegaConf.load(run_dir / run_folder.CONFIG)
    config.trainer.max_epochs, config.optimizer.lr = 2, 0.004
    OmegaConf.save(config, run_dir / run_folder.CONFIG)
    (run_dir / run_folder.METRICS).unlink()  # killed
    resume(monkeypatch, run_dir)
    assert state(run_dir)["optimizer_states"][0]["param_groups"][0]["initial_lr"] == 0.004
    assert {c["key"] for c in yaml.safe_load((run_dir / run_folder.CHANGES).read_text())} == {
        "optimizer.lr", "trainer.max_epochs",
    }  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run_dir: Path, *overrides: str) -> str:
    before = {f: f.read_bytes() for f in run_dir.rglob("*") if f.is_file()}
    with pytest.raises(SystemExit) as end:
        resume(monkeypatch, run_dir, *overrides)
    assert end.value.code == USER_ERROR_STATUS
    assert {f: f.read_bytes() for f in run_dir.rglob("*") if f.is_file() and f.name != ".lock"} == {
        f: content for f, content in before.items() if f.name != ".lock"
    }
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said.strip().splitlines()) <= 2, said
    return said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("network.width=8", ["it would be another model", "init_from="]),
        ("optimizer=sgd", ["the state of the one that was fits no other", "optimizer.lr, optimizer.weight_decay"]),
        ("optimizer.decay_norm_and_bias=true", ["the state of the one that was fits no other"]),
        ("scheduler=cosine", ["fits no other", "scheduler.*"]),
        ("seed=1", ["the data, or their order, would be others", "like="]),
        ("data.dataset.train_length=8", ["the data, or their order", "like=", "data.batch_size"]),
        ("monitor=val/dice", ["the best score so far would be another's"]),
        ("callbacks.checkpoint.mode=min", ["the best score so far"]),
        ("callbacks.checkpoint=null", ["a run stays in its folder"]),
        ("loss=dice", ["its losses so far would not compare"]),
        ("trainer.limit_train_batches=2", ["the data, or their order"]),
        ("trainer.max_epochs=x", ["trainer.max_epochs: should be"]),
        ("optimizer.lr=-1", ["optimizer.lr: should be"]),
        ("optimizer.lrr=1", ["optimizer.lrr: a resumed run keeps"]),
        ("trainer.precision=64-true", ["trainer.precision: 32-true cannot become 64-true on the way"]),
        ("model.ema_decay=0.9", ["an average cannot come or go on the way"]),
        ("callbacks.speed.sample=3", ["callbacks.speed.sample: no such key"]),
    ],
)
def test_what_cannot_change_is_refused_with_the_way_to_it(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], override: str, words: list[str]
) -> None:
    longer = [] if override.startswith("trainer.max") else ["trainer.max_epochs=2"]
    said = refused(capsys, monkeypatch, finished, override, *longer)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("values", "place", "said"),
    [
        ({"data.batch_size": (4, 8)}, (2, 3, 15), "the run stands 3 batches into epoch 3"),
        ({"trainer.accumulate_grad_batches": (1, 2)}, (0, 1, 1), "can change at an epoch's end only"),
        ({"data.batch_size": (4, 8)}, (2, 0, 12), None),
        ({"trainer.max_epochs": (9, 2)}, (2, 3, 15), "trainer.max_epochs: is to be 2, and the run is at 3 epochs"),
        ({"trainer.max_epochs": (9, 2)}, (2, 0, 12), None),
        ({"trainer.max_epochs": (9, None)}, (2, 3, 15), None),
        ({"trainer.max_steps": (-1, 14)}, (2, 3, 15), "trainer.max_steps: is to be 14, and the run is at 15 steps"),
        ({"trainer.max_steps": (20, -1)}, (2, 3, 15), None),
    ],
)
def test_where_the_run_stands_counts(
    values: dict[str, tuple[Any, Any]], place: tuple[int, int, int], said: str | None
) -> None:
    if said is None:
        check_place(values, *place)
    else:
        with pytest.raises(UserError) as caught:
            check_place(values, *place)
        assert said in str(caught.value)


def test_every_key_of_the_table_is_one_and_is_told() -> None:
    """Each is in the composed config or known to its check, and in the documentation's table."""
    text = (ROOT / "docs/faults.md").read_text()
    for key in [*PLACE, *(key.replace("[!_]*", "*") for may in MAY for key in may.keys)]:
        assert f"`{key}`" in text, key
    for rule in MAY:
        assert rule.how in text
        for key in rule.keys:
            assert may_change(key.replace("[!_]*", "x").replace("*", "x.y"))


def test_unchanged_is_unchanged(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert changed(config, copy.deepcopy(config)) == {}
    other = settings(tmp_path / "elsewhere", "data.num_workers=3", "trainer.devices=2", "data.batch_size=8")
    assert changed(config, other) == {"data.batch_size": (4, 8)}  # neither the place nor the folder
    assert "callbacks" in str(refusal("callbacks.checkpoint.run_dir", tmp_path))


def test_a_refused_change_leaves_the_record_of_an_interrupted_run(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.callbacks.checkpoint.RunCheckpoint.on_validation_end", _interrupts)
        outcome = train(settings(tmp_path, *SHORT, "callbacks.checkpoint.every_n_steps=1", "trainer.max_epochs=2"))
    assert outcome.status == "interrupted"
    before = (tmp_path / run_folder.METRICS).read_bytes()
    with pytest.raises(UserError, match="can change at an epoch's end only"):
        train(settings(tmp_path, *SHORT, "trainer.max_epochs=2", "data.batch_size=8"), resume=True)
    assert (tmp_path / run_folder.METRICS).read_bytes() == before


def _interrupts(*_: Any) -> None:
    raise Interrupted("SIGTERM")
