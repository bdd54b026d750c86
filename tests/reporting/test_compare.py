"""Which keys tell runs apart, and what their seeds say together."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from src.reporting import compare, read, tables
from tests.reporting.folders import log, write


def completed(miou: float, **more: Any) -> dict[str, Any]:
    return {
        "status": "completed",
        "wall_seconds": 60.0,
        "epochs": 2,
        "val": {"miou": miou},
        "test": {"miou": miou - 0.1},
    } | more


def test_differences_are_what_was_chosen_not_what_follows_from_it(tmp_path: Path) -> None:
    write(tmp_path / "a", ["network=tiny"], network="tiny", **completed(0.5))
    write(tmp_path / "b", ["network=small"], network="small", **completed(0.6))
    assert compare.differences(read.find(tmp_path)) == {"network": ["tiny", "small"]}
    write(tmp_path / "c", ["network=small", "optimizer.lr=0.01"], network="small", **completed(0.7))
    found = compare.differences(read.find(tmp_path))
    assert found == {"network": ["tiny", "small", "small"], "optimizer.lr": ["0.001", "0.001", "0.01"]}
    # a key of the group that no option explains, given by nobody: another version of the program, say
    write(tmp_path / "d", network="small", config={"network": {"_target_": "src.networks.small", "width": 7}})
    assert compare.differences(read.find(tmp_path))["network.width"] == ["4", "5", "5", "7"]


def test_where_a_run_is_makes_no_difference(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, config={"logger": {"save_dir": str(tmp_path / name / "tensorboard")}})
    assert compare.differences(read.find(tmp_path)) == {}


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    scores = {1: 0.50, 2: 0.56, 3: 0.62}
    for seed, score in scores.items():
        write(tmp_path / f"run{seed}", [f"seed={seed}"], **completed(score))
    write(tmp_path / "other", ["seed=1", "optimizer.lr=0.01"], **completed(0.9))
    write(tmp_path / "failed", ["seed=4"], status="failed", error="no", val={"miou": 0.99})
    again = write(tmp_path / "again", ["seed=3"], **completed(0.62))
    os.utime(again / "metrics.json", (2e9, 2e9))
    runs = read.find(tmp_path)
    groups = {len(group.runs): group for group in compare.by_seed(runs, compare.differences(runs))}
    assert groups.keys() == {5, 1}
    mean, deviation, count = groups[5].score("val", "miou") or (0, 0, 0)
    assert mean == pytest.approx(0.56)
    assert count == 3
    assert deviation == pytest.approx(statistics.stdev(scores.values()))
    assert groups[5].score("test", "miou") == pytest.approx((0.46, 0.06, 3))
    assert groups[1].score("val", "miou") == (0.9, None, 1)
    columns = {c.key: c for c in tables.seed_columns(list(groups.values()), "miou")}
    assert "3 of 4" in columns["seeds"].shown
    assert "0.5600 ± 0.0600" in columns["val"].shown


@pytest.mark.parametrize(
    ("metrics", "age", "status"),
    [
        ({"status": "completed"}, 1e6, "completed"),
        ({"status": "interrupted"}, 0, "interrupted"),
        ({"status": "failed"}, 1e6, "failed"),
        ({"status": "on its way"}, 0, "running"),
        ({}, 0, "running"),
        ({}, 1e6, "stopped"),
    ],
)
def test_status(tmp_path: Path, metrics: dict[str, Any], age: float, status: str) -> None:
    folder = write(tmp_path / "run", curves={"val/miou": [0.1]}, **metrics)
    for file in folder.rglob("*"):
        times = file.stat().st_mtime - age
        os.utime(file, (times, times))
    assert read.find(tmp_path)[0].status == status


def test_a_run_that_was_resumed_has_not_ended(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", status="interrupted", val={"miou": 0.1})
    then = (folder / "metrics.json").stat().st_mtime - 3600
    os.utime(folder / "metrics.json", (then, then))
    log(folder / "tensorboard", {"val/miou": [0.3, 0.8, 0.4], "val/dice": [0.9, 0.7, 0.6]})
    (run,) = read.find(tmp_path)
    assert run.status == "running"
    assert run.score("val", "miou") == pytest.approx(0.8)
    assert run.score("val", "dice") == pytest.approx(0.7)  # where the monitored metric was best
    assert run.score("test", "miou") is None


def test_half_written_and_foreign_folders_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "empty/.hydra").mkdir(parents=True)
    broken = write(tmp_path / "broken", status="completed")
    (broken / "metrics.json").write_text('{"status": "comp')
    (broken / ".hydra/config.yaml").write_text("a: [")
    odd = write(tmp_path / "odd", status="completed", val="oops", train=3, memory=[], wall_seconds="x")
    (odd / ".hydra/overrides.yaml").write_text("{a: 1}")
    write(tmp_path / "evaluated", config={"ckpt": "x"}, status="completed", checkpoint="x")
    (tmp_path / "notes").mkdir()
    runs = {run.name: run for run in read.find(tmp_path)}
    assert runs.keys() == {"empty", "broken", "odd"}
    assert compare.differences(list(runs.values())) == {}
    for run in runs.values():
        assert (run.score("val", "miou"), run.seconds, run.images_per_second, run.memory) == (None, None, None, None)


def test_runs_are_ordered_as_people_count(tmp_path: Path) -> None:
    for name in ("sweep/10", "sweep/9", "2026-01-02/x", "ü"):
        write(tmp_path / name)
    assert [run.name for run in read.find(tmp_path)] == ["2026-01-02/x", "sweep/9", "sweep/10", "ü"]
