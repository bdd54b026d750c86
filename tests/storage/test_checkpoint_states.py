"""A checkpoint that is whole, and holds what the run would not have written, is refused before anything is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from src.errors import UserError
from src.storage import run_folder
from src.storage.checkpoint_states import misfit
from src.train import train
from tests.conftest import settings

OPTIONS = ["~logger", "test=false", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "optimizer=adamw"]
OPTIONS += ["+callbacks.early={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/miou, mode: max}"]
LONGER = [*OPTIONS, "trainer.max_epochs=3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("restored") / "run"
    train(settings(run_dir, *OPTIONS))
    return run_dir


def state_of(content: dict[str, Any], name: str) -> dict[str, Any]:
    (state,) = [state for key, state in content["callbacks"].items() if name in key]
    return state  # type: ignore[no-any-return]


def group(content: dict[str, Any]) -> dict[str, Any]:
    return content["optimizer_states"][0]["param_groups"][0]  # type: ignore[no-any-return]


def moments(content: dict[str, Any]) -> dict[str, Any]:
    return content["optimizer_states"][0]["state"][0]  # type: ignore[no-any-return]


def of_batches(content: dict[str, Any]) -> dict[str, Any]:
    return content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]  # type: ignore[no-any-return]


def put(of: Callable[[dict[str, Any]], dict[str, Any]], key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: of(content).update({key: value})


def without(of: Callable[[dict[str, Any]], dict[str, Any]], key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: of(content).pop(key)


def weights(content: dict[str, Any]) -> dict[str, Any]:
    return content["state_dict"]  # type: ignore[no-any-return]


def checkpoint(content: dict[str, Any]) -> dict[str, Any]:
    return state_of(content, "RunCheckpoint")


def schedule(content: dict[str, Any]) -> dict[str, Any]:
    return content["lr_schedulers"][0]  # type: ignore[no-any-return]


CASES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a weight less": (lambda c: weights(c).pop(next(iter(weights(c)))), "Missing key"),
    "a weight more": (put(weights, "network.more", torch.zeros(1)), "Unexpected key"),
    "a weight of another shape": (
        lambda c: weights(c).update({next(iter(weights(c))): torch.zeros(7, 7)}), "size mismatch",
    ),
    "no batch size": (put(lambda c: c["segmenter"]["config"], "data", {"batch_size": None}), "data.batch_size of its config"),
    "no data": (put(lambda c: c["segmenter"]["config"], "data", "none"), "data.batch_size of its config is None"),
    "steps of no batches": (
        lambda c: c["segmenter"]["config"]["trainer"].update(accumulate_grad_batches=0), "accumulate_grad_batches of its",
    ),
    "time as text": (put(checkpoint, "seconds", "long"), "RunCheckpoint.seconds is 'long', not 0"),
    "a stop as text": (put(checkpoint, "stopped", "no"), "RunCheckpoint.stopped"),
    "a score of lists": (put(checkpoint, "best_score", [[1]]), "RunCheckpoint.best_score is a list"),
    "scores of lists": (put(checkpoint, "best_results", {"miou": [1]}), "RunCheckpoint.best_results holds a list"),
    "no scores": (without(checkpoint, "best_results"), "KeyError"),
    "patience as text": (
        lambda c: state_of(c, "EarlyStopping").update(patience="none"), "EarlyStopping.patience is 'none', not 3",
    ),
    "a best of another shape": (
        lambda c: state_of(c, "EarlyStopping").update(best_score=torch.zeros(5)), "EarlyStopping.best_score is a tensor [5]",
    ),
    "a rate as text": (put(group, "lr", "fast"), "group 0.lr is 'fast', not"),
    "a rate that is none": (put(group, "lr", float("nan")), "has a number that is none"),
    "no rate": (without(group, "lr"), "has no lr"),
    "betas for one": (put(group, "betas", [0.9, "x"]), "group 0.betas.1 is 'x'"),
    "other parameters": (put(group, "params", [0]), "has other parameters"),
    "a moment of another shape": (put(moments, "exp_avg", torch.zeros(3, 3)), "exp_avg of parameter 0 is a tensor [3, 3]"),
    "a moment as text": (put(moments, "exp_avg_sq", "x"), "exp_avg_sq of parameter 0 is 'x'"),
    "a moment less": (without(moments, "exp_avg"), "keeps other values of one parameter"),
    "no optimizer": (put(lambda c: c, "optimizer_states", []), "has not the run's 1 optimizers"),
    "optimizers without groups": (put(lambda c: c, "optimizer_states", [{}]), "has other groups"),
    "no schedule": (put(lambda c: c, "lr_schedulers", []), "has not the run's 1 schedules"),
    "a schedule's step as text": (put(schedule, "last_epoch", "two"), "schedule.last_epoch is 'two', not 0"),
    "a schedule's method": (put(schedule, "step", "now"), "its schedule has step"),
    "no loops": (lambda c: c.pop("loops"), "does not say where training stood"),
    "loops of nothing": (put(lambda c: c, "loops", {"fit_loop": {}}), "does not say where training stood"),
    "batches as text": (put(of_batches, "processed", "four"), "does not say where training stood"),
    "negative batches": (put(of_batches, "ready", -4), "fit_loop.epoch_loop.batch_progress.total.ready is negative"),
    "batches without end": (put(of_batches, "ready", 2**70), "fit_loop.epoch_loop.batch_progress.total.ready is a int"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit(trained: Path, tmp_path: Path, case: str) -> None:
    change, said = CASES[case]
    run_dir = shutil.copytree(trained, tmp_path / "run")
    content = torch.load(run_dir / run_folder.LAST, weights_only=True)
    change(content)
    torch.save(content, run_dir / run_folder.LAST)
    with pytest.raises(UserError) as caught:
        train(settings(run_dir, *LONGER), resume=True)
    words = str(caught.value)
    assert words.startswith(f"resume: {run_dir / run_folder.LAST} holds what does not fit this run (")
    assert said in words
    assert "\n" not in words
    if case != "a weight less":
        return
    (run_dir / run_folder.LAST).unlink()  # as it says
    assert train(settings(run_dir, *LONGER), resume=True).metrics["epochs"] == 3


DAMAGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an epoch as text": (put(lambda c: c, "epoch", "two"), "epoch: "),
    "data of no place": (put(lambda c: c, "SegmentationDataModule", {"epoch": 1}), "SegmentationDataModule.consumed: "),
    "norms of lists": (put(lambda c: c["segmenter"], "gradient_norms", [[]]), "segmenter.gradient_norms.0: "),
    "no config": (without(lambda c: c["segmenter"], "config"), "segmenter.config: "),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_checkpoint_gives_way_to_the_one_before(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    change, said = DAMAGED[case]
    run_dir = shutil.copytree(trained, tmp_path / "run")
    content = torch.load(run_dir / run_folder.LAST, weights_only=True)
    change(content)
    torch.save(content, run_dir / run_folder.LAST)
    assert train(settings(run_dir, *LONGER), resume=True).metrics["epochs"] == 3
    assert f"{run_folder.LAST} is not a checkpoint of this program ({said}" in caplog.text


@pytest.mark.parametrize(
    ("own", "read", "fits"),
    [
        (1, 2, True), (1, True, False), (True, 1, False), (1, 2.0, False), (1.0, 2, True), (None, 0.5, True), (None, [], False),
        ("a", "b", True), ("a", 1, False), ({}, {"a": 1.0}, True), ({}, {"a": {}}, False), ([], [1, "x"], True),
        ([], [[]], False), ([1], [2, 3], True), ([1], ["x", "y"], False), ({"a": 1}, {"a": 2, "b": "new"}, True),
        ({"a": {"b": 1}}, {"a": 1}, False),
        (torch.zeros(2), torch.ones(2), True), (torch.zeros(2), torch.ones(3), False), (torch.zeros(2), [0, 0], False),
        (0.0, torch.zeros(()), False), ((0.9, 0.99), [0.9, 0.98], True), ({"a": 1}, [1], False),
    ],
)  # fmt: skip
def test_kinds(own: Any, read: Any, fits: bool) -> None:
    assert (misfit(own, read, "x") is None) == fits


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {}) for name in ("Adafactor", "Adadelta", "Adagrad", "Adam", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop")],
        ("Rprop", {}), ("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adam", {"amsgrad": True}), ("LBFGS", {}),
    ],
)  # fmt: skip
def test_what_torchs_optimizers_keep_fits_them(name: str, options: dict[str, Any]) -> None:
    from src.storage.checkpoint_states import _of_optimizer

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 1))
    optimizer = getattr(torch.optim, name)(network.parameters(), **options)
    for _ in range(2):
        network(torch.ones(1, 3, 8, 8)).square().mean().backward()
        optimizer.step(lambda: network(torch.ones(1, 3, 8, 8)).square().mean())
    assert _of_optimizer(getattr(torch.optim, name)(network.parameters(), **options), optimizer.state_dict()) is None


def test_what_early_stopping_keeps_fits_it() -> None:
    used = EarlyStopping("val/miou")
    used.best_score, used.wait_count = torch.tensor(0.5), 2
    assert misfit(EarlyStopping("val/miou").state_dict(), used.state_dict(), "it") is None
