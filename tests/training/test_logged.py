"""How often is logged changes nothing but how often: the same values at the same batches, the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.train import train
from tests.conftest import settings
from tests.same import assert_same, curves, state

GAN = ["model=gan", "discriminator=small"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [[], ["trainer.accumulate_grad_batches=4"], ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"], GAN],
    ids=["plain", "accumulated", "clipped", "gan"],
)  # fmt: skip
def test_what_is_logged_does_not_depend_on_how_often(tmp_path: Path, overrides: list[str]) -> None:
    """6 batches an epoch: with 5, steps are logged in the middle of accumulated ones, and an epoch's last batch is not."""
    runs = {every: tmp_path / str(every) for every in (1, 5)}
    for every, run_dir in runs.items():
        train(settings(run_dir, f"trainer.log_every_n_steps={every}", "trainer.max_epochs=3", "test=false", *overrides))
    often, seldom = curves(runs[1]), curves(runs[5])
    assert often.keys() == seldom.keys()
    for tag, points in seldom.items():
        assert points and set(points) <= set(often[tag]), tag
        if tag.startswith("train/") and tag != "train/loss_mean":
            assert [step for step, _ in points] == [4, 9, 14], tag
    assert_same(state(runs[1])["state_dict"], state(runs[5])["state_dict"])
