"""`model.teacher=RUN`: what it adds to the loss, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from src.cli.command import compose
from src.config.check import checked
from src.errors import UserError
from src.models.base import Segmenter
from src.models.distillation import Distillation, channelwise, pixelwise
from src.storage import run_folder
from src.storage.checkpoints import read
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import run_config, settings

SHORT = ["trainer.max_epochs=1", "test=false"]


def test_the_divergences_are_the_papers() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    assert float(pixelwise(student, teacher, 2)) == pytest.approx(
        float(4 * (p * (p / q).log()).sum(1).mean()), rel=1e-5
    )
    p, q = (teacher / 4).flatten(2).softmax(2), (student / 4).flatten(2).softmax(2)
    expected = 16 * (p * (p / q).log()).sum() / (2 * 3)  # Shu et al. (2021), equation 4: T²/C, over the batch's images
    assert float(channelwise(student, teacher, 4)) == pytest.approx(float(expected), rel=1e-5)
    for divergence in (pixelwise, channelwise):
        assert float(divergence(teacher + 3, teacher, 2)) == pytest.approx(0, abs=1e-6)  # a constant changes no softmax


def test_weights_weigh_and_what_has_none_is_not_computed() -> None:
    student, teacher = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 4, 4)
    both = Distillation(0.5, 2, 3.0, 4)
    losses = both.losses(student, teacher)
    assert set(losses) == {"kl", "channel"}
    assert torch.allclose(both.total(losses), 0.5 * losses["kl"] + 3 * losses["channel"])
    assert set(Distillation().losses(student, teacher)) == {"channel"}
    assert set(Distillation(kl_weight=1, channel_weight=0).losses(student, teacher)) == {"kl"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    return train(settings(folder, *SHORT, "network.width=16", "model.ema_decay=0.5")).run_dir


@pytest.mark.parametrize("model", ["cnn", "gan"])
def test_a_teacher_teaches_and_stays_as_it_is(teacher: Path, tmp_path: Path, model: str) -> None:
    before = (teacher / run_folder.BEST).read_bytes()
    small = [*SHORT, f"model={model}", "network.width=8"]
    taught = train(settings(tmp_path / "taught", *small, f"model.teacher={teacher}", "model.distill.kl_weight=1"))
    alone = train(settings(tmp_path / "alone", *small))
    logged = taught.trainer.callback_metrics
    assert float(logged["train/distill_kl_loss"]) > 0 and float(logged["train/distill_channel_loss"]) > 0
    ours, theirs = (read(outcome.run_dir / run_folder.BEST)["state_dict"] for outcome in (taught, alone))
    assert ours.keys() == theirs.keys()  # nothing of the teacher is kept
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)
    assert taught.metrics["parameters"] == alone.metrics["parameters"]
    assert (teacher / run_folder.BEST).read_bytes() == before
    assert isinstance(taught.model, Segmenter)
    (kept,) = taught.model._teacher
    assert not kept.training and not any(p.requires_grad or p.grad is not None for p in kept.parameters())
    loaded, _ = model_from_checkpoint(teacher / run_folder.BEST)
    assert all(torch.equal(a, b) for a, b in zip(kept.state_dict().values(), loaded.state_dict().values(), strict=True))
    model_from_checkpoint(taught.run_dir / run_folder.BEST)  # predicts without the teacher


@pytest.mark.slow
def test_with_nothing_but_a_teacher_the_student_comes_to_predict_as_it(teacher: Path, tmp_path: Path) -> None:
    """Steps of the divergence alone bring the student's probabilities nearer to the teacher's."""
    guide, _ = model_from_checkpoint(teacher / run_folder.BEST)
    outcome = train(settings(tmp_path, *SHORT, f"model.teacher={teacher}", "network.width=8", "loss=sum",
                             "loss.terms=[{_target_: src.losses.ce.CrossEntropy, weight: 0.0}]",
                             "model.distill.kl_weight=5", "model.distill.channel_weight=0",
                             "trainer.max_epochs=12"))  # fmt: skip
    image = outcome.datamodule.source("val").read(0)[0][None]
    with torch.no_grad():
        aim = guide.probabilities(image)
        assert isinstance(outcome.model, Segmenter)
        found = outcome.model.eval().probabilities(image)
    uniform = torch.full_like(aim, 1 / 6)
    assert F.l1_loss(found, aim) < 0.5 * F.l1_loss(uniform, aim)


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_teacher_only(teacher: Path, tmp_path: Path) -> None:
    run = train(settings(tmp_path / "run", *SHORT, f"model.teacher={teacher}")).run_dir
    other = train(settings(tmp_path / "other", *SHORT, "network.width=16", "seed=1")).run_dir
    longer = ["trainer.max_epochs=2"]
    with pytest.raises(UserError, match=r"model.teacher: has other weights than the teacher that the run learnt from"):
        train(settings(run, *SHORT, *longer, f"model.teacher={other}"), resume=True)
    moved = other.rename(tmp_path / "elsewhere")
    for file in (run_folder.BEST, run_folder.LAST):
        (moved / file).write_bytes((teacher / file).read_bytes())
    assert train(settings(run, *SHORT, *longer, f"model.teacher={moved}"), resume=True).status == "completed"


def test_another_ones_classes_and_images_are_refused(teacher: Path, tmp_path: Path) -> None:
    content = torch.load(teacher / run_folder.BEST, weights_only=True)
    content["segmenter"]["label_set"]["names"][1] = "moon"
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"model.teacher: .*other.ckpt knows 6 classes .*moon"):
        train(settings(tmp_path / "run", *SHORT, f"model.teacher={tmp_path / 'other.ckpt'}"))
    with pytest.raises(UserError, match=r"model.teacher: there is no file"):
        train(settings(tmp_path / "run", *SHORT, "model.teacher=nowhere"))


@pytest.mark.parametrize(("overrides", "words"), [
    (["model.distill.channel_weight=0"], "model.distill: a teacher teaches nothing with both weights 0"),
    (["model.distill.kl_temperature=0"], "model.distill.kl_temperature"),
    (["model=synthesis", "+model.teacher=RUN"], "model.teacher: a teacher tells classes and model=synthesis draws images"),
])  # fmt: skip
def test_keys_that_do_not_fit_are_refused(overrides: list[str], words: str) -> None:
    given = [] if "+model.teacher=RUN" in overrides else ["model.teacher=RUN"]
    with pytest.raises(UserError, match=words):
        checked(compose("train", [*overrides, *given]))


def test_a_strangers_run_names_no_teacher_elsewhere(teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / run_folder.CONFIG).write_text(yaml.safe_dump(settings(run, *SHORT, f"model.teacher={teacher}")))
    with pytest.raises(UserError, match=r"names the file .* \(model.teacher\), which is not in the run folder"):
        run_config(run, "resume")
    said = run_config(run, "resume", overrides=[f"++model.teacher={teacher}"])["model"]
    assert said["teacher"] == str(teacher)
