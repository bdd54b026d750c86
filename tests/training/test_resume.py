"""A run that was stopped, at any moment, ends with the same bits as one that never was."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src.errors import UserError
from src.storage import run_folder
from src.train import train as train_here
from tests.conftest import SMALL, command, environment, settings
from tests.data.formats.test_folder import NAMES, write
from tests.same import assert_same_end, state

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


@pytest.mark.slow
@pytest.mark.parametrize(("batches", "workers"), [(3, 0), (9, 2)])
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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


@pytest.mark.slow
def test_a_killed_gan_run_goes_on_to_the_same_bits(tmp_path: Path, run: Run) -> None:
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "run"
    assert run(*train(undisturbed, *GAN)).returncode == 0
    assert start_and_stop(run_dir, 5, signal.SIGKILL, *GAN) == -signal.SIGKILL
    resumed = run("src.train", f"resume={run_dir}")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(run_dir, undisturbed)
    assert state(run_dir)["global_step"] == 6 * 3  # 6 batches an epoch, 2 a step


# A network that follows the training, and a loss that draws points.
QUERIES = [
    "network=eomt", "network.encoder=test_vit", "network.image_size=32", "network.patch_size=8", "network.num_queries=8",
    "network.num_blocks=2", "loss=mask_classification", "loss.num_points=64", "optimizer.lr=0.001", "trainer.max_epochs=6",
]  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_with_annealed_masks_goes_on_to_the_same_bits(tmp_path: Path, run: Run) -> None:
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "run"
    done = run(*train(undisturbed, *QUERIES))
    assert done.returncode == 0, done.stderr
    assert start_and_stop(run_dir, 14, signal.SIGKILL, *QUERIES) == -signal.SIGKILL
    resumed = run("src.train", f"resume={run_dir}")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(run_dir, undisturbed)
    assert state(run_dir)["state_dict"]["network.core.model.attn_mask_probs"].tolist() == [0, 0]


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


@pytest.mark.slow
def test_a_resumed_run_keeps_its_config(undisturbed: Path, run: Run) -> None:
    refused = run("src.train", f"resume={undisturbed}", "network.width=8")
    assert refused.returncode == 2
    assert "network.width: a resumed run keeps its own" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 2


def test_other_data_than_the_run_began_with_are_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / "data", split, count=6)
    options = [
        "data=folder",
        f"data.root={tmp_path}/data",
        f"data.dataset.names=[{','.join(NAMES)}]",
        "data.crop=[16,16]",
    ]
    options += ["network=tiny", "trainer=cpu", "trainer.max_epochs=1", "data.batch_size=2", "scheduler.warmup_steps=0"]
    given = settings(tmp_path / "run", *options, "test=false", "~logger", small=False)
    train_here(given)
    (tmp_path / "data").rename(tmp_path / "moved")
    given["data"]["root"] = f"{tmp_path}/moved"
    train_here(given, resume=True)
    names = sorted(file.stem for file in (tmp_path / "moved/images/train").iterdir())
    for kind in ("images", "masks"):
        (first,) = (tmp_path / f"moved/{kind}/train").glob(f"{names[0]}.*")
        first.rename(first.with_stem("zz"))
    with pytest.raises(
        UserError, match=r"data\.root: the training data has other names than it had when the run began"
    ):
        train_here(given, resume=True)
    for kind in ("images", "masks"):
        next((tmp_path / f"moved/{kind}/train").glob("zz.*")).unlink()
    with pytest.raises(UserError, match="has 5 samples where it had 6 when the run began"):
        train_here(given, resume=True)


@pytest.mark.slow
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
