"""The segmenter's own promises: what a step does, what evaluation counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from src.metrics.confusion import scores
from src.models.base import Segmenter
from src.models.normalization import Normalization
from src.train import train
from src.training.build import build_data, build_model
from tests.conftest import settings


def weights(run_dir: Path, *overrides: str) -> dict[str, torch.Tensor]:
    outcome = train(settings(run_dir, "trainer.max_epochs=1", "test=false", "~logger", *overrides))
    return {key: value.clone() for key, value in outcome.model.state_dict().items()}


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a if "num_batches" not in key)


def test_accumulated_batches_make_the_step_of_a_larger_batch(tmp_path: Path) -> None:
    """Without batch norm's statistics in the way (frozen), two batches of 4 are one of 8."""
    common = ["model.batch_norm=frozen", "data.augment=null", "optimizer=sgd", "optimizer.lr=0.05", "loss=ce"]
    common += ["scheduler=constant", "data.dataset.void_width=0"]
    large = weights(tmp_path / "large", *common, "data.batch_size=8")
    small = weights(tmp_path / "small", *common, "data.batch_size=4", "trainer.accumulate_grad_batches=2")
    other = weights(tmp_path / "other", *common, "data.batch_size=4")
    assert difference(large, small) < 1e-5
    assert difference(large, other) > 1e-4


def test_steps_are_counted_once_whatever_is_accumulated(tmp_path: Path) -> None:
    outcome = train(settings(tmp_path, "trainer.accumulate_grad_batches=4", "test=false"))
    assert outcome.metrics["steps"] == 4  # 6 batches an epoch: 4 and 2
    outcome = train(settings(tmp_path / "b", "trainer.max_steps=5", "trainer.max_epochs=null", "test=false"))
    assert outcome.metrics["steps"] == 5
    (scheduler,) = outcome.trainer.lr_scheduler_configs
    assert scheduler.scheduler.last_epoch == 5


def test_clipping_limits_the_step(tmp_path: Path) -> None:
    common = [
        "optimizer=sgd",
        "optimizer.momentum=0",
        "optimizer.weight_decay=0",
        "optimizer.lr=1",
        "scheduler=constant",
    ]
    common += ["data.dataset.train_length=4"]
    start = settings(tmp_path / "none", *common)
    datamodule = build_data(start["data"], 42)
    source = datamodule.source("train")
    before = build_model(start, datamodule.label_set, source.channels, source.intensity).state_dict()
    after = weights(tmp_path / "clipped", *common, "trainer.gradient_clip_val=0.001")
    moved = sum(
        float((after[k] - before[k]).double().square().sum()) for k in before if "running" not in k and "num_b" not in k
    )
    assert moved**0.5 == pytest.approx(0.001, rel=0.01)


def test_the_average_follows_the_weights_and_is_what_is_evaluated(tmp_path: Path) -> None:
    outcome = train(settings(tmp_path, "model.ema_decay=0.9", "test=false"))
    model = outcome.model
    assert isinstance(model, Segmenter) and model.ema is not None
    image = torch.randint(0, 255, (1, 3, 32, 48), dtype=torch.uint8)
    model.eval()
    with torch.inference_mode():
        averaged = model.ema.module(model.normalization(image))["logits"]
        assert torch.equal(model.logits(image), averaged)
        assert not torch.equal(model.network.eval()(model.normalization(image))["logits"], averaged)


def test_frozen_batch_norm_keeps_its_statistics(tmp_path: Path) -> None:
    state = weights(tmp_path, "model.batch_norm=frozen")
    means = [value for key, value in state.items() if key.endswith("running_mean")]
    assert means
    assert all((mean == 0).all() for mean in means)


def test_a_compiled_network_keeps_clean_keys() -> None:
    network = nn.Conv2d(3, 2, 1)
    keys = list(network.state_dict())
    network.compile()
    assert list(network.state_dict()) == keys


def test_auxiliary_heads_train_with_their_weight(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return logits.mean()

    start = settings(tmp_path, "model.aux_weight=0.25")
    datamodule = build_data(start["data"], 0)
    source = datamodule.source("train")
    model = build_model(start, datamodule.label_set, source.channels, source.intensity)
    model.loss = Fixed()
    outputs = {"logits": torch.ones(1, 2, 4, 4), "aux": torch.full((1, 2, 4, 4), 8.0)}
    assert float(model.segmentation_loss(outputs, torch.zeros(1, 4, 4))) == 1 + 0.25 * 8


def test_evaluation_counts_every_image_once_and_agrees_with_numpy(tmp_path: Path) -> None:
    outcome = train(settings(tmp_path, "data.dataset.val_length=7", "data.eval_batch_size=3"))
    model = outcome.model
    assert isinstance(model, Segmenter)
    source = outcome.datamodule.source("test")
    expected = torch.zeros(6, 6, dtype=torch.int64)
    for index in range(len(source)):
        image, mask = source.read(index)
        with torch.inference_mode():
            prediction = model.eval().logits(image[None]).argmax(dim=1)[0]
        for truth, predicted in zip(mask.flatten().tolist(), prediction.flatten().tolist(), strict=True):
            if truth != 255:
                expected[truth, predicted] += 1
    assert int(model.matrices["test"].sum()) == int(expected.sum())
    assert (model.matrices["test"] - expected).abs().sum() <= 2  # a tie may fall differently in another batch
    assert model.results["test"]["miou"] == scores(model.matrices["test"], source.label_set.names)["miou"]


@pytest.mark.parametrize(
    ("image", "intensity"),
    [
        (torch.tensor([0, 51, 255], dtype=torch.uint8), (0.0, 255.0)),
        (torch.tensor([-1000, -600, 1000], dtype=torch.int16), (-1000.0, 1000.0)),
        (torch.tensor([0.0, 0.2, 1.0]), (0.0, 1.0)),
    ],
)
def test_normalising(image: torch.Tensor, intensity: tuple[float, float]) -> None:
    normalization = Normalization(intensity, (0.5,), (0.25,), channels=1)
    values = normalization(image.view(1, 1, 1, 3))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.flatten(), torch.tensor([-2.0, -1.2, 2.0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        ["model=cnn"],
        ["model=gan", "discriminator.depth=3", "model.adversarial_weight=1", "model.l1_weight=1", "model.truth=smooth"],
    ],
)
def test_gradients_of_two_ranks_are_those_of_one(tmp_path: Path, model: list[str]) -> None:
    """The same global batch on 1 and 2 ranks: after one step without batch norm in the way, the same weights."""
    import subprocess

    from tests.conftest import command, environment
    from tests.data.formats.test_folder import NAMES, write

    for split in ("train", "val"):
        write(tmp_path / "data", split, 4)
        for i, file in enumerate(sorted((tmp_path / "data/masks" / split).iterdir())):
            mask = np.array(Image.open(file))
            mask[: 5 * i] = 255  # a mean of the ranks' means would not be the mean
            Image.fromarray(mask).save(file)
    common = ["data=folder", f"data.root={tmp_path}/data", f"data.dataset.names=[{','.join(NAMES)}]", "data.crop=null"]
    common += [
        "data.augment=null",
        "data.num_workers=0",
        "data.batch_size=4",
        "network=tiny",
        "model.batch_norm=frozen",
    ]
    common += [
        "loss=ce_dice",
        "optimizer=sgd",
        "optimizer.lr=0.1",
        "scheduler=constant",
        "trainer.max_epochs=1",
        "test=false",
    ]
    states: list[dict[str, Any]] = []
    for trainer in ("cpu", "ddp_cpu"):
        run_dir = tmp_path / trainer
        arguments = ["src.train", f"trainer={trainer}", *common, *model, f"hydra.run.dir={run_dir}"]
        subprocess.run(command(*arguments), env=environment(), check=True, capture_output=True, timeout=300)
        states.append(torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True))
    assert states[0]["global_step"] == states[1]["global_step"] == 1
    assert difference(states[0]["state_dict"], states[1]["state_dict"]) < 1e-6
