"""Each published recipe runs from its command to its metrics, on a tiny data set in the official layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from src.cli.command import compose
from src.networks.base import SegmentationNetwork
from src.train import train
from src.training.build import build_data, make
from tests.conftest import settings
from tests.data.formats.test_isprs import make_potsdam
from tests.data.formats.test_public import ade20k, cocostuff, loveda
from tests.data.layouts import cityscapes, coco, voc

# Seconds instead of days: another size of network, crop and batch, one epoch of two batches.
SHORT = [
    "trainer=cpu", "trainer.max_epochs=1", "trainer.max_steps=2", "trainer.limit_train_batches=2", "callbacks.pictures=null",
    "callbacks.dashboard=null",  # whose confusion matrix of 150 classes takes its time
    "trainer.check_val_every_n_epoch=1", "data.batch_size=2", "data.crop=[32,32]", "data.num_workers=0",
    "data.eval_batch_size=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
    "network.encoder_weights=null", "trainer.precision=32-true",
]  # fmt: skip
_COCO = (
    "person", "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorcycle", "potted plant", "sheep", "couch", "train", "tv",
)  # fmt: skip
# A ViT of timm's that is tiny, and warm-ups that fit into two steps.
_EOMT = [
    "network.encoder=test_vit", "network.image_size=32", "network.num_queries=19", "network.num_blocks=2",
    "loss.num_points=64", "scheduler.warmup_steps=0",
]  # fmt: skip
# A published list's lines, of names that these data sets have.
_LISTS = {
    "voc": "JPEGImages/{0}.jpg SegmentationClass/{0}.png",
    "cityscapes": "leftImg8bit/train/{1}/{0}_leftImg8bit.png gtFine/train/{1}/{0}_gtFine_labelTrainIds.png",
    "ade20k": "images/training/{0}.jpg annotations/training/{0}.png",
}
_DPT = ["network.encoder=vit_tiny_patch16_224", "network.decoder_channels=16", "network.layers=null"]
RECIPES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "cityscapes_deeplabv3plus_r50": (lambda root: cityscapes(root, 4), ["network.encoder=resnet18"]),
    "cityscapes_segformer_b0": (lambda root: cityscapes(root, 4), ["scheduler.warmup_steps=1"]),
    "cityscapes_mask2former_r50": (
        lambda root: cityscapes(root, 4),
        [
            "network.encoder=test_resnet", "network.channels=64", "network.pixel_decoder_layers=1", "network.decoder_layers=2",
            "network.feedforward=64", "network.num_queries=19", "loss.num_points=64",
        ],
    ),
    "cityscapes_pidnet_s": (lambda root: cityscapes(root, 4), []),
    "cityscapes_eomt_l": (lambda root: cityscapes(root, 4), _EOMT),
    "voc_fcn_r50": (lambda root: voc(root, 4), []),
    "voc_deeplabv3plus_r50_aug": (lambda root: voc(root, 4), ["network.encoder=resnet18"]),
    "voc_deeplabv3plus_r101_aug": (lambda root: voc(root, 4), ["network.encoder=resnet18"]),
    "ade20k_segformer_b0": (lambda root: ade20k(root, 4), ["scheduler.warmup_steps=1"]),
    "ade20k_upernet_swin_t": (
        lambda root: ade20k(root, 4),
        ["scheduler.warmup_steps=1", "network.encoder=convnext_atto", "network.decoder_channels=32"],
    ),
    "ade20k_eomt_l_dinov2": (lambda root: ade20k(root, 4), _EOMT),
    "ade20k_dinov3_linear": (
        lambda root: ade20k(root, 4), ["scheduler.warmup_steps=1", "network.encoder=vit_tiny_patch16_224"]
    ),
    "voc_unimatch_v2": (lambda root: voc(root, 4), _DPT),
    "voc_cps": (lambda root: voc(root, 4), ["network.encoder=resnet18"]),
    "cityscapes_unimatch_v2": (lambda root: cityscapes(root, 4), _DPT),
    "ade20k_unimatch_v2": (lambda root: ade20k(root, 4), _DPT),
    "cocostuff_segformer_b0": (lambda root: cocostuff(root, count=4), ["scheduler.warmup_steps=1"]),
    "loveda_deeplabv3plus_r50": (lambda root: loveda(root, 4), ["network.encoder=resnet18"]),
    "potsdam_deeplabv3plus_r50": (
        make_potsdam,
        ["network.encoder=resnet18", "data.dataset.tile=[64,64]", "data.dataset.eval_window=64",
         "data.dataset.eval_overlap=32"],
    ),
    "coco_deeplabv3_torchvision": (
        lambda root: coco(root, 4, names=_COCO),
        ["network.encoder=mobilenet_v3_large", "data.dataset.min_area=100"],
    ),
}  # fmt: skip


# Of the same data and the same kind of network as one that is always tested.
LIKE_OTHERS = {
    "voc_fcn_r50", "voc_deeplabv3plus_r50_aug", "voc_deeplabv3plus_r101_aug", "cocostuff_segformer_b0", "ade20k_segformer_b0",
    "ade20k_dinov3_linear", "ade20k_unimatch_v2", "cityscapes_unimatch_v2", "ade20k_eomt_l_dinov2",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LIKE_OTHERS else ()) for name in RECIPES]
)
def test_recipe(name: str, tmp_path: Path) -> None:
    make, own = RECIPES[name]
    root = make(tmp_path / "data")
    given = [f"experiment={name}", f"data.root={root}", *SHORT, *own]
    if compose("train", given)["data"]["labeled_list"] is not None:
        given.append(f"data.labeled_list={listed(name.partition('_')[0], given, tmp_path)}")
    config = settings(tmp_path / "run", *given, small=False)
    outcome = train(config)
    assert outcome.status == "completed"
    assert outcome.metrics["steps"] == 2
    assert 0 <= outcome.metrics["val"]["miou"] <= 1
    assert outcome.metrics["test"].keys() == outcome.metrics["val"].keys()


def listed(data: str, given: list[str], folder: Path) -> Path:
    """A list as UniMatch publishes it, of half of the training samples."""
    source = build_data(compose("train", [*given, "data.labeled_list=null"])["data"], 0).source("train")
    names = [source.name(i).rpartition("/")[2] for i in range(0, len(source), 2)]
    file = folder / "labeled.txt"
    file.write_text("\n".join(_LISTS[data].format(name, name.partition("_")[0]) for name in names))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_network_is_built_at_its_own_size(name: str) -> None:
    node = compose("train", [f"experiment={name}", "data.root=/none"])["network"]
    network = make(node | {"encoder_weights": None}, "network", num_classes=150, in_channels=3)
    assert isinstance(network, SegmentationNetwork)


@pytest.mark.parametrize("debug", ["fast", "profile"])
def test_a_short_look_at_a_recipe_has_no_warm_up_longer_than_itself(debug: str) -> None:
    recipe = compose("train", ["experiment=camvid_cnn", "data.root=/none", f"debug={debug}"])
    assert recipe["scheduler"]["warmup_steps"] == 0
