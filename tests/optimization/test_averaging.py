"""The moving average: what learns is averaged, what is frozen is not kept twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from src.optimization.averaging import MovingAverage


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_frozen_parameters_are_shared_and_all_others_follow() -> None:
    followed = network()
    followed[0].requires_grad_(False)
    average = MovingAverage(followed, 0.5)
    copy: Any = average.module
    assert copy[0].weight is followed[0].weight and copy[0].bias is followed[0].bias
    assert copy[2].weight is not followed[2].weight
    assert list(copy.state_dict()) == list(followed.state_dict())

    frozen = followed[0].weight.clone()
    average.follow(followed)  # the first one copies
    start = followed[2].weight.detach().clone()
    with torch.no_grad():
        followed[2].weight += 1
    followed(torch.randn(2, 3, 4, 4))  # moves the batch norm's statistics
    average.follow(followed)
    decay = 2 / 11  # of the second update
    torch.testing.assert_close(copy[2].weight, decay * start + (1 - decay) * (start + 1))
    torch.testing.assert_close(copy[1].running_mean, (1 - decay) * followed[1].running_mean)
    assert torch.equal(followed[0].weight, frozen)
    assert copy[0].weight is followed[0].weight


def test_loading_and_moving_keep_what_is_shared() -> None:
    followed = network()
    followed[0].requires_grad_(False)
    average: Any = MovingAverage(followed, 0.5)
    both = nn.ModuleDict({"network": followed, "ema": average})
    state = {key: torch.full_like(value, 3) for key, value in both.state_dict().items()}
    both.load_state_dict(state)
    both.double()
    assert average.module[0].weight is followed[0].weight
    assert (followed[0].weight == 3).all()


def test_a_network_without_frozen_parts_is_copied_whole() -> None:
    followed = network()
    average = MovingAverage(followed, 0.5)
    own = {id(parameter) for parameter in followed.parameters()}
    assert not own & {id(parameter) for parameter in average.module.parameters()}


def test_it_counts_its_steps_as_a_checkpoint_does() -> None:
    """A loaded average goes on with the decay of the step that it was saved in, as one that was never saved."""
    followed = network()
    average, loaded = MovingAverage(followed, 0.99), MovingAverage(followed, 0.99)
    for _ in range(3):
        followed(torch.randn(2, 3, 4, 4))
        average.follow(followed)
    nn.ModuleDict({"ema": loaded}).load_state_dict(nn.ModuleDict({"ema": average}).state_dict())
    with torch.no_grad():
        followed[2].weight += 1
    followed(torch.randn(2, 3, 4, 4))
    for each in (average, loaded):
        each.follow(followed)
    assert int(loaded.n_averaged) == 4
    assert all(
        torch.equal(a, b) for a, b in zip(average.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def test_a_step_is_torchs() -> None:
    followed = network()
    ours = MovingAverage(followed, 0.05)  # below what the early decay gives
    theirs: Any = AveragedModel(followed, multi_avg_fn=get_ema_multi_avg_fn(0.05), use_buffers=True)
    for _ in range(4):
        followed(torch.randn(2, 3, 4, 4))
        with torch.no_grad():
            followed[0].weight += 0.1
        ours.follow(followed)
        theirs.update_parameters(followed)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
