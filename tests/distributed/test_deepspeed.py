"""DeepSpeed's sharding gives one device's training, from checkpoints that any other strategy reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from src.distributed import deepspeed
from src.distributed.deepspeed import ZeroStrategy
from src.errors import UserError
from src.storage import run_folder
from tests.conftest import SMALL, command, environment
from tests.same import assert_same_end, state

Run = Callable[..., subprocess.CompletedProcess[str]]
SAME = [
    *SMALL, "model.batch_norm=frozen", "optimizer=adamw", "optimizer.eps=0.01", "model.ema_decay=0.9",
    "trainer.gradient_clip_val=0.5", "trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=1",
]  # fmt: skip
ZERO = ["trainer=deepspeed", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=false"]


class Sizes(L.Callback):
    """Writes how many numbers this rank's optimizer keeps, and how many it would keep unsharded."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        kept = sum(v.numel() for state in trainer.optimizers[0].state.values() for v in state.values() if v.ndim)
        weights = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        Path(f"sizes{trainer.global_rank}.json").write_text(json.dumps([kept, 2 * weights]))


def assert_close(run_dir: Path, other: Path) -> None:
    """The same run but for the order in which gradients are added."""
    ours, theirs = state(run_dir), state(other)
    assert ours["global_step"] == theirs["global_step"]
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    for key, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][key], value, rtol=1e-3, atol=1e-5)
    (own,), (expected,) = ours["optimizer_states"], theirs["optimizer_states"]
    assert own["param_groups"] == expected["param_groups"]
    assert own["state"].keys() == expected["state"].keys()
    for number, entries in expected["state"].items():
        for key, value in entries.items():
            torch.testing.assert_close(own["state"][number][key], value, rtol=1e-3, atol=1e-5)
    norms = (ours["segmenter"]["gradient_norms"], theirs["segmenter"]["gradient_norms"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_without_deepspeed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise ImportError("No module named 'deepspeed'")

    monkeypatch.setattr(deepspeed, "find_spec", lambda _: None)
    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UserError, match=r"pip install -e \"\.\[deepspeed\]\""):
        ZeroStrategy()


@pytest.mark.slow
def test_shards_train_as_one_device(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    sizes = "+callbacks.sizes={_target_: tests.distributed.test_deepspeed.Sizes}"
    for name, more in (("single", []), ("sharded", [*ZERO, sizes])):
        result = run("src.train", *SAME, *more, f"hydra.run.dir={tmp_path}/{name}")
        assert result.returncode == 0, result.stderr
    assert_close(tmp_path / "sharded", tmp_path / "single")
    kept = [json.loads((tmp_path / f"sizes{rank}.json").read_text()) for rank in (0, 1)]
    assert all(own < 0.6 * whole for own, whole in kept), kept


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["trainer.zero_stage=1", "trainer.offload=true"]])
def test_a_killed_run_goes_on_to_the_same_bits_and_on_one_device(run: Run, tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip("deepspeed")
    undisturbed, killed, elsewhere = tmp_path / "undisturbed", tmp_path / "killed", tmp_path / "elsewhere"
    all_options = [*SAME, *ZERO, *options, "trainer.max_epochs=6", "callbacks.checkpoint.every_n_steps=1"]
    assert run("src.train", *all_options, f"hydra.run.dir={undisturbed}").returncode == 0
    started = subprocess.Popen(
        command("src.train", *all_options, f"hydra.run.dir={killed}"), cwd=tmp_path, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 200
    while not (killed / run_folder.LAST).is_file() and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert 0 < state(killed)["global_step"] < state(undisturbed)["global_step"]
    shutil.copytree(killed, elsewhere)
    assert run("src.train", f"resume={killed}").returncode == 0
    assert_same_end(killed, undisturbed)
    result = run("src.train", f"resume={elsewhere}", "trainer.strategy=auto", "trainer.devices=1")
    assert result.returncode == 0, result.stderr
    assert_close(elsewhere, undisturbed)
