"""`ckpt=[RUN1,RUN2]`: the mean of probabilities in `evaluate`, `predict` and `load`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src import load
from src.cli.command import compose
from src.config.evaluation import Evaluation
from src.data.formats.shapes import Shapes
from src.errors import UserError
from src.evaluate import evaluate
from src.evaluation import matrices
from src.inference.ensembles import ENTROPY, averaged
from src.models.ensemble import Ensemble
from src.predict import predict
from src.storage import run_folder
from src.train import train
from src.training.ensembles import digest, files_of, segmenter_of
from tests.conftest import settings
from tests.inference.test_inputs import picture

Runs = tuple[Path, Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two runs of other seeds and protocols: one takes images whole and mirrored, one in windows."""
    folder = tmp_path_factory.mktemp("runs")
    short = ["trainer.max_epochs=1", "test=false"]
    train(settings(folder / "0", *short, "inference.flip=true"))
    windows = ["inference.mode=window", "inference.window=[32,32]", "inference.stride=[16,16]"]
    train(settings(folder / "1", *short, *windows, "seed=1", "data.batch_size=6"))
    return folder / "0", folder / "1"


def listed(runs: Runs) -> str:
    return f"ckpt=[{runs[0]},{runs[1]}]"


def evaluation(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    composed = compose("evaluate", list(overrides))
    composed["paths"]["output_dir"] = str(tmp_path)
    return composed


def by_hand(runs: Runs, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The mean of the probabilities that each run alone gives, float [1, K, H, W]."""
    found = []
    with torch.inference_mode():
        for run in runs:
            model, _ = segmenter_of(files_of(str(run)))
            found += [outputs["logits"].softmax(dim=1) for _, outputs in model.predicted(image, size)]
    return torch.stack(found).mean(dim=0)


def test_scores_are_those_of_the_mean_of_probabilities(runs: Runs, tmp_path: Path) -> None:
    words = "metrics=[classes,boundary,calibration,images]"
    results = evaluate(evaluation(tmp_path, listed(runs), "splits=[val]", words, "bootstrap.samples=10"))
    source = Shapes("val", val_length=5, height=32, width=48)
    matrix = np.zeros((6, 6), np.int64)
    for index in range(5):
        image, mask = source.read(index)
        predicted = by_hand(runs, image[None], (32, 48)).argmax(dim=1)[0].numpy()
        truth = mask.numpy()
        np.add.at(matrix, (truth[truth != 255], predicted[truth != 255]), 1)
    images = matrices.read(tmp_path / "evaluation/val" / matrices.FILE)
    assert np.array_equal(images.right.sum(0), matrix.diagonal())
    assert np.array_equal(images.predicted.sum(0), matrix.sum(0))
    assert results["val"]["pixel_accuracy"] == pytest.approx(matrix.trace() / matrix.sum(), abs=1e-12)
    written = run_folder.read_metrics(tmp_path)
    assert written is not None
    assert written["checkpoint"] == [str(run / run_folder.BEST) for run in runs]
    assert [one["mode"] for one in written["inference"]] == ["whole", "window"]
    said = json.loads((tmp_path / "evaluation/val/metrics.json").read_text())
    assert said["checkpoint_sha256"] == digest(files_of([str(run) for run in runs]))
    assert {"boundary", "calibration"} <= said.keys()
    assert len(list((tmp_path / "evaluation/val/images").glob("worst_*.png"))) > 0
    assert not any((run / "evaluation").exists() for run in runs)


def test_predict_and_load_give_the_mean(runs: Runs, tmp_path: Path) -> None:
    file = picture(tmp_path / "in/a.png", 70, 90)
    image = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None]
    mean = by_hand(runs, image, (70, 90))[0].numpy()
    options = [listed(runs), f"input={file}", f"output={tmp_path}/out", "device=cpu", "probabilities=true"]
    assert predict(compose("predict", [*options, "uncertainty=true"])) == []
    mask = np.asarray(Image.open(tmp_path / "out/masks/a.png"))
    assert np.array_equal(mask, mean.argmax(axis=0))
    assert np.load(tmp_path / "out/probabilities/a.npy") == pytest.approx(mean, abs=1e-3)
    shared = np.asarray(Image.open(tmp_path / "out/uncertainty/a_mutual_information.png"))
    entropy = np.asarray(Image.open(tmp_path / "out/uncertainty/a_entropy.png"))
    assert 0 < shared.max() <= entropy.max()
    found = load(runs, device="cpu").predict(file)
    assert np.array_equal(found.mask, mask)
    assert np.array_equal(found.probabilities, np.load(tmp_path / "out/probabilities/a.npy"))
    with pytest.raises(UserError, match="holds predictions of another checkpoint and inference"):
        predict(compose("predict", [f"ckpt={runs[0]}", *options[1:]]))


def test_a_checkpoint_twice_is_itself(runs: Runs) -> None:
    model, _ = segmenter_of(files_of([str(runs[0]), str(runs[0])]))
    alone, _ = segmenter_of(files_of([str(runs[0])]))
    assert isinstance(model, Ensemble)
    assert not isinstance(alone, Ensemble)
    image = Shapes("val").read(0)[0][None]
    with torch.inference_mode():
        (_, both), (_, one) = next(model.predicted(image)), next(alone.predicted(image))
        assert torch.equal(both["logits"].argmax(dim=1), one["logits"].argmax(dim=1))
        assert model.uncertainty(both)["mutual_information"].max() < 1e-6
        assert torch.allclose(model.uncertainty(both)["entropy"], alone.uncertainty(one)["entropy"], atol=1e-6)


def test_a_changed_protocol_is_every_members(runs: Runs) -> None:
    model, _ = segmenter_of(files_of([str(run) for run in runs]))
    assert not model.inference.windows  # the first takes images whole
    model.predict_by({"mode": "window", "window": [64, 64], "flip": False})
    assert [(one.mode, one.window, one.flip) for one in model.protocols] == [("window", [64, 64], False)] * 2
    assert model.inference.windows


@pytest.mark.parametrize("ends", [[(0, 3), (3, 7)], [(0, 7)], [(0, 1), (1, 2), (2, 7)]])
def test_strips_need_not_begin_at_the_same_rows(ends: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(3, 2, 4, 7, 5).softmax(dim=2)
    strips = [[(0, 7)], ends, [(0, 5), (5, 7)]]
    cut = [iter([(a, m[:, :, a:b].clone()) for a, b in of]) for m, of in zip(maps, strips, strict=True)]
    found = list(averaged(cut[::-1]))
    assert [top for top, _ in found] == [0, 5]
    logits = torch.cat([outputs["logits"] for _, outputs in found], dim=-2)
    assert torch.allclose(logits.exp(), maps.mean(dim=0), atol=1e-6)
    entropy = torch.cat([outputs[ENTROPY] for _, outputs in found], dim=-2)
    assert torch.allclose(entropy[:, 0], torch.special.entr(maps).sum(dim=2).mean(dim=0), atol=1e-5)


def test_other_classes_are_refused(runs: Runs, tmp_path: Path) -> None:
    content = torch.load(runs[0] / run_folder.BEST, weights_only=True)
    for names, words in (
        (["background", "rectangle", "disk", "ring", "line", "cross"], "in another order"),
        (["background", "disk", "rectangle", "ring", "line", "star"], "tells 6 classes .*star"),
    ):
        content["segmenter"]["label_set"]["names"] = names
        torch.save(content, tmp_path / "other.ckpt")
        with pytest.raises(UserError, match=words):
            segmenter_of(files_of([str(runs[0]), str(tmp_path / "other.ckpt")]))


@pytest.mark.parametrize(("overrides", "words"), [
    (["calibrate=true", "metrics=[calibration]"], "calibrate: a temperature is kept in a checkpoint, and ckpt names several"),
    (["trainer.strategy=fsdp"], "trainer.strategy: fsdp cuts one model into shards"),
])  # fmt: skip
def test_what_is_of_one_checkpoint_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Evaluation.of(compose("evaluate", ["ckpt=[a,b]", *overrides]))


def test_a_list_of_none_is_refused() -> None:
    with pytest.raises(UserError, match="ckpt"):
        Evaluation.of(compose("evaluate", ["ckpt=[]"]))
    with pytest.raises(UserError, match="an empty list"):
        load([])


@pytest.mark.slow
def test_two_ranks_count_as_one(
    runs: Runs, tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    options = ["splits=[val]", "metrics=[classes]", "bootstrap.samples=0"]
    evaluate(evaluation(tmp_path / "one", listed(runs), *options))
    ranks = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path}/two"]
    done = run("src.evaluate", listed(runs), *options, *ranks, timeout=600)
    assert done.returncode == 0, done.stderr
    one, two = (matrices.read(tmp_path / of / "evaluation/val" / matrices.FILE) for of in ("one", "two"))
    assert list(one.ids) == list(two.ids)
    assert np.array_equal(one.right, two.right) and np.array_equal(one.predicted, two.predicted)


@pytest.mark.slow
def test_as_a_user_types_it(runs: Runs, tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Also with a folder whose name Hydra would read otherwise."""
    odd = tmp_path / "my runs, old=1"
    shutil.copytree(runs[0], odd)
    picture(tmp_path / "in/a.png", 70, 90)
    given = [f"input={tmp_path}/in", f"output={tmp_path}/out", "device=cpu"]
    done = run("src.predict", f"ckpt=['{odd}',{runs[1]}]", *given)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/masks/a.png").is_file()
    alone = run("src.predict", f"ckpt={odd}", *given)
    assert alone.returncode == 2 and "holds predictions of another checkpoint" in alone.stderr
