"""The synthesiser's promises: what it learns and is scored by, what a resumed run is, and what takes its checkpoint."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.cli.command import compose
from src.config.check import check
from src.errors import UserError
from src.evaluate import evaluate
from src.losses.adversarial import one_hot
from src.losses.l1 import L1
from src.models.synthesis import Synthesizer
from src.networks.spade import spade
from src.storage import run_folder
from src.storage.checkpoints import read
from src.storage.trust import OWN
from src.train import train
from src.training.build import learner_from_checkpoint, model_from_checkpoint
from src.training.run import Outcome
from tests.conftest import SMALL, settings
from tests.same import assert_same

Run = Callable[..., subprocess.CompletedProcess[str]]
# 3 batches an epoch; SMALL's network and rate are a segmenter's.
TINY = [
    *(o for o in SMALL if not o.startswith(("network=", "optimizer.", "callbacks."))), "model=synthesis",
    "data.dataset.train_length=12", "network.width=4", "network.depth=2", "network.hidden=4", "discriminator.width=4",
]  # fmt: skip


def fit(run_dir: Path, *overrides: str) -> tuple[Outcome, Synthesizer]:
    outcome = train(settings(run_dir, *TINY, *overrides, small=False), trust=OWN)
    assert isinstance(outcome.model, Synthesizer)
    return outcome, outcome.model


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter's run and, beside it, that of a synthesiser that it judges."""
    folder = tmp_path_factory.mktemp("judged")
    train(settings(folder / "segmenter", "~logger", "test=false", "trainer.max_epochs=1"))
    judge = f"model.judge={folder / 'segmenter'}"
    fit(folder / "run", judge, "model.ema_decay=0.9", "callbacks.pictures.samples=1")
    return folder


def test_a_run_has_all_that_runs_have(judged: Path) -> None:
    run_dir = judged / "run"
    metrics = run_folder.read_metrics(run_dir)
    assert metrics is not None and metrics["status"] == "completed" and metrics["steps"] == 6
    for stage in ("val", "test"):
        assert 0 < metrics[stage]["loss"] < 1 and 0 <= metrics[stage]["miou"] <= 1
    best = read(run_dir / run_folder.BEST)
    assert {key.partition(".")[0] for key in best["state_dict"]} >= {"network", "discriminator", "ema"}
    assert not any("segmenter" in key or "judge" in key for key in best["state_dict"])
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert {"train/kl_loss", "train/feature_loss", "train/d_real", "val/loss", "val/miou"} <= {
        *events.Tags()["scalars"]
    }
    assert {"train/scores_real", "train/scores_fake"} <= {*events.Tags()["histograms"]}
    shown = events.Images(
        next(tag for tag in events.Tags()["images"] if tag.startswith("val/") and "confusion" not in tag)
    )[0]
    assert shown.width > 4 * shown.height / 2  # label map, drawn, drawn again, real, redrawn: in a row


@pytest.mark.slow
def test_segmenters_commands_refuse_it(judged: Path, run: Run) -> None:
    given = f"ckpt={judged / 'run'}"
    with pytest.raises(UserError, match=r"draws images and predicts no classes"):
        evaluate(compose("evaluate", [given]))
    with pytest.raises(UserError, match=r"draws images and predicts no classes"):
        model_from_checkpoint(judged / "run" / run_folder.BEST)
    Image.new("RGB", (48, 32)).save(judged / "image.png")
    for command in (["src.predict", f"input={judged / 'image.png'}"], ["src.export"]):
        done = run(*command, given, f"output={judged / 'out'}")
        assert done.returncode == 2 and "draws images and predicts no classes" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_draw_is_its_seeds_and_the_classes_codes(judged: Path) -> None:
    model, _ = learner_from_checkpoint(judged / "run" / run_folder.BEST)
    assert isinstance(model, Synthesizer)
    mask = torch.zeros(2, 33, 50, dtype=torch.uint8)
    mask[:, 8:20, 8:20] = 1
    mask[:, 25:] = 255
    drawn = model.draw(mask, [3, 4])
    assert drawn.dtype == torch.uint8 and drawn.shape == (2, 3, 33, 50)
    assert torch.equal(model.draw(mask[1:], [4])[0], drawn[1])  # whatever is drawn beside it
    assert not torch.equal(drawn[0], drawn[1])
    assert_same(model.generator.state_dict(), dict(model.ema.module.state_dict()))  # type: ignore[union-attr]


def test_codes_are_those_of_the_classes_pixels() -> None:
    torch.manual_seed(0)
    network = spade(3, 1, width=4, depth=1, latent=2, hidden=4)
    image, label_map = torch.randn(1, 1, 16, 16), torch.zeros(1, 3, 16, 16)
    label_map[:, 0, :8], label_map[:, 1, 8:] = 1, 1
    mean, log_variance = network.codes(image, label_map)
    assert mean.shape == log_variance.shape == (1, 3, 2) and (mean[:, 2] == 0).all()
    image[..., 12:, :] += 1  # far from the first class: its code stays
    changed, _ = network.codes(image, label_map)
    assert torch.equal(changed[:, 0], mean[:, 0]) and not torch.equal(changed[:, 1], mean[:, 1])
    codes = torch.randn(1, 3, 2)
    one, other = network(label_map, codes), network(label_map, codes * torch.tensor([1, 1, 9])[:, None])
    assert torch.equal(one, other)  # a class that is nowhere has no say


def test_it_learns_to_redraw() -> None:
    """Two images whose classes have colours of their own: only the codes can tell them."""
    torch.manual_seed(0)
    network = spade(2, 3, width=8, depth=1, latent=4, hidden=8)
    mask = torch.zeros(2, 16, 16, dtype=torch.uint8)
    mask[:, 4:12, 4:12] = 1
    colors = torch.tensor([[[-0.8, 0.5, 0.1], [0.6, -0.4, 0.7]], [[0.9, -0.6, -0.2], [-0.5, 0.8, 0.3]]])
    label_map = one_hot(mask, 2)
    real = torch.einsum("bkhw,bkc->bchw", label_map, colors)
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=0.01), []
    for _ in range(60):
        loss = L1()(network(label_map, network.codes(real, label_map)[0]), real, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.25 * losses[0]


SYNTHESIS = {
    "network: unet predicts classes": {"network": {"_target_": "src.networks.smp_models.unet"}},
    "loss: CrossEntropy compares classes": {"loss": {"_target_": "src.losses.ce.CrossEntropy"}},
    "tasks: model=synthesis learns nothing beside": {
        "tasks": {"_target_": "src.tasks.multi_task.MultiTask", "boundary": 1.0}
    },
    "monitor: val/miou is the judge's": {"monitor": "val/miou", "monitor_mode": "max"},
    "optimized_metric: test/miou is the judge's": {"optimized_metric": "test/miou"},
    "metrics: they compare the judge's classes": {"metrics": {"cldice": {"_target_": "src.metrics.topology.ClDice"}}},
    "model.class_weights: ": {"model": {"class_weights": "balanced"}},
    "inference: ": {"inference": {"flip": True}},
    "init_from: ": {"init_from": "x"},
    "data.synthetic: a generator": {"data": {"synthetic": "x"}},
    "discriminator.conditional: ": {"discriminator": {"conditional": False}},
    "model.adversarial_weight: without it": {"model": {"adversarial_weight": 0.0, "feature_weight": 0.0}},
    "trainer.strategy: fsdp": {"trainer": {"strategy": "fsdp"}},
}
SEGMENTER = {
    "network: spade is for drawing images": {"network": {"_target_": "src.networks.spade.spade"}},
    "loss: L1 is for drawing images": {"loss": {"_target_": "src.losses.l1.L1"}},
    "model.judge: judges drawn images": {"model": {"judge": "x"}},
    "data.synthetic: drawn images have no depth": {
        "data": {"synthetic": "x"}, "tasks": {"_target_": "src.tasks.multi_task.MultiTask", "depth": 1.0}
    },
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "refused"), [(["model=synthesis"], SYNTHESIS), ([], SEGMENTER)])
def test_what_does_not_fit_is_refused(overrides: list[str], refused: dict[str, dict[str, Any]]) -> None:
    composed = compose("train", overrides)
    check(composed)
    for words, changes in refused.items():
        config = dict(composed)
        for group, given in changes.items():
            node = config.get(group)
            anew = not isinstance(given, dict) or not node or "_target_" in given
            config[group] = given if anew else {**(node or {}), **given}
        with pytest.raises(UserError) as caught:
            check(config)
        assert str(caught.value).startswith(words), caught.value
