"""Schedules: their shape, and that a saved and loaded one goes on exactly."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, PolynomialLR

from src.errors import UserError
from src.optimization.schedulers import constant, cosine, onecycle, poly, two_stage_poly
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "conf" / "scheduler").glob("*.yaml"))
Build = Callable[..., LRScheduler]


def optimizer_of(*rates: float) -> Optimizer:
    return SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates or (0.1,)])


def rates(scheduler: LRScheduler, steps: int, group: int = 0) -> list[float]:
    """The learning rates of the next `steps` optimizer steps."""
    result = []
    for _ in range(steps):
        result.append(float(scheduler.optimizer.param_groups[group]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return result


# `two_stage_poly` takes no share for its warm-up, and starts from 0: see below.
@pytest.fixture(params=[path for path in CONFIGS if path.stem != "two_stage_poly"], ids=lambda path: path.stem)
def build(request: pytest.FixtureRequest) -> Build:
    config = OmegaConf.load(request.param)
    return lambda **given: instantiate(config, **given)


def test_every_schedule_is_configured() -> None:
    assert {p.stem for p in CONFIGS} == {"poly", "cosine", "onecycle", "constant", "two_stage_poly"}


class TestEverySchedule:
    @pytest.mark.parametrize("done", [0, 1, 7, 20, 49])
    def test_a_loaded_one_goes_on_exactly(self, build: Build, done: int) -> None:
        whole = rates(build(optimizer=optimizer_of(), total_steps=50, warmup_steps=10), 50)
        scheduler = build(optimizer=optimizer_of(), total_steps=50, warmup_steps=10)
        rates(scheduler, done)
        file = io.BytesIO()
        torch.save([scheduler.optimizer.state_dict(), scheduler.state_dict()], file)
        file.seek(0)
        states = torch.load(file, weights_only=True)
        resumed = build(optimizer=optimizer_of(), total_steps=50, warmup_steps=10)
        resumed.optimizer.load_state_dict(states[0])
        resumed.load_state_dict(states[1])
        assert rates(resumed, 50 - done) == whole[done:]

    def test_never_warns_and_keeps_the_last_rate_past_the_end(self, build: Build) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            last = rates(build(optimizer=optimizer_of(), total_steps=20), 30)[20:]
        assert len(set(last)) == 1

    @pytest.mark.parametrize("total_steps", [1, 2, 3, 4, 5, 8])
    @pytest.mark.parametrize("warmup", [{}, {"warmup_fraction": 0.25}, {"warmup_fraction": 0.5}, {"warmup_steps": 1}])
    def test_short_runs(self, build: Build, total_steps: int, warmup: dict[str, float]) -> None:
        result = rates(build(optimizer=optimizer_of(), total_steps=total_steps, **warmup), total_steps + 2)
        assert all(0 <= rate <= 0.1 for rate in result)
        assert result[0] > 0

    def test_a_warm_up_over_all_steps_works(self, build: Build) -> None:
        assert max(rates(build(optimizer=optimizer_of(), total_steps=10, warmup_steps=10), 12)) == 0.1

    def test_groups_keep_their_ratio(self, build: Build) -> None:
        schedulers = [build(optimizer=optimizer_of(0.01, 0.1), total_steps=20) for _ in range(2)]
        slow, fast = rates(schedulers[0], 20, group=0), rates(schedulers[1], 20, group=1)
        assert [10 * rate for rate in slow] == pytest.approx(fast)

    def test_warm_up_rises_to_the_peak(self, build: Build) -> None:
        result = rates(build(optimizer=optimizer_of(), total_steps=100, warmup_steps=20), 100)
        assert result[:20] == sorted(set(result[:20]))
        assert max(result) == 0.1
        assert result.index(0.1) in (19, 20)

    def test_share_and_number_of_warm_up_steps_are_the_same(self, build: Build) -> None:
        by_share = rates(build(optimizer=optimizer_of(), total_steps=50, warmup_fraction=0.2), 50)
        by_number = rates(build(optimizer=optimizer_of(), total_steps=50, warmup_fraction=0.7, warmup_steps=10), 50)
        assert by_share == by_number


class TestShapes:
    @pytest.mark.parametrize("schedule", [poly, cosine, onecycle, constant])
    def test_a_warm_up_longer_than_the_run_is_the_users_error(self, schedule: Build) -> None:
        with pytest.raises(UserError, match=r"scheduler\.warmup_steps: 11 .* 10 steps"):
            schedule(optimizer_of(), 10, warmup_steps=11)

    def test_poly_is_torchs(self) -> None:
        expected = rates(PolynomialLR(optimizer_of(), total_iters=40, power=0.9), 40)
        assert rates(poly(optimizer_of(), 40), 40) == pytest.approx(expected, rel=1e-9)

    def test_cosine_is_torchs(self) -> None:
        expected = rates(CosineAnnealingLR(optimizer_of(), T_max=40, eta_min=0.02), 40)
        assert rates(cosine(optimizer_of(), 40, min_factor=0.2), 40) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize(("total_steps", "share"), [(40, 0.25), (37, 0.3), (100, 0.05), (10, 0.5)])
    def test_onecycle_is_torchs(self, total_steps: int, share: float) -> None:
        torchs = OneCycleLR(optimizer_of(), 0.1, total_steps, pct_start=share, cycle_momentum=False)
        ours = onecycle(optimizer_of(), total_steps, warmup_fraction=share)
        assert rates(ours, total_steps - 1) == pytest.approx(rates(torchs, total_steps - 1), rel=1e-6, abs=1e-9)
        assert ours.get_last_lr() == pytest.approx(torchs.get_last_lr())

    def test_constant_is_constant(self) -> None:
        assert rates(constant(optimizer_of(), 10), 12) == [0.1] * 12

    def test_warm_up_is_linear_and_the_rest_decays_over_what_is_left(self) -> None:
        result = rates(poly(optimizer_of(), 14, power=1, warmup_steps=4, warmup_start_factor=0.2), 15)
        rise, fall = [0.02, 0.04, 0.06, 0.08], [0.1 - 0.01 * i for i in range(11)]
        assert result == pytest.approx(rise + fall)

    def test_min_factor_is_reached(self) -> None:
        for schedule in (poly, cosine):
            scheduler = schedule(optimizer_of(), 10, min_factor=0.3)
            assert min(rates(scheduler, 10)) > 0.03
            assert scheduler.get_last_lr() == pytest.approx([0.03])


def named(*names: str) -> Optimizer:
    return SGD([{"name": name, "params": [nn.Parameter(torch.zeros(1))], "lr": 0.1} for name in names])


class TestTwoStages:
    def test_the_encoder_waits_for_the_head(self) -> None:
        schedule = two_stage_poly(named("encoder_layer_00", "head"), 20, power=1.0, warmup_steps=4)
        encoder, head = [[0.1 * shape(step) for step in range(21)] for shape in schedule.lr_lambdas]
        assert encoder[:4] == [0.0] * 4 and encoder[8] == pytest.approx(0.05) and encoder[12] == pytest.approx(0.1)
        assert head[0] == 0 and head[2] == pytest.approx(0.05) and head[4] == pytest.approx(0.1)
        assert encoder[16] == pytest.approx(0.05) and head[12] == pytest.approx(0.05) and encoder[20] == head[20] == 0

    def test_an_encoder_without_a_warm_up_only_waits(self) -> None:
        encoder, _ = two_stage_poly(named("encoder", "head"), 20, warmup_steps=4, encoder_warmup_factor=0.0).lr_lambdas
        assert [encoder(step) for step in range(5)] == [0, 0, 0, 0, 1]

    @pytest.mark.parametrize("done", [0, 3, 9, 19])
    def test_a_loaded_one_goes_on_exactly(self, done: int) -> None:
        whole = rates(two_stage_poly(named("encoder", "head"), 20, warmup_steps=4), 20)
        scheduler = two_stage_poly(named("encoder", "head"), 20, warmup_steps=4)
        rates(scheduler, done)
        resumed = two_stage_poly(named("encoder", "head"), 20, warmup_steps=4)
        resumed.optimizer.load_state_dict(scheduler.optimizer.state_dict())
        resumed.load_state_dict(scheduler.state_dict())
        assert rates(resumed, 20 - done) == whole[done:]

    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_short_runs_and_no_warm_up(self, steps: int) -> None:
        assert rates(two_stage_poly(named("encoder", "head"), steps, warmup_steps=0), steps + 1)[0] == 0.1
        with pytest.raises(UserError, match=r"scheduler\.warmup_steps: 6 of warm-up"):
            two_stage_poly(named("encoder", "head"), steps, warmup_steps=2)


def test_an_inclusive_poly_ends_with_its_last_step() -> None:
    schedule = poly(optimizer_of(), 10, warmup_steps=3, min_factor=0.1, inclusive=True)
    factors = [schedule.lr_lambdas[0](step) for step in range(11)]
    assert factors[0] == 0.01 and factors[2] == 1 and factors[3] == 1
    assert factors[9] == factors[10] == pytest.approx(0.1)


def test_a_cosine_over_its_warm_up() -> None:
    schedule = cosine(optimizer_of(), 10, warmup_steps=4, warmup_start_factor=0.0, over_warmup=True)
    factors = [schedule.lr_lambdas[0](step) for step in range(11)]
    assert factors[0] == 0 and factors[5] == pytest.approx(0.5) and factors[10] == pytest.approx(0)
    assert factors[2] == pytest.approx(0.5 * (1 + math.cos(math.pi / 5)) / 2)
