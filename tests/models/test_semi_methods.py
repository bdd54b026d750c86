"""UniMatch and cross pseudo supervision: each loss against its formula, and what a run with them keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.channel_dropout import with_dropped_twin
from src.models.cps import boxes, cps
from src.models.semi import cutmix, paste
from src.models.unimatch import unimatch
from src.storage import run_folder
from src.train import train
from src.training.build import build_data, build_model, model_from_checkpoint
from tests.conftest import SMALL, settings
from tests.models.test_semi import VOID, Coded, Small, by_hand, unlabelled_batch
from tests.same import assert_same

CPS = ["model.semi=cps", "data.labeled_fraction=1/2", "test=false", "~logger"]


def with_partner(**options: Any) -> Small:
    model = Small(method="cps", **options)
    model.partner = Coded()
    with torch.no_grad():
        model.partner.head.weight += 0.4 * torch.randn_like(model.partner.head.weight)
    return model


def classes(network: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        label: Tensor = network(image)["logits"].argmax(dim=1)
    return label


def sure(label: Tensor) -> Tensor:
    return torch.ones(label.shape)


class TestUniMatch:
    def test_it_is_a_quarter_of_each_view_and_half_of_dropped_features(self) -> None:
        model, batch = Small(method="unimatch", threshold=0.45, cutmix=0.5), unlabelled_batch(views=2)
        torch.manual_seed(5)
        outputs, loss, figures, _ = unimatch(model, batch)
        weak, maskless = batch["unlabeled_image"], batch["unlabeled_mask"]
        torch.manual_seed(5)
        features = model.network.encoder(torch.cat([batch["image"], weak]))
        dropped = model.network.head(nn.functional.dropout2d(features, 0.5))[2:]
        confidence, label = (
            model.network(weak)["logits"].detach().softmax(dim=1).max(dim=1)
        )  # its own, not the teacher's
        views = [
            cutmix(0.5, batch[key], label, confidence, maskless) for key in ("unlabeled_strong", "unlabeled_strong2")
        ]
        expected = 0.5 * by_hand(dropped, confidence, label, maskless, 0.45)
        for strong, mixed, certain, image in views:
            expected += 0.25 * by_hand(model.network(strong)["logits"], certain, mixed, image, 0.45)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(outputs["logits"], model.network(batch["image"])["logits"])
        assert 0.2 < float(figures["pseudo_labels"]) < 0.9

    def test_labelled_images_of_another_size_go_alone(self) -> None:
        model, batch = Small(method="unimatch", threshold=0.0), unlabelled_batch(views=2)
        batch["image"] = torch.randn(3, 3, 4, 4)
        outputs = unimatch(model, batch).outputs
        assert torch.equal(outputs["logits"], model.network(batch["image"])["logits"])

    def test_it_says_what_network_it_needs(self) -> None:
        model = Small(method="unimatch")
        model.network.encoder = None  # type: ignore[assignment]
        with pytest.raises(UserError, match="encoder"):
            unimatch(model, unlabelled_batch(views=2))

    def test_the_twin_loses_half_of_its_channels_and_the_image_none(self) -> None:
        class Encoder(nn.Module):
            def forward(self, image: Tensor) -> list[Tensor]:
                return [image, image[:, :1].expand(-1, 200, -1, -1)]

        encoder, image = Encoder(), torch.ones(3, 3, 2, 2)
        torch.manual_seed(0)
        with with_dropped_twin(encoder):
            handed_on, features = encoder(image)
        assert torch.equal(handed_on, torch.ones(6, 3, 2, 2))
        assert torch.equal(features[:3], torch.ones(3, 200, 2, 2))
        assert set(features[3:].unique().tolist()) == {0.0, 2.0}
        assert 0.4 < float((features[3:] == 0).float().mean()) < 0.6
        assert len(encoder(image)[1]) == 3  # only while it lasts


class TestCrossPseudoSupervision:
    def test_with_cutmix_each_learns_the_others_classes_of_mixed_images(self) -> None:
        model, batch = with_partner(cutmix=1.0), unlabelled_batch()
        assert model.partner is not None
        torch.manual_seed(5)
        outputs, loss, figures, own = cps(model, batch)
        weak, image = batch["unlabeled_image"], batch["unlabeled_mask"]
        first, second = classes(model.network, weak), classes(model.partner, weak)
        torch.manual_seed(5)
        mixed, first, second, image = paste(boxes(1.0, 4, 6, 8), weak, first, second, image)
        expected = by_hand(model.network(mixed)["logits"], sure(first), second, image, 0)
        expected += by_hand(model.partner(mixed)["logits"], sure(first), first, image, 0)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
        assert torch.equal(outputs["logits"], model.network(batch["image"])["logits"])
        of_labelled = model.segmentation_loss(model.partner(batch["image"]), batch["mask"])
        assert own is not None and float(own.detach()) == pytest.approx(float(of_labelled.detach()))
        assert float(figures["pseudo_labels"]) == pytest.approx(float((batch["unlabeled_mask"] != VOID).float().mean()))

    def test_without_it_they_learn_of_labelled_images_too(self) -> None:
        model, batch = with_partner(cutmix=0.0), unlabelled_batch()
        assert model.partner is not None
        batch["image"], batch["mask"] = torch.randn(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.uint8)
        batch["mask"][1, :2] = VOID
        loss = cps(model, batch).loss
        total, counted = 0.0, 0
        for image, mask in ((batch["image"], batch["mask"]), (batch["unlabeled_image"], batch["unlabeled_mask"])):
            labels = classes(model.network, image), classes(model.partner, image)
            count = int((mask != VOID).sum())
            counted += count
            for network, label in ((model.network, labels[1]), (model.partner, labels[0])):
                total += count * by_hand(network(image)["logits"], sure(label), label, mask, 0)
        assert float(loss.detach()) == pytest.approx(total / counted, rel=1e-5)

    def test_labels_give_no_gradient(self) -> None:
        """The first network's gradient is that of its own cross entropy to constant labels."""
        for share in (0.0, 1.0):
            model, batch = with_partner(cutmix=share), unlabelled_batch()
            batch["image"] = batch["image"][:0]
            batch["mask"] = batch["mask"][:0]
            assert model.partner is not None
            torch.manual_seed(5)
            cps(model, batch).loss.backward()
            weak, mask = batch["unlabeled_image"], batch["unlabeled_mask"]
            second = classes(model.partner, weak)
            torch.manual_seed(5)
            mixed, second, mask = paste(boxes(share, 4, 6, 8), weak, second, mask)
            alone = Coded()
            alone.load_state_dict(model.network.state_dict())
            label = second.masked_fill(mask == VOID, VOID)
            nn.functional.cross_entropy(alone(mixed)["logits"], label, ignore_index=VOID).backward()
            torch.testing.assert_close(model.network.head.weight.grad, alone.head.weight.grad)

    def test_three_boxes_have_a_quarter_to_half_of_the_image(self) -> None:
        torch.manual_seed(0)
        inside = boxes(1.0, 300, 60, 80)
        shares = inside.flatten(1).float().mean(dim=1)
        assert float(shares.max()) < 0.52 and 0.2 < float(shares.mean()) < 0.45
        torch.manual_seed(0)
        chosen = boxes(0.5, 300, 60, 80).flatten(1).any(dim=1).float().mean()
        assert 0.4 < float(chosen) < 0.6
        assert not boxes(0.0, 8, 60, 80).any()


@pytest.fixture(scope="module")
def partners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    run_dir = tmp_path_factory.mktemp("cps")
    outcome = train(settings(run_dir, *CPS, "model.semi.cutmix=1", "model.batch_norm=frozen"))
    figures = {name: float(value) for name, value in outcome.trainer.logged_metrics.items()}
    assert figures["train/unlabeled_loss"] > 0 and figures["train/partner_loss"] > 0
    assert figures["train/partner_gradient_norm"] > 0
    assert not any(m.training for n in outcome.model.networks for m in n.modules() if isinstance(m, nn.BatchNorm2d))
    return run_dir


def test_the_partner_differs_from_the_start_and_trains(tmp_path: Path, partners: Path) -> None:
    given = settings(tmp_path, *CPS)
    source = build_data(given["data"], 0).source("train")
    model = build_model(given, source.label_set, source.channels, source.intensity)
    assert model.partner is not None and [name for name, _, _ in model.optimized_parts()] == ["", "partner_"]
    before, own = model.partner.state_dict(), model.network.state_dict()
    assert before.keys() == own.keys()
    weights = [key for key, value in before.items() if value.ndim == 4]
    assert weights and not any(torch.equal(before[key], own[key]) for key in weights)
    after = torch.load(partners / run_folder.LAST, weights_only=True)["state_dict"]
    assert not any(torch.equal(before[key], after[f"partner.{key}"]) for key in weights)


def test_the_first_network_starts_as_it_does_alone(tmp_path: Path) -> None:
    states = []
    for options in (CPS, ["model.semi=null"]):
        given = settings(tmp_path, *options)
        source = build_data(given["data"], 0).source("train")
        states.append(build_model(given, source.label_set, source.channels, source.intensity).network.state_dict())
    assert_same(states[0], states[1])


def test_a_checkpoint_predicts_without_the_partner(partners: Path) -> None:
    content = torch.load(partners / run_folder.BEST, weights_only=True)["state_dict"]
    assert any(key.startswith("partner.") for key in content)
    model, _ = model_from_checkpoint(partners / run_folder.BEST)
    assert model.partner is None
    assert_same(model.state_dict(), {k: v for k, v in content.items() if not k.startswith("partner.")})


def test_another_run_starts_from_the_network_alone(partners: Path, tmp_path: Path) -> None:
    options = [
        "trainer.max_steps=1",
        "test=false",
        f"init_from={partners}",
        "optimizer.lr=1e-9",
        "model.batch_norm=frozen",
    ]
    own = train(settings(tmp_path, *options)).model.state_dict()
    given = torch.load(partners / run_folder.BEST, weights_only=True)["state_dict"]
    for key in own.keys() & given.keys():
        torch.testing.assert_close(own[key], given[key])


@pytest.mark.parametrize("method", ["cps", pytest.param("unimatch", marks=pytest.mark.slow)])
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, method: str) -> None:
    options = [*CPS, f"model.semi={method}", "network=small", "data.crop=[32,32]", "model.semi.threshold=0.1"]
    options += ["scheduler=constant", "data.dataset.train_length=12"]
    whole = train(settings(tmp_path / "whole", *options)).model.state_dict()
    train(settings(tmp_path / "halves", *options, "trainer.max_epochs=1"))
    outcome = train(settings(tmp_path / "halves", *options), resume=True)
    assert outcome.metrics["steps"] == 6
    assert_same(outcome.model.state_dict(), whole)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cps", "unimatch"])
def test_two_ranks_keep_the_same_weights(run: Callable[..., Any], tmp_path: Path, method: str) -> None:
    seen = ["+callbacks.seen._target_=tests.models.observers.Fingerprint", f"+callbacks.seen.folder={tmp_path}"]
    options = [*CPS, f"model.semi={method}", "network=small", "trainer=ddp_cpu", "trainer.devices=2"]
    options += ["model.semi.start=2"]
    result = run("src.train", *SMALL, *options, *seen, f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
