"""What it means that two runs ended the same: weights and optimizers to the bit, figures, curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.storage import run_folder


def state(run_dir: Path, file: str = run_folder.LAST) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run_dir / file, weights_only=True)
    return content


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Equal to the bit, except what measures time and memory."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            if key not in ("seconds", "images", "wall_seconds", "images_per_second", "memory"):
                assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def assert_same_end(run_dir: Path, other: Path) -> None:
    for file in (run_folder.LAST, run_folder.BEST):
        ours, theirs = state(run_dir, file), state(other, file)
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            assert_same(ours[key], theirs[key], f"{file}:{key}")
        ours["segmenter"]["config"]["paths"] = theirs["segmenter"]["config"]["paths"] = None
    ours_metrics, their_metrics = run_folder.read_metrics(run_dir), run_folder.read_metrics(other)
    assert ours_metrics is not None and their_metrics is not None
    assert_same(ours_metrics, their_metrics)
    assert curves(run_dir) == curves(other)


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's scalars as its page shows them, but for those that measure time."""
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if "images_per_second" not in tag
    }
