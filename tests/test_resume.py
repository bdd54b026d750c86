"""A run that was stopped, at any moment, ends with the same bits as one that never was."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src import run_folder
from tests.conftest import SMALL, command, environment

Run = Callable[..., subprocess.CompletedProcess[str]]
# Draws of every kind: augmentation, and an average of the weights.
CONFIG = [
    *SMALL,
    "trainer.max_epochs=12",
    "trainer.log_every_n_steps=1",
    "data.augment.scale=[0.7,1.5]",
    "data.crop=[32,32]",
    "model.ema_decay=0.9",
]


def train(run_dir: Path, *overrides: str) -> list[str]:
    return ["src.train", *CONFIG, *overrides, f"hydra.run.dir={run_dir}"]


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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    subprocess.run(command(*train(run_dir)), env=environment(), check=True, capture_output=True, timeout=300)
    return run_dir


def start_and_stop(run_dir: Path, batches: int, number: signal.Signals, *overrides: str) -> int:
    """Starts a run that saves after every batch, and sends it a signal when about so many batches were saved."""
    process = subprocess.Popen(
        command(*train(run_dir, "callbacks.checkpoint.every_n_steps=1", *overrides)),
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=run_dir.parent,
    )  # fmt: skip
    last = run_dir / run_folder.LAST
    seen, deadline = set[int](), time.monotonic() + 200
    while len(seen) < batches and process.poll() is None and time.monotonic() < deadline:
        if last.exists():
            seen.add(last.stat().st_mtime_ns)
        time.sleep(0.001)
    process.send_signal(number)
    return process.wait(timeout=100)


@pytest.mark.parametrize(("batches", "workers"), [pytest.param(3, 0, marks=pytest.mark.slow), (9, 2)])
def test_a_killed_run_goes_on_to_the_same_bits(
    undisturbed: Path, tmp_path: Path, run: Run, batches: int, workers: int
) -> None:
    run_dir = tmp_path / "run"
    status = start_and_stop(run_dir, batches, signal.SIGKILL, f"data.num_workers={workers}")
    assert status == -signal.SIGKILL
    assert not (run_dir / run_folder.METRICS).exists()
    resumed = run("src.train", f"resume={run_dir}")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(run_dir, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_run_says_so_and_goes_on_to_the_same_bits(
    undisturbed: Path, tmp_path: Path, run: Run, number: signal.Signals
) -> None:
    run_dir = tmp_path / "run"
    assert start_and_stop(run_dir, 4, number) == 130
    metrics = run_folder.read_metrics(run_dir)
    assert metrics is not None and metrics["status"] == "interrupted"
    resumed = run("src.train", f"resume={run_dir}")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(run_dir, undisturbed)


# Two optimizers, noise, unlabelled images and sampled maps: everything a GAN segmenter draws.
GAN = [
    "model=gan",
    "model.noise.channels=2",
    "model.generated=gumbel",
    "model.semi=fixmatch",
    "model.semi.threshold=0.3",
]
GAN += [
    "data.labeled_fraction=1/2",
    "discriminator.depth=3",
    "trainer.max_epochs=6",
    "trainer.accumulate_grad_batches=2",
]


def test_a_killed_gan_run_goes_on_to_the_same_bits(tmp_path: Path, run: Run) -> None:
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "run"
    assert run(*train(undisturbed, *GAN)).returncode == 0
    assert start_and_stop(run_dir, 5, signal.SIGKILL, *GAN) == -signal.SIGKILL
    resumed = run("src.train", f"resume={run_dir}")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(run_dir, undisturbed)
    assert state(run_dir)["global_step"] == 6 * 3  # 6 batches an epoch, 2 a step


@pytest.mark.slow
def test_a_damaged_last_checkpoint_is_named_and_the_one_before_it_is_used(
    undisturbed: Path, tmp_path: Path, run: Run
) -> None:
    run_dir = tmp_path / "run"
    start_and_stop(run_dir, 4, signal.SIGKILL)
    last = run_dir / run_folder.LAST
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[: len(content) // 2])
    resumed = run("src.train", f"resume={run_dir}")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{last} is damaged" in resumed.stdout + resumed.stderr
    assert_same_end(run_dir, undisturbed)


def test_a_resumed_run_keeps_its_config(undisturbed: Path, run: Run) -> None:
    refused = run("src.train", f"resume={undisturbed}", "optimizer.lr=0.1")
    assert refused.returncode == 2
    assert "optimizer.lr: a resumed run keeps its config" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 2


def test_a_run_like_another_ends_with_its_bits(undisturbed: Path, tmp_path: Path, run: Run) -> None:
    refused = run("src.train", f"like={undisturbed}", "network=small")
    assert refused.returncode == 2
    assert "network: with like= the options are those of that run" in refused.stderr
    again = run("src.train", f"like={undisturbed}")
    assert again.returncode == 0, again.stderr
    (run_dir,) = (tmp_path / "logs/train/runs").iterdir()
    assert_same_end(run_dir, undisturbed)
    assert (run_dir / run_folder.CONFIG).read_text() == (undisturbed / run_folder.CONFIG).read_text()


def test_resuming_what_is_no_run_is_refused(tmp_path: Path, run: Run) -> None:
    refused = run("src.train", f"resume={tmp_path}")
    assert refused.returncode == 2
    assert "is no run folder" in refused.stderr
