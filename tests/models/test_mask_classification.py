"""Networks of queries through whole runs: they learn, alone and as a generator, on two devices, and predict."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.storage import run_folder
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import SMALL, settings
from tests.same import curves

LOSS = ["loss=mask_classification", "loss.num_points=256"]
NETWORKS = {
    "mask2former": [
        "network.encoder=test_resnet", "network.num_queries=8", "network.channels=32", "network.heads=2",
        "network.pixel_decoder_layers=1", "network.decoder_layers=2", "network.feedforward=64",
    ],
    "eomt": [
        "network.encoder=test_vit", "network.num_queries=8", "network.num_blocks=2", "network.patch_size=8",
        "network.image_size=32",
    ],
}  # fmt: skip


def overrides(network: str, *more: str) -> list[str]:
    return [f"network={network}", *NETWORKS[network], *LOSS, "optimizer.lr=0.002", "trainer.log_every_n_steps=1", *more]


@pytest.mark.parametrize("network", ["mask2former", pytest.param("eomt", marks=pytest.mark.slow)])
def test_it_learns_and_its_checkpoint_gives_its_scores(network: str, tmp_path: Path) -> None:
    outcome = train(settings(tmp_path / "run", *overrides(network, "trainer.max_epochs=4")))
    losses = [value for _, value in curves(tmp_path / "run")["train/loss"]]
    assert len(losses) == 24
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    assert 0 < outcome.metrics["val"]["loss"] < 3
    model, _ = model_from_checkpoint(tmp_path / "run" / run_folder.BEST)
    image = torch.randint(0, 256, (1, 3, 33, 50), dtype=torch.uint8)
    with torch.inference_mode():
        probability = model.probabilities(image)
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(1, 33, 50))


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [["model=gan", "discriminator.depth=2"], ["model.ema_decay=0.9", "trainer.precision=bf16-mixed"]]
)
@pytest.mark.parametrize("network", NETWORKS)
def test_as_a_generator_and_averaged_in_bf16(network: str, more: list[str], tmp_path: Path) -> None:
    outcome = train(settings(tmp_path / "run", *overrides(network, *more)))
    assert outcome.status == "completed"
    assert 0 < outcome.metrics["test"]["loss"] < 3


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_on_two_devices(network: str, tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Plain DDP, which fails where a parameter gets no gradient."""
    given = overrides(network, "trainer=ddp_cpu", "trainer.devices=2")
    done = run("src.train", *SMALL, *given, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    written: dict[str, Any] = json.loads((tmp_path / "run/metrics.json").read_text())
    assert written["status"] == "completed"
