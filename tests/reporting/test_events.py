"""Curves and pictures are those that TensorBoard shows, whatever became of the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.reporting import events
from tests.reporting.folders import log


def test_a_resumed_runs_curves_are_those_of_tensorboard(tmp_path: Path) -> None:
    log(tmp_path, {"val/miou": [0.1, 0.2, 0.3, 0.4], "train/loss": [4, 3, 2, 1]}, color="red")
    log(tmp_path, {"val/miou": [0.5, 0.6], "train/loss": [1.5]}, first=2, restart=True, color="blue")
    read = events.read(tmp_path)
    shown = EventAccumulator(str(tmp_path)).Reload()
    for tag in ("val/miou", "train/loss"):
        assert list(read.scalars[tag].items()) == [(e.step, e.value) for e in shown.Scalars(tag)]
    assert sorted(read.scalars["val/miou"]) == [0, 1, 2, 3]
    assert events.picture(read, "val/00") == shown.Images("val/00")[-1].encoded_image_string
    assert read.seconds == pytest.approx(60 * (3 + 3), abs=30)  # of each file


def test_a_purge_takes_newer_pictures_too(tmp_path: Path) -> None:
    log(tmp_path, {}, first=1, color="red")
    log(tmp_path, {}, first=9, color="green")
    log(tmp_path, {"train/loss": [1.0]}, first=5, restart=True)
    read = events.read(tmp_path)
    assert [step for step, _ in read.pictures["val/00"]] == [1]
    assert events.picture(read, "val/none") is None


def test_what_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    file = log(tmp_path, {"train/loss": [4, 3, 2, 1]})
    content = file.read_bytes()
    for length in (len(content) - 1, len(content) - 30, 40, 13, 5, 0):
        file.write_bytes(content[:length])
        values = events.read(tmp_path).scalars.get("train/loss", {})
        assert list(values.items()) == [(0, 4), (1, 3), (2, 2), (3, 1)][: len(values)]
    file.write_bytes(content[:60] + b"\xff" * 4000)
    assert len(events.read(tmp_path).scalars.get("train/loss", {})) < 4
    assert events.read(tmp_path / "none").scalars == {}


def test_long_curves_are_thinned_and_keep_their_mean(tmp_path: Path) -> None:
    log(tmp_path, {"train/loss": [*range(1000), float("nan")]})
    points = events.curve(events.read(tmp_path), "train/loss")
    assert len(points) == 200
    assert points[0] == (2.0, 2.0)
    assert sum(value for _, value in points) / 200 == 499.5
