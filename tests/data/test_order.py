"""Order and resume, proven by what real processes consumed: with loader workers, on two ranks, killed in mid-epoch."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from src.cli.command import compose
from src.optimize import optimize
from src.storage.run_config import trust_in
from src.storage.trust import OWN
from src.train import train
from tests.conftest import SMALL, command, environment, run_config, settings
from tests.data.recorder import Sample, consumed

BATCHES, KILL_AT, SAVED = (
    6,
    11,
    9,
)  # batches an epoch, the batch that is never begun, those that the last checkpoint has
RECORDER = "+callbacks.record={_target_: tests.data.recorder.Recorder, folder: '${paths.output_dir}/record'}"
PLAIN = [
    RECORDER,
    "trainer.max_epochs=3",
    "data.crop=[32,32]",
    "data.cache=null",
    "callbacks.checkpoint.every_n_steps=3",
]
SEMI = ["model.semi=fixmatch", "data.labeled_fraction=1/2"]


def recorded(run_dir: Path, *overrides: str, small: list[str] = SMALL) -> list[list[Sample]]:
    """The samples of each batch of an undisturbed run on one rank, in its own process."""
    config = settings(run_dir, *small, *PLAIN, *overrides, small=False)
    config["callbacks"]["record"]["folder"] = str(run_dir / "record")
    train(config, trust=OWN)
    batches = consumed(run_dir / "record")
    assert [number for number, _ in batches] == list(range(3 * BATCHES))
    return [samples for _, samples in batches]


def start(run_dir: Path, *overrides: str, small: list[str] = SMALL, resume: bool = False) -> int:
    if resume:
        arguments = [f"resume={run_dir}", "trust=tests", *overrides]
    else:
        arguments = [*small, *PLAIN, *overrides, f"hydra.run.dir={run_dir}", f"+callbacks.record.kill_at={KILL_AT}"]
    return subprocess.run(
        command("src.train", *arguments), env=environment(), cwd=run_dir.parent, capture_output=True, timeout=300,
    ).returncode  # fmt: skip


def assert_each_sample_once_an_epoch(batches: list[list[Sample]]) -> None:
    for epoch in range(3):
        names = [name for batch in batches[epoch * BATCHES : (epoch + 1) * BATCHES] for name, _ in batch]
        assert len(names) == len(set(names)) == 24
    assert len({digest for batch in batches for _, digest in batch}) == 3 * 24  # augmented anew each time


def without_kill(run_dir: Path) -> None:
    """So that the resumed run does not die at the same batch."""
    config = run_dir / ".hydra/config.yaml"
    config.write_text(config.read_text().replace(f"kill_at: {KILL_AT}", "kill_at: null"))


@pytest.mark.slow
def test_a_run_killed_in_mid_epoch_goes_on_with_the_next_sample_on_any_number_of_workers(tmp_path: Path) -> None:
    undisturbed = recorded(tmp_path / "undisturbed", "data.num_workers=0")
    assert_each_sample_once_an_epoch(undisturbed)
    run_dir = tmp_path / "killed"
    assert start(run_dir, "data.num_workers=1") == -signal.SIGKILL
    assert [samples for _, samples in consumed(run_dir / "record")] == undisturbed[:KILL_AT]
    without_kill(run_dir)
    resumed = run_config(run_dir, "resume", ["tests"])
    resumed["data"]["num_workers"] = 3
    train(resumed, resume=True, trust=trust_in(run_dir, "resume", ["tests"]))
    after = consumed(run_dir / "record")[KILL_AT:]
    assert after == [*enumerate(undisturbed)][SAVED:]  # neither repeated nor left out, and augmented the same


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labeled", "semi", "streaming"])
def test_two_ranks_share_each_global_batch_and_a_killed_run_goes_on(tmp_path: Path, kind: str) -> None:
    overrides, small = (SEMI if kind == "semi" else []), SMALL
    if kind == "streaming":
        written, chunked = (
            str(tmp_path / "set"),
            ["data=streaming", f"data.root={tmp_path}/set", "data.dataset.window=2"],
        )
        of_shapes = [option for option in SMALL if option.startswith("data.dataset.")]
        optimize(compose("optimize", ["data=shapes", *of_shapes, f"output={written}", "chunk_mb=0.005"]))
        small = [*chunked, *(option for option in SMALL if option not in of_shapes)]
    alone = recorded(tmp_path / "alone", *overrides, small=small)
    run_dir = tmp_path / "two"
    assert start(run_dir, "trainer=ddp_cpu", "data.num_workers=1", *overrides, small=small) != 0
    without_kill(run_dir)
    assert start(run_dir, "data.num_workers=2", resume=True) == 0
    ranks = [consumed(run_dir / "record", rank) for rank in range(2)]
    for batches in ranks:
        assert [number for number, _ in batches] == [*range(KILL_AT), *range(SAVED, 3 * BATCHES)]
        assert {len(samples) for _, samples in batches} == {len(alone[0]) // 2}
    for (number, first), (_, second) in zip(*ranks, strict=True):
        assert sorted(first + second) == sorted(alone[number])
    # 5 validation samples, 2 at a time: one rank has a batch more than the other.
    seen = [consumed(run_dir / "record", rank, "val") for rank in range(2)]
    in_order = [name for _, samples in consumed(tmp_path / "alone/record", 0, "val")[:3] for name, _ in samples]
    assert len(in_order) == len(set(in_order)) == 5
    for epoch in range(3):
        names = [name for batches in seen for number, samples in batches if number == epoch for name, _ in samples]
        assert sorted(names) == sorted(in_order)
