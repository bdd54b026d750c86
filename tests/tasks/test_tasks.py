"""Depth, boundaries and image labels beside the classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from src.cli.command import compose
from src.config.check import check
from src.data.augment.mixing import mixed
from src.data.augment.transforms import Augment
from src.data.formats.shapes import Shapes
from src.data.labels import LabelSet
from src.data.samples import Batch, Pixels
from src.errors import UserError
from src.evaluate import evaluate
from src.losses.base import outlines
from src.predict import predict
from src.storage import run_folder
from src.tasks.boundary import BinaryScores, Boundary
from src.tasks.depth import Depth, DepthErrors
from src.tasks.label import Label
from src.tasks.multi_task import MultiTask
from src.train import train as start
from src.training.build import build_data, build_model
from tests.conftest import settings
from tests.data.test_datamodule import folder_data

LABELS = LabelSet(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
VOID = LABELS.ignore_index
ALL = ["tasks=depth_boundary", "tasks.label=0.5"]


class TestDepth:
    def test_scores_are_those_of_the_definition(self) -> None:
        rng = np.random.default_rng(0)
        p, d = rng.uniform(0.1, 2, (2, 3, 5, 6)).astype(np.float32)
        d[0, 0], d[1, 2, :3], d[2, 4, 4] = np.nan, 0, np.inf
        metric = DepthErrors()
        for i in range(3):
            metric.update(torch.tensor(p[i]), torch.tensor(d[i]))
        valid = np.isfinite(d) & (d > 0)
        p, d = p[valid], d[valid]
        expected = {
            "abs_rel": np.mean(np.abs(p - d) / d), "rmse": np.sqrt(np.mean((p - d) ** 2)),
            "delta1": np.mean(np.maximum(p / d, d / p) < 1.25),
        }  # fmt: skip
        assert {key: float(value) for key, value in metric.compute().items()} == pytest.approx(expected, rel=1e-5)

    def test_unknown_depths_cost_nothing(self) -> None:
        output = torch.randn(1, 1, 2, 3, requires_grad=True)
        target = torch.tensor([[[1.0, torch.nan, 2.0], [0.0, torch.inf, 3.0]]])
        loss = Depth().loss(output, target)
        loss.backward()
        predicted = torch.nn.functional.softplus(output[0, 0])
        known = [(predicted[0, 0] - 1).abs(), (predicted[0, 2] - 2).abs(), (predicted[1, 2] - 3).abs()]
        assert loss.item() == pytest.approx(torch.stack(known).mean().item(), rel=1e-5)
        assert output.grad is not None and output.grad.isfinite().all()
        assert (output.grad[0, 0] != 0).tolist() == [[True, False, True], [False, False, True]]

    def test_nearer_shapes_hide_farther_ones(self) -> None:
        shapes = Shapes("train")
        depth, scene = shapes.depth(3), shapes.scene(3)
        assert depth.dtype == torch.float32 and depth.shape == scene.owner.shape
        order = [float(depth[torch.from_numpy(scene.owner == i)].unique()) for i in np.unique(scene.owner)]
        assert order == sorted(order, reverse=True) and order[0] == 1 and order[-1] > 0

    def test_it_goes_wherever_its_pixel_goes(self) -> None:
        rng = np.random.default_rng(0)
        mask = torch.from_numpy(np.kron(rng.integers(0, 3, (6, 8)), np.ones((7, 7))).astype(np.uint8))
        image, depth = mask.expand(3, -1, -1), mask.float() + 0.25
        augment = Augment([0.4, 2.0], 0.9, flip=0.5, vertical_flip=0.5)
        filled = 0
        for seed in range(40):
            torch.manual_seed(seed)
            changed = augment(Pixels(image, mask, depth), (32, 48), VOID)
            torch.manual_seed(seed)
            alone = augment(Pixels(image, mask), (32, 48), VOID)
            other = mixed("classmix", Pixels(*(x[..., :32, :48] for x in (image, mask, depth))), changed, VOID)
            for pixels in (changed, other):
                assert pixels.depth is not None
                known = pixels.mask != VOID
                assert torch.equal(pixels.depth[known], pixels.mask[known].float() + 0.25)
                assert pixels.depth[~known].isnan().all()
            assert torch.equal(changed.mask, alone.mask) and alone.depth is None
            filled += int((alone.mask == VOID).sum())
        assert filled


class TestBoundary:
    def test_outlines(self) -> None:
        mask = torch.from_numpy(np.kron(np.random.default_rng(1).integers(0, 3, (3, 4)), np.ones((5, 6))))[None]
        for width in (1, 2):
            found = outlines(mask, width)[0]
            for y, x in np.ndindex(*mask.shape[1:]):
                near = mask[0, max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
                assert bool(found[y, x]) == bool((near != mask[0, y, x]).any())

    def test_scores_are_scikit_learns(self) -> None:
        p, t = torch.rand(2, 4, 6, 7) > 0.6
        metric = BinaryScores()
        metric.update(p[:1], t[:1])
        metric.update(p[1:], t[1:])
        p, t = p.flatten().numpy(), t.flatten().numpy()
        expected = {"f1": f1_score(t, p), "iou": jaccard_score(t, p)}
        assert {key: float(value) for key, value in metric.compute().items()} == pytest.approx(expected)

    def test_few_boundary_pixels_weigh_as_much_as_the_many_others(self) -> None:
        target = torch.zeros(1, 4, 5, dtype=torch.bool)
        target[0, 0, 0] = True
        output = torch.randn(1, 1, 4, 5)
        p = output[0, 0].sigmoid()
        expected = (-p[0, 0].log() - (1 - p)[~target[0]].log().mean()) / 2
        assert float(Boundary().loss(output, target)) == pytest.approx(float(expected), rel=1e-5)


def test_labels_are_the_classes_that_are_seen() -> None:
    mask = torch.tensor([[[0, 0], [VOID, 2]], [[1, 1], [1, 1]]], dtype=torch.uint8)
    batch: Batch = {"image": torch.zeros(2, 3, 2, 2), "mask": mask, "id": ["a", "b"]}
    label = Label(3)
    assert label.target(batch).tolist() == [[True, False, True], [False, True, False]]
    output = torch.tensor([3.0, -3.0, 3.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    metric = label.metric()
    label.update(metric, output, label.target(batch))
    assert float(metric.compute()["accuracy"]) == pytest.approx(3 / 6)
    assert float(label.loss(output[:1], label.target(batch)[:1])) == pytest.approx(np.log1p(np.exp(-3)), rel=1e-5)


def test_weights_fixed_and_learnt() -> None:
    segmentation, losses = torch.tensor(2.0), {"depth": torch.tensor(3.0), "boundary": torch.tensor(5.0)}
    fixed = MultiTask(LABELS, depth=0.5, boundary=2.0)
    assert float(fixed.total(segmentation, losses)) == pytest.approx(2 + 1.5 + 10)
    learnt = MultiTask(LABELS, depth=0.5, boundary=2.0, weighting="uncertainty")
    assert learnt.log_variance is not None
    with torch.no_grad():
        learnt.log_variance.copy_(torch.tensor([0.0, 1.0, -1.0]))
    expected = 2 + (np.exp(-1) * 1.5 + 0.5) + (np.e * 10 - 0.5)
    assert float(learnt.total(segmentation, losses)) == pytest.approx(expected, rel=1e-6)
    assert fixed.channels == 2 and MultiTask(LABELS, depth=1, label=1).channels == 4


def test_every_weight_zero_is_refused() -> None:
    with pytest.raises(UserError, match="tasks: all weights are 0"):
        MultiTask(LABELS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run with all tasks, and its metrics."""
    run_dir = tmp_path_factory.mktemp("tasks")
    given = settings(run_dir, *ALL, "tasks.weighting=uncertainty", "model.ema_decay=0.5", "data.dataset.height=40")
    start(given)
    return run_dir, json.loads((run_dir / run_folder.METRICS).read_text())


def test_scores_of_every_task_are_written_and_evaluated_again(trained: tuple[Path, dict[str, Any]]) -> None:
    run_dir, metrics = trained
    names = {"depth_abs_rel", "depth_rmse", "depth_delta1", "boundary_f1", "boundary_iou", "label_accuracy"}
    assert names <= metrics["val"].keys() and names <= metrics["test"].keys()
    given = compose("evaluate", [f"ckpt={run_dir}"])
    given["paths"]["output_dir"] = str(run_dir / "evaluated")
    assert evaluate(given)["test"] == metrics["test"]


def test_the_weights_are_learnt_and_kept(trained: tuple[Path, dict[str, Any]]) -> None:
    state = torch.load(trained[0] / run_folder.LAST, weights_only=True)["state_dict"]
    assert state["network.tasks.log_variance"].shape == (4,)
    assert (state["network.tasks.log_variance"] != 0).all()


def test_maps_of_photos_are_written(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (33, 50, 3), np.uint8)).save(tmp_path / "photo.png")
    given = compose(
        "predict", [f"ckpt={trained[0]}", f"input={tmp_path / 'photo.png'}", f"output={tmp_path / 'out'}", "device=cpu"]
    )
    assert predict(given) == []
    depth = np.asarray(Image.open(tmp_path / "out/depth/photo.tif"))
    boundary = np.asarray(Image.open(tmp_path / "out/boundary/photo.tif"))
    assert depth.shape == boundary.shape == (33, 50) and depth.dtype == np.float32
    assert (depth > 0).all() and (boundary >= 0).all() and (boundary <= 1).all()
    assert not (tmp_path / "out/label").exists()


@pytest.mark.parametrize("model", ["cnn", "gan"])
def test_a_step_learns_every_task(tmp_path: Path, model: str) -> None:
    given = settings(tmp_path, f"model={model}", *ALL, "network=small", "trainer.max_epochs=1", "optimizer.lr=1e-3")
    given["test"] = False
    outcome = start(given)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = EventAccumulator(str(tmp_path / run_folder.TENSORBOARD)).Reload().Tags()["scalars"]
    assert {"train/depth_loss", "train/boundary_loss", "train/label_loss", "val/depth_abs_rel"} <= set(tags)
    assert outcome is not None


def test_classes_start_as_they_would_alone(tmp_path: Path) -> None:
    given = settings(tmp_path, *ALL, "network=small")
    source = build_data(given["data"], 0).source("train")
    model = build_model(given, source.label_set, source.channels, source.intensity).eval()
    outputs = model.outputs(source.read(0)[0][None])
    sizes = {name: tuple(value.shape[1:2]) for name, value in outputs.items()}
    assert sizes == {"logits": (6,), "depth": (1,), "boundary": (1,), "label": (6,)}
    assert model.logits(source.read(0)[0][None]).shape[1] == 6


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tasks=depth", "tasks.depth=-1"], "tasks.depth"),
        (["tasks=depth", "tasks.weighting=learnt"], "tasks.weighting"),
        (["tasks=depth", "+tasks.deep=1"], "tasks.deep"),
        (["tasks=boundary", "model=gan", "model.noise.channels=1"], "tasks: a generator with noise"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_cannot_be(tmp_path: Path, overrides: list[str], said: str) -> None:
    given = settings(tmp_path, *overrides)
    with pytest.raises(UserError, match=said):
        check(given)


def test_data_without_depth_is_refused(tmp_path: Path) -> None:
    datamodule = build_data(folder_data(tmp_path), 0, use_depth=True)
    with pytest.raises(UserError, match=r"tasks\.depth: this data has no depth"):
        datamodule.prepare()
