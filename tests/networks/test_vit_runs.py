"""Whole runs over a plain ViT: what is frozen keeps its bits, adapters and layer rates survive a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from src.train import train
from src.training.build import build_data, build_model, model_from_checkpoint
from tests.conftest import settings

VIT = ["network=linear", "network.encoder=test_vit", "test=false", "~logger", "model.ema_decay=0.9"]


def before(start: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights that a run of these settings begins with."""
    datamodule = build_data(start["data"], 42)
    source = datamodule.source("train")
    model = build_model(start, datamodule.label_set, source.channels, source.intensity)
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "network",
    [VIT[:2], ["network=unet", "network.encoder=resnet18", "network.decoder_channels=[8,8,8,8,8]", "data.crop=null"]],
    ids=["vit", "resnet"],
)
def test_a_frozen_encoder_keeps_its_bits_and_statistics(tmp_path: Path, network: list[str]) -> None:
    start = settings(tmp_path, *VIT, *network, "network.freeze=encoder", "trainer.max_epochs=1")
    first = before(start)
    outcome = train(start)
    encoder = {key for key in first if ".core.encoder." in key}
    assert {key.partition(".")[0] for key in encoder} == {"network", "ema"}
    state = outcome.model.state_dict()
    assert all(torch.equal(state[key], first[key]) for key in encoder)
    assert any(not torch.equal(state[key], first[key]) for key in state.keys() - encoder if key.startswith("network."))
    content = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    groups = content["optimizer_states"][0]["param_groups"]
    assert {group["name"].partition("_")[0] for group in groups} == {"head"}
    model, _ = model_from_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in first.items() if key in encoder)


def test_a_checkpoint_keeps_adapters_and_the_rates_of_layers(tmp_path: Path) -> None:
    options = [
        *VIT, "network.lora.rank=4", "network.lora.alpha=8", "optimizer=adamw", "optimizer.layer_decay=0.5",
        "network.drop_path=0.2", "network.gradient_checkpointing=true", "trainer.max_epochs=1",
    ]  # fmt: skip
    train(settings(tmp_path, *options))
    file = tmp_path / "checkpoints/last.ckpt"
    groups = torch.load(file, weights_only=True)["optimizer_states"][0]["param_groups"]
    rates = {group["name"]: group["initial_lr"] for group in groups}
    assert rates["head"] == 2 * rates["encoder_layer_06"] == 64 * rates["encoder_layer_01"]
    assert "encoder_layer_00" not in rates  # the embedding is frozen
    model, _ = model_from_checkpoint(file)
    adapters = {key: value for key, value in model.state_dict().items() if key.endswith("lora_b")}
    assert len(adapters) == 2 * 12  # the network's and its average's
    assert all(value.any() for value in adapters.values())
