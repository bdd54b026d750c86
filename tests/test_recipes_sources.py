"""Each published recipe against its source: rates, parameter groups, crops, classes, normalisation and the score, each computed
here from its definition."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import PolynomialLR

from src.cli.command import compose
from src.cli.request import written_out
from src.config.moved import RECIPES as EARLIER
from src.metrics.confusion import ConfusionMatrix, scores
from src.networks.encoders import encoder_name
from src.networks.weights import pixel_statistics
from src.optimization.parameter_groups import parameter_groups
from tests.conftest import ROOT

# mmsegmentation: steps, batch, crop, the head's rate, decay, (warm-up, start factor), power, eta_min, the auxiliary weight.
MMSEG: dict[str, tuple[int, int, list[int], float, float, tuple[int, float] | None, float, float, float | None]] = {
    "ade20k_segformer_b0": (160000, 16, [512, 512], 6e-4, 0.01, (1500, 1e-6), 1.0, 0.0, None),
    "ade20k_upernet_swin_t": (160000, 16, [512, 512], 6e-5, 0.01, (1500, 1e-6), 1.0, 0.0, 0.4),
    "cityscapes_deeplabv3plus_r50": (80000, 8, [512, 1024], 0.01, 5e-4, None, 0.9, 1e-4, 0.4),
    "cityscapes_segformer_b0": (160000, 8, [1024, 1024], 6e-4, 0.01, (1500, 1e-6), 1.0, 0.0, None),
    "cityscapes_pidnet_s": (120000, 12, [1024, 1024], 0.01, 5e-4, None, 0.9, 0.0, None),
    "cityscapes_mask2former_r50": (90000, 16, [512, 1024], 1e-4, 0.05, None, 0.9, 0.0, None),
    "cocostuff_segformer_b0": (80000, 16, [512, 512], 6e-4, 0.01, (1500, 1e-6), 1.0, 0.0, None),
    "loveda_deeplabv3plus_r50": (80000, 16, [512, 512], 0.01, 5e-4, None, 0.9, 1e-4, 0.4),
    "potsdam_deeplabv3plus_r50": (80000, 16, [512, 512], 0.01, 5e-4, None, 0.9, 1e-4, 0.4),
    "voc_deeplabv3plus_r50_aug": (20000, 16, [512, 512], 0.01, 5e-4, None, 0.9, 1e-4, 0.4),
    "voc_deeplabv3plus_r101_aug": (20000, 16, [512, 512], 0.01, 5e-4, None, 0.9, 1e-4, 0.4),
    "voc_fcn_r50": (20000, 16, [512, 512], 0.01, 5e-4, None, 0.9, 1e-4, 0.4),
}
OTHERS = ("ade20k_dinov3_linear", "ade20k_eomt_l_dinov2", "cityscapes_eomt_l", "coco_deeplabv3_torchvision", "voc_cps")
# UniMatch V2: unlabelled images, epochs, batch on each of 4 GPUs, crop.
UNIMATCH_V2 = {
    "voc_unimatch_v2": (10490, 60, 4, 518),
    "cityscapes_unimatch_v2": (2603, 180, 2, 798),
    "ade20k_unimatch_v2": (19894, 60, 2, 518),
}


@functools.cache
def recipe(name: str) -> dict[str, Any]:
    return compose("train", [f"experiment={name}", "data.root=/none"])


def shapes(name: str, steps: int, groups: dict[str, float]) -> list[Callable[[int], float]]:
    """The rate of each group by the step, as the recipe's schedule has it."""
    optimizer = SGD([{"name": n, "params": [nn.Parameter(torch.zeros(1))], "lr": lr} for n, lr in groups.items()])
    schedule = instantiate(recipe(name)["scheduler"], optimizer=optimizer, total_steps=steps)
    pairs = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    return [functools.partial(_product, rate, shape) for rate, shape in pairs]


def _product(rate: float, shape: Callable[[int], float], step: int) -> float:
    return rate * shape(step)


def test_every_recipe_of_a_source_is_here() -> None:
    public = ("ade20k_", "cityscapes_", "coco", "loveda_", "potsdam_", "voc_")
    there = {path.stem for path in (ROOT / "conf/experiment").glob("*.yaml") if path.stem.startswith(public)}
    assert there == {*MMSEG, *OTHERS, *UNIMATCH_V2}


def test_earlier_names_go_on_working() -> None:
    assert written_out(["experiment=voc_fcn,camvid_cnn"]) == ["experiment=voc_fcn_r50,camvid_cnn"]
    for earlier, now in EARLIER.items():
        assert compose("train", [f"experiment={earlier}", "data.root=/none"]) == recipe(now)


class TestRates:
    @pytest.mark.parametrize("name", MMSEG)
    def test_mmengines(self, name: str) -> None:
        """LinearLR and PolyLR by their recursions: each step's rate out of the last one's."""
        steps, _, _, peak, _, warmup, power, least, _ = MMSEG[name]
        begin = warmup[0] if warmup else 0
        expected = []
        rate = peak
        for step in range(steps):
            if warmup and step < begin:  # LinearLR(begin=0, end=begin), end_factor 1
                start, count = warmup[1], begin - 1
                rate *= start if step == 0 else 1 + (1 - start) / (count * start + (step - 1) * (1 - start))
            elif step > begin:  # PolyLR(begin=begin, end=steps)
                count = steps - begin - 1
                rate = (rate - least) * (1 - 1 / (count - (step - begin) + 1)) ** power + least
            expected.append(rate)
        (ours,) = shapes(name, recipe(name)["trainer"]["max_steps"], {"head": recipe(name)["optimizer"]["lr"]})
        for step in (0, 1, 7, 750, 1498, 1499, 1500, 1501, steps // 2, steps - 1000, steps - 2, steps - 1):
            assert ours(step) == pytest.approx(expected[step], rel=1e-6, abs=1e-12), step

    def test_torchvisions(self) -> None:
        optimizer = SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.02, 0.2)])
        theirs = PolynomialLR(optimizer, total_iters=300, power=0.9)
        ours = shapes("coco_deeplabv3_torchvision", 300, {"encoder": 0.02, "aux": 0.2})
        for step in range(300):
            assert [one(step) for one in ours] == pytest.approx([g["lr"] for g in optimizer.param_groups], rel=1e-9)
            optimizer.step()
            theirs.step()

    @pytest.mark.parametrize("name", UNIMATCH_V2)
    def test_unimatchs(self, name: str) -> None:
        """The decoder's rate is 40 times the encoder's; each GPU's share is filled up, and its last batch left out."""
        images, epochs, batch, crop = UNIMATCH_V2[name]
        config = recipe(name)
        steps = math.ceil(images / 4) // batch * epochs
        assert config["trainer"]["max_steps"] == steps
        assert (config["data"]["batch_size"], config["data"]["crop"]) == (4 * batch, [crop, crop])
        peak = config["optimizer"]["lr"]
        rates = {"head": peak, "encoder": peak * config["optimizer"]["encoder_lr_factor"]}
        for ours, rate in zip(shapes(name, steps, rates), (40 * 5e-6, 5e-6), strict=True):
            for step in (0, 1, steps // 2, steps - 1):
                assert ours(step) == pytest.approx(rate * (1 - step / steps) ** 0.9, rel=1e-9), step

    def test_cps(self) -> None:
        config = recipe("voc_cps")
        steps = math.ceil((10582 - 10582 // 8) // 8) * 34  # niters_per_epoch, nepochs
        assert config["trainer"]["max_steps"] == steps
        (ours,) = shapes("voc_cps", steps, {"head": config["optimizer"]["lr"]})
        for step in (0, steps // 2, steps - 1):
            assert ours(step) == pytest.approx(4 * 0.0025 * (1 - step / steps) ** 0.9, rel=1e-9)

    @pytest.mark.parametrize("name", ["ade20k_eomt_l_dinov2", "cityscapes_eomt_l"])
    def test_eomts(self, name: str) -> None:
        total = 39153 if name.startswith("ade") else 19795

        def expected(step: int, encoder: bool) -> float:
            wait, rise = (500, 1000) if encoder else (0, 500)
            if step < wait + rise:
                return 1e-4 * max(0, step - wait) / rise
            return float(1e-4 * (1 - (step - wait - rise) / (total - wait - rise)) ** 0.9)

        encoder, head = shapes(name, total, {"encoder_layer_03": 1e-4, "head": 1e-4})
        for step in (0, 1, 250, 499, 500, 501, 999, 1499, 1500, 1501, total // 2, total - 1, total):
            assert encoder(step) == pytest.approx(expected(step, True), rel=1e-9, abs=1e-15), step
            assert head(step) == pytest.approx(expected(step, False), rel=1e-9, abs=1e-15), step

    def test_dinov3s(self) -> None:
        """WarmupOneCycleLR is stepped from the second step on, and its cosine is one step ahead: together it is in time."""

        def expected(step: int) -> float:
            done = max(step - 1, 0)
            if done < 1500:
                return float(1e-3 * (1 - (1 - done / 1500) * (1 - 1e-6)) * (1 - done / 40000))
            return 1e-3 * (1 + math.cos(math.pi * (done + 1) / 40000)) / 2

        (ours,) = shapes("ade20k_dinov3_linear", 40000, {"head": 1e-3})
        for step in (1501, 1502, 20000, 39998, 39999):
            assert ours(step) == pytest.approx(expected(step), rel=1e-9, abs=1e-15)
        for step in range(1501):  # what the recipe's head says of the warm-up
            assert abs(ours(step) - expected(step)) <= 3.5e-2 * ours(step) + 1e-3 / 1500


class TestGroups:
    def groups(self, name: str, *small: str) -> Iterator[tuple[str, nn.Module, Tensor, float, float]]:
        """Each parameter's name, the module that it is of, itself, its rate and its decay, in the recipe's network."""
        config = compose("train", [f"experiment={name}", "data.root=/none", "network.encoder_weights=null", *small])
        network = instantiate(config["network"], num_classes=7, in_channels=3)
        keys = (
            "encoder_lr_factor",
            "decay_norm_and_bias",
            "layer_decay",
            "layer_decay_counts",
            "aux_lr_factor",
            "no_decay",
        )
        optimizer = config["optimizer"]
        given = {key: optimizer[key] for key in keys}
        found = parameter_groups(network, optimizer["lr"], optimizer["weight_decay"], **given)
        of = {id(p): (group["lr"], group["weight_decay"]) for group in found for p in group["params"]}
        for prefix, module in network.named_modules():
            for key, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:
                    yield f"{prefix}.{key}", module, parameter, *of[id(parameter)]

    @pytest.mark.parametrize("name", ["cityscapes_segformer_b0", "ade20k_segformer_b0", "cocostuff_segformer_b0"])
    def test_segformers(self, name: str) -> None:
        """custom_keys: `head` ten times the rate; `norm` no decay, in the backbone but for those behind a stage."""
        for key, module, _, lr, decay in self.groups(name):
            inside = key.startswith("core.encoder.")
            behind = key.split(".")[2] in ("norm1", "norm2", "norm3", "norm4")
            bare = inside and isinstance(module, nn.LayerNorm) and not behind
            assert [lr, decay] == pytest.approx([6e-5 if inside else 6e-4, 0.0 if bare else 0.01]), key

    def test_swins(self) -> None:
        small = ["network.decoder_channels=32", "network.aux_channels=8"]
        seen = set()
        for key, module, _, lr, decay in self.groups("ade20k_upernet_swin_t", *small):
            norm = isinstance(module, nn.LayerNorm)
            bare = norm or "relative_position_bias_table" in key
            seen.add((norm, bare))
            assert [lr, decay] == pytest.approx([6e-5, 0.0 if bare else 0.01]), key
        assert seen == {(True, True), (False, True), (False, False)}

    def test_mask2formers(self) -> None:
        small = ["network.encoder=test_resnet", "network.channels=64", "network.pixel_decoder_layers=1",
                 "network.decoder_layers=2", "network.feedforward=64", "network.num_queries=19"]  # fmt: skip
        norms = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
        for key, module, _, lr, decay in self.groups("cityscapes_mask2former_r50", *small):
            embedding = any(
                part in key for part in ("queries_embedder", "queries_features", "transformer_module.level_embed")
            )
            inside = "pixel_level_module.encoder" in key
            bare = isinstance(module, norms) or embedding
            assert [lr, decay] == pytest.approx([1e-5 if inside else 1e-4, 0.0 if bare else 0.05]), key

    @pytest.mark.parametrize("name", ["ade20k_eomt_l_dinov2", "cityscapes_eomt_l"])
    def test_eomts(self, name: str) -> None:
        """llrd: 0.8 to the power of the blocks above; the embedding as the first block, the last norm and the head at 1."""
        small = ["network.encoder=test_vit", "network.image_size=32", "network.num_blocks=2", "network.num_queries=9"]
        rows = list(self.groups(name, *small))
        depth = 1 + max(int(key.split(".")[3]) for key, *_ in rows if key.startswith("core.model.layers."))
        for key, _, _, lr, decay in rows:
            parts = key.split(".")
            above = depth - 1 - int(parts[3]) if parts[2] == "layers" else depth - 1 if parts[2] == "embeddings" else 0
            assert [lr, decay] == pytest.approx([1e-4 * 0.8**above, 0.05]), key

    def test_torchvisions(self) -> None:
        for key, _, _, lr, decay in self.groups("coco_deeplabv3_torchvision", "network.encoder=mobilenet_v3_large"):
            assert [lr, decay] == pytest.approx([0.2 if "aux_classifier" in key else 0.02, 1e-4]), key

    def test_dinov3s(self) -> None:
        rows = list(self.groups("ade20k_dinov3_linear", "network.encoder=vit_tiny_patch16_224"))
        assert len(rows) == 4 and all(row[3:] == (1e-3, 1e-3) for row in rows)

    @pytest.mark.parametrize("name", [n for n in MMSEG if recipe(n)["optimizer"]["_target_"].endswith("SGD")])
    def test_sgd_decays_everything_alike(self, name: str) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        optimizer = recipe(name)["optimizer"]
        assert optimizer["decay_norm_and_bias"] and optimizer["no_decay"] is None and optimizer["momentum"] == 0.9
        (group,) = parameter_groups(network, optimizer["lr"], optimizer["weight_decay"], optimizer["encoder_lr_factor"])
        assert (group["lr"], group["weight_decay"]) == (0.01, 5e-4)


class TestSettings:
    @pytest.mark.parametrize("name", MMSEG)
    def test_mmsegmentations(self, name: str) -> None:
        steps, batch, crop, rate, decay, _, _, _, aux = MMSEG[name]
        config = recipe(name)
        optimizer, augment = config["optimizer"], config["data"]["augment"]
        assert (config["trainer"]["max_steps"], config["data"]["batch_size"], config["data"]["crop"]) == (
            steps,
            batch,
            crop,
        )
        assert (optimizer["lr"], optimizer["weight_decay"]) == (rate, decay)
        assert (augment["max_class_share"], augment["flip"], augment["vertical_flip"], augment["quarter_turns"]) == (
            0.75,
            0.5,
            0,
            0,
        )
        assert config["model"]["ema_decay"] is None and config["model"]["batch_norm"] == "train"
        if aux is not None:
            assert config["network"]["aux"] and config["model"]["aux_weight"] == aux

    @pytest.mark.parametrize("name", [*MMSEG, *OTHERS, *UNIMATCH_V2])
    def test_normalisation(self, name: str) -> None:
        """In units of 255. torchvision's and PIDNet have these for good; for MiT smp asks its hub, the test does not."""
        network = recipe(name)["network"]
        known = str(network.get("encoder", ""))
        fixed = "torchvision" in network["_target_"] or "pidnet" in network["_target_"] or known == "mit_b0"
        encoder = "resnet50" if fixed else encoder_name(known)
        mean, std = pixel_statistics(encoder, None if fixed else network["encoder_weights"])
        assert [255 * m for m in mean] == pytest.approx([123.675, 116.28, 103.53])
        assert [255 * s for s in std] == pytest.approx([58.395, 57.12, 57.375])


def intersect_and_union(prediction: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """mmsegmentation's: histograms of what is right, of the prediction and of the label, where the label counts."""
    counted = label != 255
    prediction, label = prediction[counted].float(), label[counted].float()
    right, areas = prediction[prediction == label], []
    for values in (right, prediction, label):
        areas.append(torch.histc(values, bins=classes, min=0, max=classes - 1))
    return areas[0], areas[1] + areas[2] - areas[0]


@pytest.mark.parametrize("classes", [2, 19, 150])
def test_the_score_is_theirs(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    metric, ious = ConfusionMatrix(classes), torch.zeros(2, classes, dtype=torch.float64)
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for _ in range(3):
        label = torch.randint(0, classes, (2, 61, 47), generator=generator)
        noise = torch.randint(0, classes, label.shape, generator=generator)
        prediction = torch.where(torch.rand(label.shape, generator=generator) < 0.6, label, noise)
        label[torch.rand(label.shape, generator=generator) < 0.1] = 255
        metric.update(prediction, label)
        ious += torch.stack(intersect_and_union(prediction, label, classes))
        known = label < classes  # torchvision's ConfusionMatrix
        counts += torch.bincount(classes * label[known] + prediction[known], minlength=classes**2).view(
            classes, classes
        )
    ours = scores(metric.compute(), [f"c{k}" for k in range(classes)])
    assert torch.equal(metric.compute(), counts)
    assert ours["miou"] == pytest.approx(float(np.nanmean((ious[0] / ious[1]).numpy())), abs=1e-12)
    cells = counts.double()
    theirs = cells.diag() / (cells.sum(1) + cells.sum(0) - cells.diag())
    assert ours["miou"] == pytest.approx(float(theirs.mean()), abs=1e-12)
