"""The GAN segmenter's promises: what a step does, how steps are counted, what its checkpoint is good for."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from src.config.parts import Trainer
from src.errors import UserError
from src.losses.adversarial import discriminator_loss, generator_loss, one_hot
from src.models.gan import GANSegmenter
from src.storage import run_folder
from src.storage.checkpoints import describe
from src.storage.trust import OWN, Trust
from src.train import train
from src.training.build import build_data, build_model, build_trainer, model_from_checkpoint
from src.training.run import Outcome
from tests.conftest import SMALL, settings
from tests.models.observers import Steps
from tests.models.test_segmenter import difference, weights
from tests.same import assert_same

Run = Callable[..., subprocess.CompletedProcess[str]]
# 3 batches an epoch.
SHORT = ["model=gan", "data.dataset.train_length=12", "trainer.max_epochs=1", "test=false", "~logger"]
SHORT += ["trainer.log_every_n_steps=1"]
SEMI = ["data.labeled_fraction=1/2", "data.unlabeled_batch_size=2"]
STEPS = "+callbacks.steps._target_=tests.models.observers.Steps"


def fit(run_dir: Path, *overrides: str) -> tuple[Outcome, GANSegmenter]:
    outcome = train(settings(run_dir, *SHORT, *overrides), trust=OWN)
    assert isinstance(outcome.model, GANSegmenter)
    return outcome, outcome.model


def build(run_dir: Path, *overrides: str) -> GANSegmenter:
    given = settings(run_dir, *SHORT, *overrides)
    source = build_data(given["data"], 0).source("train")
    model = build_model(given, source.label_set, source.channels, source.intensity)
    assert isinstance(model, GANSegmenter)
    return model


def logged(outcome: Outcome) -> list[dict[str, float]]:
    return next(c.logged for c in outcome.trainer.callbacks if isinstance(c, Steps))  # type: ignore[attr-defined]


def test_without_an_adversary_it_is_the_cnn_segmenter_to_the_bit(tmp_path: Path) -> None:
    cnn = weights(tmp_path / "cnn", "data.augment.scale=[0.7,1.5]", "data.crop=[32,32]", "model.ema_decay=0.9")
    options = ["data.augment.scale=[0.7,1.5]", "data.crop=[32,32]", "model.ema_decay=0.9", "model.adversarial_weight=0"]
    assert_same(weights(tmp_path / "gan", "model=gan", *options), cnn)
    adversarial = weights(tmp_path / "with", "model=gan", *options[:-1])
    assert difference(cnn, adversarial) > 0
    assert {key.split(".")[0] for key in adversarial.keys() - cnn.keys()} == {"discriminator"}


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 6), (2, 4)])
def test_a_step_of_two_optimizers_is_one_step(tmp_path: Path, accumulate: int, steps: int) -> None:
    """3 batches an epoch, the last step of each with what there is."""
    options = ["trainer.max_epochs=2", f"trainer.accumulate_grad_batches={accumulate}"]
    outcome, _ = fit(tmp_path, *options)
    assert outcome.metrics["steps"] == outcome.trainer.global_step == steps
    assert torch.load(tmp_path / run_folder.LAST, weights_only=True)["global_step"] == steps
    assert [c.scheduler.last_epoch for c in outcome.trainer.lr_scheduler_configs] == [steps, steps]
    assert [o.param_groups[0]["lr"] > 0 for o in outcome.trainer.optimizers] == [True, True]
    outcome, _ = fit(tmp_path / "max", *options, "trainer.max_steps=3")
    assert outcome.metrics["steps"] == outcome.trainer.global_step == 3


class Gradients(L.Callback):
    """Compares the combined pass's gradients with those of each loss alone, computed anew from the batch."""

    def __init__(self) -> None:
        self.batch: dict[str, Any] = {}
        self.compared = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch = batch

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model = pl_module
        assert isinstance(model, GANSegmenter) and model.discriminator is not None
        mask, image = self.batch["mask"], model.normalization(self.batch["image"])
        valid = (mask != 255).unsqueeze(1).float()
        logits = model.network(image)["logits"]
        fake = logits.softmax(dim=1)
        weight = torch.nn.functional.avg_pool2d(valid, 16)  # small: four layers of stride 2
        real, constant = one_hot(mask, 6), fake.detach()
        of_real, of_fake = (model.discriminator(x, image, valid)[0] for x in (real, constant))
        judging = discriminator_loss("bce", of_real, of_fake, weight)
        generating = model.loss(logits, mask) + 0.5 * generator_loss(
            "bce", model.discriminator(fake, image, valid)[0], weight
        )
        for part, loss in ((model.discriminator, judging), (model.network, generating)):
            parameters = list(part.parameters())
            for parameter, alone in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                assert parameter.grad is not None and alone.any()
                torch.testing.assert_close(parameter.grad, alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))
                self.compared += 1


@pytest.mark.filterwarnings("ignore:.*isinstance\\(treespec, LeafSpec\\)")
def test_one_backward_gives_each_part_the_gradient_of_its_own_loss(tmp_path: Path) -> None:
    given = settings(tmp_path, *SHORT, "model.adversarial_weight=0.5", "model.truth=onehot")
    datamodule = build_data(given["data"], 0)
    datamodule.prepare()
    source = datamodule.source("train")
    model = build_model(given, source.label_set, source.channels, source.intensity)
    trainer = build_trainer(Trainer.of(given["trainer"]), str(tmp_path), {}, {})
    gradients = Gradients()
    trainer.callbacks.append(gradients)  # type: ignore[attr-defined]
    trainer.fit(model, datamodule=datamodule)
    assert gradients.compared == 3 * (11 + 8)  # batches; tensors of the tiny network and the small discriminator


def test_clipping_acts_on_both_parts(tmp_path: Path) -> None:
    options = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0", "optimizer.lr=1"]
    options += ["scheduler=constant", "model.discriminator_lr_factor=1", "trainer.max_steps=1"]
    before = build(tmp_path, *options).state_dict()
    for clip, name in ((0.001, "clipped"), (1e9, "free")):
        outcome, model = fit(tmp_path / name, *options, STEPS, f"trainer.gradient_clip_val={clip}")
        for part, figure in (("network", "gradient_norm"), ("discriminator", "discriminator_gradient_norm")):
            trained = [f"{part}.{key}" for key, _ in getattr(model, part).named_parameters()]
            after = model.state_dict()
            moved = math.sqrt(sum(float((after[k] - before[k]).double().square().sum()) for k in trained))
            norm = logged(outcome)[0][f"train/{figure}"]  # before clipping
            assert norm > 0.01
            assert moved == pytest.approx(min(clip, norm), rel=0.02)


S4GAN = [
    "model.semi=s4gan", "discriminator=whole_image", "discriminator.width=8", "model.adversarial_weight=0",
    "model.feature_weight=0.1", "model.semi.discriminator_threshold=0.3",
]  # fmt: skip
PATCHGAN = ["discriminator=patchgan", "discriminator.depth=2", "discriminator.width=8", "model.noise.channels=1"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], PATCHGAN, [*S4GAN, *SEMI]])
def test_two_ranks_keep_the_same_weights(run: Run, tmp_path: Path, options: list[str]) -> None:
    seen = ["+callbacks.seen._target_=tests.models.observers.Fingerprint", f"+callbacks.seen.folder={tmp_path}"]
    run_dir = tmp_path / "run"
    result = run(
        "src.train", *SMALL, "model=gan", "trainer=ddp_cpu", "trainer.max_epochs=null", "trainer.max_steps=20",
        "test=false", *seen, *options, f"hydra.run.dir={run_dir}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    assert first.startswith("20 ")
    assert torch.load(run_dir / run_folder.LAST, weights_only=True)["global_step"] == 20


TRAINS = {
    "lsgan": ["model.adversarial=lsgan"],
    "hinge": ["model.adversarial=hinge"],
    "onehot": ["model.truth=onehot"],
    "smooth": ["model.truth=smooth"],
    "gumbel": ["model.generated=gumbel", "model.gumbel_temperature=0.5"],
    "r1": ["model.r1_weight=1", "model.r1_every=2", "discriminator=pixel", "discriminator.width=8"],
    "segan": ["model.feature_weight=1", "model.feature_minmax=true", "discriminator.spectral_norm=true"],
    "distances": ["model.l1_weight=1", "model.l2_weight=0.1", "model.segmentation_weight=0.5"],
    "later": ["model.adversarial_start=1", "model.adversarial_ramp=1"],
    "batch norm": ["discriminator=patchgan", "discriminator.norm=batch", "discriminator.depth=2"],
    "noise": ["model.noise.channels=2", "model.ema_decay=0.9"],
    "latent": ["network=small", "model.noise.latent=4", "model.ema_decay=0.9"],
    "fixmatch": ["model.semi=fixmatch", "model.semi.threshold=0.2", *SEMI],
    "fixmatch, asked": [
        "model.semi=fixmatch", "model.semi.threshold=0.2", "model.semi.discriminator_threshold=0.1", *SEMI,
    ],
    "mean teacher": ["model.semi=fixmatch", "model.semi.threshold=0", "model.semi.soft=true", "model.ema_decay=0.9", *SEMI],
    "adversarial": [
        "model.semi=adversarial", "model.semi.discriminator_threshold=0.1", "model.semi.adversarial_weight=0.001", *SEMI,
    ],
    "s4gan": [*S4GAN, *SEMI],
    "s4gan, least squares": [*S4GAN, "model.adversarial=lsgan", "model.truth=onehot", "model.generated=gumbel", *SEMI],
    "bf16": ["trainer.precision=bf16-mixed", "model.r1_weight=1", "model.r1_every=1"],
}  # fmt: skip
FIGURES = {
    "r1": {"r1_penalty"},
    "segan": {"feature_loss"},
    "distances": {"l1_loss", "l2_loss"},
    "fixmatch": {"unlabeled_loss", "pseudo_labels"},
    "mean teacher": {"unlabeled_loss", "pseudo_labels"},
    "adversarial": {"unlabeled_loss", "pseudo_labels"},
    "s4gan": {"unlabeled_loss", "pseudo_labels", "feature_loss"},
}
ALWAYS = {"loss", "generator_loss", "discriminator_loss", "adversarial_loss", "d_real", "d_fake", "gradient_norm"}


@pytest.mark.parametrize("kind", TRAINS)
def test_every_kind_trains(tmp_path: Path, kind: str) -> None:
    outcome, model = fit(tmp_path, *TRAINS[kind], "trainer.max_steps=2", STEPS)
    steps = logged(outcome)
    assert len(steps) == 2
    assert all(math.isfinite(value) for values in steps for value in values.values())
    always = ALWAYS - {"adversarial_loss"} if kind.startswith("s4gan") else ALWAYS
    assert {f"train/{name}" for name in always | FIGURES.get(kind, set())} <= steps[-1].keys()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    if kind == "later":
        assert "train/adversarial_loss" not in steps[0]


def test_unlabeled_images_count_from_their_start_on(tmp_path: Path) -> None:
    options = ["model.semi=fixmatch", "model.semi.threshold=0", *SEMI, STEPS]
    now, _ = fit(tmp_path / "now", *options)
    later, _ = fit(tmp_path / "later", *options, "model.semi.start=2")
    assert ["train/unlabeled_loss" in values for values in logged(now)] == [True, True, True]
    assert ["train/unlabeled_loss" in values for values in logged(later)] == [False, False, True]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished short run with everything that a generator may have."""
    run_dir = tmp_path_factory.mktemp("gan")
    fit(run_dir, "model.noise.channels=1", "model.ema_decay=0.5", "optimizer.lr=0.02")
    return run_dir


def test_a_checkpoint_predicts_from_the_file_alone(trained: Path) -> None:
    content = torch.load(trained / run_folder.BEST, weights_only=True)
    model, trained_with = model_from_checkpoint(trained / run_folder.BEST)
    assert isinstance(model, GANSegmenter) and trained_with.plain["discriminator"]
    assert not model.training
    assert model.discriminator is None and model.ema is not None
    assert_same(model.state_dict(), {k: v for k, v in content["state_dict"].items() if "discriminator" not in k})
    image = torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8)
    with torch.inference_mode():
        assert model.logits(image).shape == (1, 6, 50, 70)
        assert model.uncertainty(model.evaluated(image)).keys() == {"entropy", "mutual_information"}


@pytest.mark.parametrize(("first", "second"), [("cnn", "gan"), ("gan", "cnn"), ("gan", "gan")])
def test_either_model_starts_from_the_others_weights(tmp_path: Path, first: str, second: str) -> None:
    common = ["data.dataset.train_length=12", "trainer.max_epochs=1", "test=false", "~logger"]
    train(settings(tmp_path / "first", f"model={first}", *common))
    options = [f"init_from={tmp_path / 'first'}", "optimizer.lr=1e-9", "model.batch_norm=frozen"]
    outcome = train(settings(tmp_path / "second", f"model={second}", *common, *options))
    given = torch.load(tmp_path / "first" / run_folder.BEST, weights_only=True)["state_dict"]
    own = outcome.model.state_dict()
    assert difference({key: given[key] for key in given.keys() & own.keys()}, own) < 1e-6
    assert {key.split(".")[0] for key in given.keys() ^ own.keys()} == ({"discriminator"} if first != second else set())


@pytest.mark.parametrize("part", ["noise", "semi"])
@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "src.models.noise._TRIAL_SIDE"},
        {"_target_": ""},
        {"_partial_": True},
        {"draws": {"_target_": "os.getcwd"}},
        {"weight": [{"_target_": "os.getcwd"}]},
    ],
)
def test_a_strangers_checkpoint_builds_no_other_parts(trained: Path, part: str, node: dict[str, Any]) -> None:
    content = torch.load(trained / run_folder.BEST, weights_only=True)
    describe(content, trained, Trust("ckpt: x"), ["network", "model", "loss"])
    model = content["segmenter"]["config"]["model"]
    model[part] = {**model[part], **node} if "_target_" not in node else node
    with pytest.raises(UserError):
        describe(content, trained, Trust("ckpt: x"), ["network", "model", "loss"])


def test_confidence_is_how_real_the_map_looks(tmp_path: Path) -> None:
    """In 0…1 at every pixel for each kind of score, and shown as a map where the image is large enough."""
    for adversarial in ("bce", "lsgan", "hinge"):
        model = build(tmp_path, f"model.adversarial={adversarial}").eval()
        with torch.inference_mode():
            image = torch.randint(0, 256, (2, 3, 33, 47), dtype=torch.uint8)
            confidence = model.maps(image, model.evaluated(image))["taken for real"]
            assert confidence.shape == (2, 33, 47)
            assert confidence.min() >= 0 and confidence.max() <= 1
            assert "taken for real" not in model.maps(image[..., :15], model.evaluated(image[..., :15]))
