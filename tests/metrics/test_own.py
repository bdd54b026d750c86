"""A user's own metric reaches metrics.json, the log, the tables, `monitor`, sweeps and the report without a line elsewhere."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score

from src.cli.command import compose
from src.config.check import check
from src.errors import UserError
from src.evaluate import evaluate
from src.metrics.names import SCORES, TASK_SCORES, find
from src.metrics.own import OwnMetrics
from src.storage.trust import OWN
from src.train import train
from tests.conftest import SMALL, settings
from tests.same import curves

WRONG = "metrics.wrong._target_=tests.metrics.test_own.Wrong"
KAPPA = "metrics.kappa._target_=torchmetrics.classification.MulticlassCohenKappa"
F1 = "metrics.f1={_target_: torchmetrics.classification.MulticlassF1Score, average: none}"


class Wrong(Metric):
    """Share of the labelled pixels that are wrong."""

    higher_is_better = False
    wrong: Tensor
    seen: Tensor

    def __init__(self, ignore_index: int) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        for name in ("wrong", "seen"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        known = mask != self.ignore_index
        self.wrong += (prediction != mask)[known].sum()
        self.seen += known.sum()

    def compute(self) -> Tensor:
        return self.wrong / self.seen


class Gives(Metric):
    """Gives what it is told to."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        assert prediction.dtype == mask.dtype == torch.int64 and prediction.shape == mask.shape

    def compute(self) -> Any:
        return self.value


def test_everywhere(tmp_path: Path) -> None:
    overrides = [WRONG, KAPPA, F1, "monitor=val/wrong", "monitor_mode=min", "optimized_metric=test/kappa"]
    outcome = train(settings(tmp_path / "run", *overrides), trust=OWN)
    for stage in ("val", "test"):
        scores = outcome.metrics[stage]
        assert scores["wrong"] == pytest.approx(1 - scores["pixel_accuracy"], abs=1e-6)
        of_classes = [value for key, value in scores.items() if key.startswith("f1/")]
        assert scores["f1"] == pytest.approx(sum(of_classes) / 6) and len(of_classes) == 6
        assert "kappa" in scores
    assert outcome.optimized == outcome.metrics["test"]["kappa"]
    curve = [value for _, value in curves(tmp_path / "run")["val/wrong"]]
    assert outcome.metrics["val"]["wrong"] == pytest.approx(min(curve))

    again = compose("evaluate", [f"ckpt={tmp_path}/run", "trust=tests"])
    again["paths"]["output_dir"] = str(tmp_path / "scores")
    assert evaluate(again)["test"] == outcome.metrics["test"]


def test_of_a_strangers_checkpoint_only_the_librarys_are_computed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(settings(tmp_path / "run", WRONG, KAPPA, "trainer.max_epochs=1", "test=false"), trust=OWN)
    composed = compose("evaluate", [f"ckpt={tmp_path}/run", "splits=[val]"])
    composed["paths"]["output_dir"] = str(tmp_path / "scores")
    scores = evaluate(composed)["val"]
    assert "kappa" in scores and "wrong" not in scores
    assert "metrics.wrong is left out" in caplog.text and "trust=" in caplog.text


@pytest.mark.slow
def test_two_ranks_give_the_same(tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Of 5 images, 2 at a time, one rank gets 3, the other 2."""
    outcome = train(settings(tmp_path / "run", WRONG, KAPPA, "trainer.max_epochs=1", "test=false"), trust=OWN)
    two = ["trainer=ddp_cpu", "trainer.devices=2", f"hydra.run.dir={tmp_path}/two", "splits=[val]", "trust=tests"]
    done = run("src.evaluate", f"ckpt={tmp_path}/run", *two)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "two/metrics.json").read_text())["val"]
    for key in ("wrong", "kappa", "miou"):
        assert scores[key] == pytest.approx(outcome.metrics["val"][key], abs=1e-6), key


@pytest.mark.slow
def test_sweeps_and_reports_rank_by_it(tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    small = [o for o in SMALL if not o.startswith(("optimizer.lr", "trainer.max_epochs"))]
    monitored = ["monitor=val/wrong", "monitor_mode=min", "optimized_metric=val/wrong", "test=false"]
    where = ["trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path}/sweep", "optimizer.lr=0.01,1e-9"]
    done = run("src.train", "-m", *small, WRONG, *monitored, *where)
    assert done.returncode == 0, done.stderr
    done = run("src.report", f"{tmp_path}/sweep", "metric=wrong", "sort=val")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "sweep/report.csv").open(newline="") as file:
        values = [float(row["best_val"]) for row in csv.DictReader(file)]
    assert len(values) == 2 and values == sorted(values)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["metrics.miou._target_=tests.metrics.test_own.Wrong"],
            "metrics.miou: should be a word .* that is no score's",
        ),
        (["metrics.my=1"], "metrics.my: should be a class with its keys"),
        ([WRONG, "metrics.wrong.ignore_index=3"], "metrics.wrong.ignore_index: is set by the program"),
        ([WRONG, "monitor=val/wrong"], "monitor_mode: val/wrong is a metric of your own; say which is best"),
        ([WRONG, "monitor=val/wron"], "no metric is called 'val/wron', did you mean 'val/wrong'"),
        (["monitor=val/boundary_f1"], "val/boundary_f1 is a score of the task boundary, .* take tasks=boundary"),
    ],
)
def test_what_cannot_be(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(compose("train", overrides))


def test_a_direction_that_its_class_calls_worse(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max would keep the worst checkpoint by val/wrong"):
        train(settings(tmp_path, WRONG, "monitor=val/wrong", "monitor_mode=max"), trust=OWN)
    with pytest.raises(UserError, match=r"is no torchmetrics\.Metric"):
        train(settings(tmp_path / "other", "metrics.my._target_=torch.nn.Identity"), trust=OWN)


def test_results() -> None:
    names = ("sky", "road")

    def named(value: Any) -> dict[str, float]:
        own = OwnMetrics({"my": Gives(value)}, names, "val")
        own.update(torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.uint8))
        return own.finish()

    assert named(torch.tensor(0.5)) == {"my": 0.5}
    assert named(torch.tensor([0.25, 0.75])) == {"my": 0.5, "my/sky": 0.25, "my/road": 0.75}
    assert named(torch.tensor([0.25, float("nan")])) == {"my": 0.25, "my/sky": 0.25}
    assert named(torch.tensor(float("nan"))) == {}
    for value in (torch.zeros(3), torch.zeros(2, 2), {"a": torch.tensor(1.0)}, 0.5):
        with pytest.raises(
            UserError, match=r"metrics\.my: computes a .*, neither one number nor one for each of the 2"
        ):
            named(value)
    with pytest.raises(UserError, match=r"metrics\.my: MulticlassF1Score does not take .*RuntimeError"):
        OwnMetrics({"my": MulticlassF1Score(2)}, names, "val").update(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 9))


@pytest.mark.parametrize("tasks", [None, "depth_boundary", "label"])
def test_every_score_of_a_run_is_known_with_title_and_direction(tmp_path: Path, tasks: str | None) -> None:
    monitored = {None: "val/loss", "depth_boundary": "val/depth_rmse", "label": "val/label_accuracy"}[tasks]
    chosen = [f"tasks={tasks}"] if tasks else []
    outcome = train(settings(tmp_path, *chosen, f"monitor={monitored}", "trainer.max_epochs=2", KAPPA), trust=OWN)
    of_task = [key for key, score in TASK_SCORES.items() if tasks and str(score.task) in tasks]
    for stage in ("val", "test"):
        keys = {key for key in outcome.metrics[stage] if not key.startswith("iou/")}
        assert keys == {*SCORES, *of_task, "kappa"}
        assert all(find(key, ["kappa"]) is not None for key in outcome.metrics[stage])
    values = [value for _, value in curves(tmp_path)[monitored]]
    best = max(values) if monitored.endswith("accuracy") else min(values)
    assert outcome.metrics["val"][monitored.removeprefix("val/")] == pytest.approx(best)
