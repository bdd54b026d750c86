"""Scores by name: what can be monitored, and that tables say whether Dice has a background."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.callbacks.dashboard import _layout
from src.cli.command import compose
from src.config.check import check
from src.data.labels import LabelSet
from src.errors import UserError
from src.metrics.names import cannot_be
from src.reporting.tables import called
from src.train import train
from src.training.score_table import score_table
from tests.conftest import settings

WITH = LabelSet(("background", "organ"), ((0, 0, 0), (255, 0, 0)))
WITHOUT = LabelSet(("sky", "road"), ((0, 0, 0), (255, 0, 0)))


def test_foreground_dice_can_be_monitored_and_optimized() -> None:
    check(compose("train", ["monitor=val/dice_foreground", "optimized_metric=test/dice_foreground"]))
    for key in ("monitor", "optimized_metric"):
        with pytest.raises(UserError, match=f"{key}: no metric is called .* did you mean 'val/dice_foreground'"):
            check(compose("train", [f"{key}=val/dice_forground"]))


@pytest.mark.parametrize("recipe", ["mri_unet", "ct_unet"])
def test_medical_recipes_monitor_it(recipe: str) -> None:
    composed = compose("train", [f"experiment={recipe}", "data.root=x"])
    assert composed["callbacks"]["checkpoint"]["monitor"] == "val/dice_foreground"


def test_without_a_background_there_is_none(tmp_path: Path) -> None:
    assert cannot_be("dice_foreground", WITH.names) is None
    assert "no class is called background" in str(cannot_be("dice_foreground", WITHOUT.names))
    assert cannot_be("iou/road", WITHOUT.names) is None
    with pytest.raises(UserError, match=r"monitor: no class is called 'tram'"):
        train(settings(tmp_path, "monitor=val/iou/tram", "trainer.max_epochs=1"))


def test_tables_say_what_dice_is_a_mean_of() -> None:
    scores = {"miou": 0.5, "dice": 0.6, "dice_foreground": 0.4, "depth_rmse": 1.0}
    assert "Dice (with background)" in score_table(scores, WITH, "val")
    assert "Dice (foreground)" in score_table(scores, WITH, "val")
    assert "Dice (all classes)" in score_table({"dice": 0.6}, WITHOUT, "val")
    assert "depth: root mean squared error" in score_table(scores, WITH, "val")
    assert (called("dice"), called("miou")) == ("dice (all classes)", "miou")


def test_the_dashboard_shows_it_where_it_is() -> None:
    charts = [_layout(labels.names, False)["training"] for labels in (WITH, WITHOUT)]
    shown = [next(tags for title, (_, tags) in chart.items() if title.startswith("scores")) for chart in charts]
    assert "val/dice_foreground" in shown[0]
    assert "val/dice_foreground" not in shown[1]
