"""What `debug=profile` says: the shares in words, and the key that helps most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

from src.callbacks.step_profiler import SHARES, Share, StepProfiler
from src.cli.request import Request
from src.config.settings import Settings
from src.training import step_advice
from tests.conftest import settings

CPU = torch.device("cpu")


def said(tmp_path: Path, shares: dict[Share, float], *overrides: str) -> list[str]:
    profiler = StepProfiler()
    profiler.steps = [dict.fromkeys(SHARES, 0.0) | shares] * 8
    return step_advice.told(profiler, Settings.of(settings(tmp_path, *overrides)), CPU)


def test_the_shares_are_told_from_the_largest_on(tmp_path: Path) -> None:
    lines = said(tmp_path, {"forward": 0.06, "backward": 0.03, "rest": 0.01})
    assert lines[0] == "a step takes 100.0 ms (mean of 6):"
    assert [line.split("  ")[1] for line in lines[1:4]] == [
        "forward and loss",
        "backward",
        "logging, callbacks, the loop",
    ]
    assert lines[1].endswith("60.0 ms   60%")


@pytest.mark.parametrize(
    ("shares", "overrides", "expected"),
    [
        ({"data": 0.5, "forward": 0.5}, ["data.num_workers=0"], "data.num_workers=1"),
        ({"data": 0.5, "forward": 0.5}, ["data.num_workers=2"], "data.num_workers=4"),
        ({"data": 0.5, "forward": 0.5}, ["data.num_workers=4", "data.cache=null"], "data.cache=ram"),
        ({"data": 0.5, "forward": 0.5}, ["data.num_workers=4", "data.cache=ram"], "data.augment.photometric=0"),
        ({"optimizer": 0.5, "forward": 0.5}, [], "+optimizer.fused=true"),
        ({"optimizer": 0.5, "forward": 0.5}, ["+optimizer.fused=true"], "trainer.accumulate_grad_batches"),
        ({"rest": 0.5, "forward": 0.5}, ["trainer.log_every_n_steps=5"], "trainer.log_every_n_steps=50"),
        ({"transfer": 0.5, "forward": 0.5}, [], "data.batch_size"),
        ({"data": 0.05, "forward": 0.9, "rest": 0.05}, [], "a smaller data.crop"),
    ],
)
def test_the_next_key_is_that_of_the_largest_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares: dict[Share, float], overrides: list[str], expected: str
) -> None:
    monkeypatch.setattr(step_advice, "usable_cores", lambda: 4)
    monkeypatch.setattr(step_advice, "has_bf16", lambda: False)
    nexts = [line for line in said(tmp_path, shares, *overrides) if line.startswith("next")]
    assert len(nexts) == 1 and expected in nexts[0]


def test_what_is_advised_can_be_written_as_it_is(tmp_path: Path) -> None:
    advised = [
        "data.num_workers=4",
        "data.cache=ram",
        "+optimizer.fused=true",
        "trainer.precision=bf16-mixed",
        "compile=true",
    ]
    for override in advised:
        Settings.of(settings(tmp_path, *Request.parse("train", [override]).arguments))


def test_one_step_is_too_few(tmp_path: Path) -> None:
    profiler = StepProfiler()
    profiler.steps = [dict.fromkeys(SHARES, 1.0)]
    (line,) = step_advice.told(profiler, Settings.of(settings(tmp_path)), CPU)
    assert "fewer than two steps" in line


def test_debug_profile_says_it(run: Callable[..., CompletedProcess[str]]) -> None:
    small = ["trainer.limit_train_batches=5", "network=tiny", "data.crop=[32,32]", "data.num_workers=0"]
    result = run("src.train", "debug=profile", *small)
    assert result.returncode == 0, result.stderr
    out = result.stdout + result.stderr
    assert "a step takes" in out and "backward" in out and "next" in out
