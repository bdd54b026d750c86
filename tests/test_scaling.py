"""The model of `benchmarks/scaling.py`, by cases that can be reckoned by hand."""

from __future__ import annotations

import pytest

from benchmarks.scaling import Cluster, table


def cluster(**changes: float) -> Cluster:
    known = {"step": 0.3, "images": 8, "gradients": 4e6, "within": 1e9, "between": 1e8, "latency": 1e-3, "bucket": 1e6}
    return Cluster(**{**known, **changes})  # type: ignore[arg-type]


def test_one_gpu_waits_for_nobody() -> None:
    assert cluster().seconds(1) == (0.3, "computing")


def test_a_ring_sends_all_but_one_part_twice() -> None:
    assert cluster().all_reduce(8e6, 8) == pytest.approx(2 * 7 * (1e6 / 1e9 + 1e-3))
    assert cluster().all_reduce(16e6, 16) == pytest.approx(2 * 15 * (1e6 / 1e8 + 1e-3)), "more than a node: its network"


def test_the_backward_pass_hides_all_but_the_last_bucket() -> None:
    one = cluster()
    each = one.all_reduce(1e6, 2)
    assert each < 0.2 / 4, "each is sent before the next is ready"
    assert one.seconds(2)[0] == pytest.approx(0.3 + each)


def test_what_takes_longer_than_the_backward_pass_is_waited_for() -> None:
    slow = cluster(latency=0.1)
    each = slow.all_reduce(1e6, 2)
    seconds, bound = slow.seconds(2)
    assert seconds == pytest.approx(0.1 + 0.05 + 4 * each) and bound == "gradients"


def test_the_loader_bounds_a_step_that_is_faster() -> None:
    assert cluster(loader=20.0).seconds(8) == (8 / 20, "the loader")


def test_the_table_has_a_line_for_each_number_of_gpus() -> None:
    lines = table(cluster(), price=3.0).splitlines()
    assert len(lines) == 2 + 3 * 3
    assert lines[2].startswith("| Cityscapes, 2,975 images | 1 | 300 | 112 s | $0.09 | 100% | computing |")
