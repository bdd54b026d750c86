"""The queue of devices."""

from __future__ import annotations

import pytest

from src.config.parts import Trainer
from src.errors import UserError
from src.sweep.devices import ClusterQueue, DeviceQueue, visible_gpus


def test_devices_are_handed_out_once_until_given_back() -> None:
    queue = DeviceQueue(["0", "1", "2", "3"], per_job=2)
    first, second = queue.take(2), queue.take(2)
    assert first == ["0", "1"] and second == ["2", "3"]
    assert not queue.has_room and queue.take(2) is None
    queue.give_back(first)
    assert queue.has_room and queue.take(2) == ["0", "1"]


def test_a_device_listed_twice_takes_two_jobs_but_not_one_job_twice() -> None:
    queue = DeviceQueue(["0", "0", "1"])
    assert queue.take(2) == ["0", "1"]
    assert queue.take(1) == ["0"]
    assert queue.take(1) is None


def test_a_job_that_needs_more_waits_for_them() -> None:
    queue = DeviceQueue(["0", "1"])
    one = queue.take(1)
    assert one is not None and queue.take(2) is None
    queue.give_back(one)
    assert queue.take(2) == ["1", "0"]


def test_how_many_run_at_once() -> None:
    assert DeviceQueue([], jobs=3).slots == 3
    assert DeviceQueue([]).slots == 1
    assert DeviceQueue(["0", "1"], jobs=1).slots == 1
    queue = DeviceQueue([], jobs=2)
    assert queue.take(0) == [] and queue.take(0) == [] and queue.take(0) is None


@pytest.mark.parametrize(
    ("queue", "trainer", "wanted"),
    [
        (DeviceQueue(["0", "1"]), {"devices": 1, "accelerator": "auto"}, 1),
        (DeviceQueue(["0", "1"]), {"devices": -1, "accelerator": "gpu"}, 2),
        (DeviceQueue(["0", "1", "2"], per_job=2), {"devices": -1, "accelerator": "gpu"}, 2),
        (DeviceQueue([]), {"devices": 2, "accelerator": "cpu"}, 0),
        (ClusterQueue(), {"devices": 4, "accelerator": "gpu"}, 4),
        (ClusterQueue(per_job=2), {"devices": -1, "accelerator": "gpu"}, 2),
        (ClusterQueue(), {"devices": 2, "accelerator": "cpu"}, 0),
    ],
)
def test_what_a_job_gets(queue: DeviceQueue, trainer: dict[str, object], wanted: int) -> None:
    assert queue.wanted(Trainer.of(trainer)) == wanted


@pytest.mark.parametrize(
    ("queue", "devices", "said"),
    [
        (DeviceQueue(["0", "1"]), 3, "trainer.devices: 3, and the sweep has 2"),
        (DeviceQueue(["0", "1"], per_job=2), 1, "take trainer.devices=2"),
        (DeviceQueue(["0", "1"]), [1], "trainer.devices=1"),
        (ClusterQueue(), -1, "take trainer.devices=N"),
    ],
)
def test_what_cannot_be_had_is_said(queue: DeviceQueue, devices: object, said: str) -> None:
    with pytest.raises(UserError) as caught:
        queue.wanted(Trainer.of({"devices": devices, "accelerator": "gpu"}))
    assert said in str(caught.value)


def test_the_devices_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a")
    assert visible_gpus() == ["3", "GPU-5a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


@pytest.mark.parametrize(
    ("queue", "ranks", "threads"),
    [
        (DeviceQueue([], jobs=4), 1, 4),
        (DeviceQueue([], jobs=4), 2, 2),
        (DeviceQueue([], jobs=64), 1, 1),
        (DeviceQueue([], jobs=1), 2, None),
        (DeviceQueue(["0", "1", "2", "3"]), 1, 4),
        (DeviceQueue(["0", "1", "2", "3"]), 2, 4),
        (DeviceQueue(["0", "1", "2", "3"]), 4, None),
        (DeviceQueue(["0", "1", "2", "3"], jobs=2), 1, 8),
        (ClusterQueue(), 1, None),
    ],
)
def test_jobs_side_by_side_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, queue: DeviceQueue, ranks: int, threads: int | None
) -> None:
    monkeypatch.setattr("src.sweep.devices.usable_cores", lambda: 16)
    assert queue.threads(ranks) == threads
