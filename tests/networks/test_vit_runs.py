"""Whole runs over a plain ViT: what is frozen keeps its bits, adapters and layer rates survive a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from src.errors import UserError
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
    (optimizer,) = outcome.model.trainer.optimizers
    assert {group["name"].partition("_")[0] for group in optimizer.param_groups} == {"head"}

    content = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    own, averaged = (
        (content[key] for key in sorted(k for k in content if k.endswith("encoder.model.cls_token")))
        if (network == VIT[:2])
        else (content["network.core.encoder.conv1.weight"], content["ema.module.core.encoder.conv1.weight"])
    )
    assert own.data_ptr() == averaged.data_ptr()  # in the file too they are there once
    model, _ = model_from_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in first.items() if key in encoder)


def test_adapters_and_layer_rates_go_on_where_a_run_ended(tmp_path: Path) -> None:
    options = [
        *VIT, "network.lora.rank=4", "network.lora.alpha=8", "optimizer=adamw", "optimizer.layer_decay=0.5",
        "network.drop_path=0.2", "network.gradient_checkpointing=true",
    ]  # fmt: skip
    whole = train(settings(tmp_path / "whole", *options, "trainer.max_epochs=2")).model
    (optimizer,) = whole.trainer.optimizers
    rates = {group["name"]: group["initial_lr"] for group in optimizer.param_groups}
    assert rates["head"] == 2 * rates["encoder_layer_06"] == 64 * rates["encoder_layer_01"]
    assert "encoder_layer_00" not in rates  # the embedding is frozen

    cut = tmp_path / "cut"
    train(settings(cut, *options, "trainer.max_epochs=2", "trainer.max_steps=8"))
    model, _ = model_from_checkpoint(cut / "checkpoints/last.ckpt")
    adapters = {key: value for key, value in model.state_dict().items() if key.endswith("lora_b")}
    assert len(adapters) == 2 * 12
    assert all(value.any() for value in adapters.values())


def test_layer_decay_where_nothing_of_the_encoder_learns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"optimizer\.layer_decay: this network has no encoder that learns"):
        train(settings(tmp_path, *VIT, "network.freeze=encoder", "optimizer.layer_decay=0.8"))
