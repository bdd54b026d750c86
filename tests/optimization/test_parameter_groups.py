"""Parameter groups: every trainable parameter once, in the right one; every `conf/optimizer` takes them."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from src.errors import UserError
from src.networks.torchvision_models import fcn
from src.optimization.parameter_groups import parameter_groups
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))


class Network(nn.Module):
    def __init__(self, with_encoder: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.decoder = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Conv2d(4, 2, 1)
        self.head_again = self.head  # shared: must not be there twice
        self.with_encoder = with_encoder

    @property
    def encoder(self) -> nn.Module | None:
        return self.backbone if self.with_encoder else None


def by_name(network: nn.Module, groups: list[dict[str, Any]]) -> dict[str, list[str]]:
    names = {id(p): name for name, p in network.named_parameters()}
    return {group["name"]: [names[id(p)] for p in group["params"]] for group in groups}


def test_groups_rates_and_decay() -> None:
    network = Network()
    groups = parameter_groups(network, 0.1, 0.01, encoder_lr_factor=0.2, decay_norm_and_bias=False)
    assert by_name(network, groups) == {
        "encoder": ["backbone.0.weight"],
        "encoder_no_decay": ["backbone.0.bias", "backbone.1.weight", "backbone.1.bias"],
        "head": ["decoder.weight", "head.weight"],
        "head_no_decay": ["head.bias"],
    }
    assert [g["lr"] for g in groups] == pytest.approx([0.02, 0.02, 0.1, 0.1])
    assert [g["weight_decay"] for g in groups] == [0.01, 0.0, 0.01, 0.0]


@pytest.mark.parametrize("with_encoder", [True, False])
@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
def test_every_trainable_parameter_once(with_encoder: bool, decay_norm_and_bias: bool) -> None:
    network = Network(with_encoder)
    network.backbone[0].requires_grad_(False)
    groups = parameter_groups(network, 0.1, 0.01, 0.5, decay_norm_and_bias)
    listed = [id(p) for g in groups for p in g["params"]]
    assert sorted(listed) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    assert all(g["params"] for g in groups)


def test_without_an_encoder_all_is_head() -> None:
    network = Network(with_encoder=False)
    groups = parameter_groups(network, 0.1, 0.01, encoder_lr_factor=0.2)
    assert list(by_name(network, groups)) == ["head"]
    assert groups[0]["lr"] == 0.1
    assert [g["name"] for g in parameter_groups(nn.Linear(2, 2), 0.1, 0.0)] == ["head"]


def test_a_frozen_encoder_has_no_group() -> None:
    network = Network()
    network.backbone.requires_grad_(False)
    assert list(by_name(network, parameter_groups(network, 0.1, 0.01))) == ["head"]


def test_layer_decay_gives_each_layer_of_the_encoder_its_rate() -> None:
    network = Network()
    network.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    groups = parameter_groups(network, 0.1, 0.01, 0.5, False, layer_decay=0.8)
    assert by_name(network, groups) == {
        "encoder_layer_01": ["backbone.0.weight"],
        "encoder_layer_01_no_decay": ["backbone.0.bias"],
        "encoder_layer_02_no_decay": ["backbone.1.weight", "backbone.1.bias"],
        "head": ["decoder.weight", "head.weight"],
        "head_no_decay": ["head.bias"],
    }
    assert [g["lr"] for g in groups] == pytest.approx([0.05 * 0.64, 0.05 * 0.64, 0.05 * 0.8, 0.1, 0.1])


def test_layer_decay_of_1_or_none_changes_no_group() -> None:
    network = Network()
    plain = parameter_groups(network, 0.1, 0.01, 0.5, False)
    for layer_decay in (None, 1.0):
        assert parameter_groups(network, 0.1, 0.01, 0.5, False, layer_decay) == plain


def test_layer_decay_without_an_encoder_is_refused_but_a_discriminator_has_none() -> None:
    with pytest.raises(UserError, match=r"optimizer\.layer_decay: this network has no encoder that learns"):
        parameter_groups(Network(with_encoder=False), 0.1, 0.01, layer_decay=0.8)
    assert [g["name"] for g in parameter_groups(nn.Linear(2, 2), 0.1, 0.0, layer_decay=0.8)] == ["head"]


def test_nothing_to_train_is_the_users_error() -> None:
    with pytest.raises(UserError, match="every parameter is frozen"):
        parameter_groups(Network().requires_grad_(False), 0.1, 0.01)


def test_every_optimizer_is_configured() -> None:
    assert {p.stem for p in CONFIGS} == {"adam", "adam_gan", "adamw", "rmsprop", "sgd"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configured_optimizers_take_the_groups(path: Path) -> None:
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    factor, decay = config.pop("encoder_lr_factor"), config.pop("decay_norm_and_bias")
    layer_decay = config.pop("layer_decay")
    others = [config.pop(key) for key in ("layer_decay_counts", "aux_lr_factor", "no_decay")]
    assert set(config) - {"_target_"} <= set(inspect.signature(get_class(config._target_)).parameters)
    network = Network()
    groups = parameter_groups(network, config.lr, config.weight_decay, factor, decay, layer_decay, *others)
    optimizer = instantiate(config, params=groups, _convert_="all")
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.head(network.decoder(network.backbone(torch.rand(2, 3, 5, 5)))).square().sum().backward()
    optimizer.step()
    assert [g["name"] for g in optimizer.param_groups] == [g["name"] for g in groups]
    assert all((p != before[name]).any() for name, p in network.named_parameters() if p.grad is not None)


def test_what_does_not_decay_by_name_and_by_kind() -> None:
    network = nn.Sequential(OrderedDict(first=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4), aux=nn.GroupNorm(2, 4)))
    spared = parameter_groups(network, 0.1, 0.01, no_decay=["norms", r"^first\.b"])[-1]
    assert spared["name"] == "head_no_decay" and spared["weight_decay"] == 0
    assert [p.ndim for p in spared["params"]] == [1] * 5  # the convolution's bias, and two of each norm
    (group,) = parameter_groups(network, 0.1, 0.01, decay_norm_and_bias=False, no_decay=[])
    assert group["weight_decay"] == 0.01 and len(group["params"]) == 6
    with pytest.raises(UserError, match=r"optimizer\.no_decay: '\(' is no regular expression"):
        parameter_groups(network, 0.1, 0.01, no_decay=["("])


def test_heads_that_only_train_have_a_rate_of_their_own() -> None:
    network = fcn(4, encoder="resnet50", aux=True)
    groups = parameter_groups(network, 0.1, 0.01, aux_lr_factor=10.0)
    assert [(g["name"], g["lr"]) for g in groups] == [("encoder", 0.1), ("head", 0.1), ("aux", 1.0)]
    assert {id(p) for p in groups[-1]["params"]} == {id(p) for p in network.core.model.aux_classifier.parameters()}  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"optimizer\.aux_lr_factor: the network has no head that only trains; set"):
        parameter_groups(fcn(4, encoder="resnet50", aux=False), 0.1, 0.01, aux_lr_factor=10.0)
