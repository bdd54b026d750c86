"""A rank that ends takes the whole run with it, soon, and says why."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.cli.command import compose
from src.evaluate import evaluate
from src.storage import run_folder
from tests.conftest import SMALL, command, environment

LIMIT = 30  # seconds from a rank's end to everybody's
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]


def start(tmp_path: Path, launcher: list[str], *overrides: str) -> subprocess.Popen[str]:
    """A run of two ranks that would last long; its output goes to a file."""
    run = [
        "src.train",
        *SMALL,
        "trainer=ddp_cpu",
        "trainer.max_epochs=1000",
        *overrides,
        f"hydra.run.dir={tmp_path}/run",
    ]
    with (tmp_path / "out").open("w") as out:
        return subprocess.Popen(
            [*launcher, *run],
            cwd=tmp_path,
            env=environment(),
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
        )


def processes(run_dir: Path) -> dict[int, str]:
    """Environments of all processes that name the run folder in their command."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(run_dir).encode() in (entry / "cmdline").read_bytes():
                found[int(entry.name)] = (entry / "environ").read_text()
        except OSError:
            continue
    return found


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    while not file.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert file.exists()


def check_the_end(tmp_path: Path, process: subprocess.Popen[str], began: float, words: str) -> None:
    assert process.wait(timeout=LIMIT) != 0
    while processes(tmp_path / "run") and time.monotonic() < began + LIMIT:
        time.sleep(0.1)
    assert not processes(tmp_path / "run")
    metrics = run_folder.read_metrics(tmp_path / "run")
    assert metrics is not None
    assert metrics["status"] == "failed"
    assert words in metrics["error"]
    assert f"error: {metrics['error']}" in (tmp_path / "out").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("launcher", "victim"),
    [
        pytest.param(command(), 1, marks=pytest.mark.slow),
        pytest.param(command(), 0, marks=pytest.mark.slow),
        pytest.param(TORCHRUN, 1, marks=pytest.mark.slow),
        pytest.param(TORCHRUN, 0, marks=pytest.mark.slow),
    ],
)
def test_a_killed_rank_ends_all(tmp_path: Path, launcher: list[str], victim: int) -> None:
    process = start(tmp_path, launcher)
    wait_for(tmp_path / "run" / run_folder.LAST, process)
    ranks = {pid for pid, has in processes(tmp_path / "run").items() if f"LOCAL_RANK={victim}\0" in has}
    began = time.monotonic()
    os.kill(ranks.pop() if ranks else process.pid, signal.SIGKILL)
    check_the_end(tmp_path, process, began, f"rank {victim}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_says_why(tmp_path: Path, rank: int) -> None:
    failing = [f"+callbacks.fail={{_target_: tests.models.observers.OutOfMemory, rank: {rank}}}"]
    process = start(tmp_path, command(), *failing)
    wait_for(tmp_path / "run" / run_folder.METRICS, process)
    check_the_end(tmp_path, process, time.monotonic(), f"rank {rank}: OutOfMemoryError: tried to allocate 20 GiB")
    text = (tmp_path / "out").read_text()
    assert text.count("Traceback") == 1  # that of the rank which failed, not those of the ranks that then missed it


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 2, 5])
def test_fewer_batches_to_evaluate_than_ranks(tmp_path: Path, samples: int) -> None:
    """Every rank takes part in what all do together, also one that has nothing to evaluate; each sample counts once."""
    process = start(
        tmp_path, command(), "trainer.devices=4", "trainer.max_epochs=1", f"data.dataset.val_length={samples}",
        f"data.dataset.test_length={samples}",
    )  # fmt: skip
    try:
        assert process.wait(timeout=240) == 0, (tmp_path / "out").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    metrics = run_folder.read_metrics(tmp_path / "run")
    assert metrics is not None and metrics["status"] == "completed"
    assert "batch norm counts on each rank by itself" in (tmp_path / "out").read_text()
    alone = compose("evaluate", [f"ckpt={tmp_path}/run", "trainer.accelerator=cpu"])
    alone["paths"]["output_dir"] = str(tmp_path / "alone")
    for stage, scores in evaluate(alone).items():
        assert {k: v for k, v in scores.items() if k != "loss"} == {
            k: v for k, v in metrics[stage].items() if k != "loss"
        }
