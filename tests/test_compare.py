"""From two small runs to what may be claimed: evaluate's measurements, and compare as a user starts it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from src.cli.command import compose
from src.cli.request import Request
from src.compare import PairedComparison, compare
from src.config.evaluation import Evaluation
from src.errors import UserError
from src.evaluate import evaluate
from src.evaluation import matrices
from src.predict import predict
from src.storage import run_folder
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import settings
from tests.test_report import _Page

Run = Callable[..., subprocess.CompletedProcess[str]]
ALL = "metrics=[classes,boundary,calibration,images]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two seeds of one recipe; the first is evaluated with everything, and calibrated."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        (folder / f"{seed}/.hydra").mkdir(parents=True)
        train(settings(folder / str(seed), f"seed={seed}", "trainer.max_epochs=1"))
        (folder / f"{seed}/.hydra/config.yaml").write_text(f"seed: {seed}\n")
    evaluate(
        evaluation(folder / "log", folder / "1", ALL, "calibrate=true", "metrics.pictures=2", "bootstrap.samples=100")
    )
    return folder / "1", folder / "2"


def evaluation(output: Path, run: Path, *overrides: str) -> dict[str, Any]:
    composed = compose("evaluate", [f"ckpt={run}", "trainer=cpu", *overrides])
    composed["paths"]["output_dir"] = str(output)
    return composed


def said(folder: Path, split: str = "val") -> Any:
    return json.loads((folder / "evaluation" / split / "metrics.json").read_text())


def outputs(run: Path, split: str = "val") -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, logits [K, H, W] and truth of each image, by another way than evaluation's."""
    from src.training.scoring import open_checkpoint

    opened = open_checkpoint(Evaluation.of(evaluation(run, run)))
    source = opened.datamodule.source(split)  # type: ignore[arg-type]
    found = []
    for index in range(len(source)):
        image, mask = source.read(index)
        with torch.inference_mode():
            found.append((source.name(index), opened.model.logits(image[None])[0].numpy(), mask.numpy()))
    return found


def test_each_images_matrix_is_scikit_learns_and_their_sum_gives_the_runs_score(runs: tuple[Path, Path]) -> None:
    run, _ = runs
    with np.load(run / "evaluation/val/images.npz") as file:
        found = dict(zip(file["ids"], file["matrices"], strict=True))
        names = list(file["names"])
    expected = outputs(run)
    assert list(found) == [name for name, _, _ in expected]
    for name, logits, truth in expected:
        known = truth != 255
        labels = range(len(names))
        assert np.array_equal(found[name], confusion_matrix(truth[known], logits.argmax(0)[known], labels=labels))
    metrics = run_folder.read_metrics(run)
    assert metrics is not None
    content = said(run)
    assert content["data_set"]["miou"] == pytest.approx(metrics["val"]["miou"], abs=1e-12)
    assert content["data_set"]["mean_dice"] == pytest.approx(metrics["val"]["dice"], abs=1e-12)
    own = []
    for _, logits, truth in expected:
        known = truth != 255
        given, true = logits.argmax(0)[known], truth[known]
        own.append(jaccard_score(true, given, labels=sorted({*given, *true}), average="macro"))
    assert content["per_image"]["miou"] == pytest.approx(np.mean(own))
    assert [row["miou"] for row in content["by_image"]] == pytest.approx(sorted(own))
    low, high = content["data_set"]["miou_interval"]
    assert low < content["data_set"]["miou"] < high


def test_the_calibration_is_that_of_the_probabilities(runs: tuple[Path, Path]) -> None:
    found = said(runs[0])["calibration"]
    logits = np.concatenate(
        [each.reshape(len(each), -1).T[truth.ravel() != 255] for _, each, truth in outputs(runs[0])]
    )
    truth = np.concatenate([truth[truth != 255] for _, _, truth in outputs(runs[0])])
    for part in (found["at"][0], found["fitted"]):
        shares = torch.from_numpy(logits).double().div(part["temperature"]).softmax(1).numpy()
        nll = -np.log(shares[np.arange(len(truth)), truth]).mean()
        assert part["nll"] == pytest.approx(nll, rel=1e-4)
        confidence, right = shares.max(1), shares.argmax(1) == truth
        bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
        error = sum(abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(15)) / len(truth)
        assert part["ece"] == pytest.approx(error, abs=2e-4)
    assert found["fitted"]["nll"] < found["at"][0]["nll"]
    test = said(runs[0], "test")["calibration"]["at"]
    assert [(part["of"], part["temperature"]) for part in test] == [
        ("the network", 1.0), ("val", found["fitted"]["temperature"]),
    ]  # fmt: skip


def test_a_calibrated_checkpoint_gives_the_same_masks_and_other_probabilities(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    calibrated = runs[0] / run_folder.CALIBRATED
    temperature = said(runs[0])["calibration"]["fitted"]["temperature"]
    model, _ = model_from_checkpoint(calibrated)
    plain, _ = model_from_checkpoint(runs[0] / run_folder.BEST)
    assert model.temperature == pytest.approx(temperature)
    assert plain.temperature == 1.0
    image = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(model.logits(image), plain.logits(image))
        expected = (plain.logits(image) / temperature).softmax(1)
        assert torch.allclose(model.probabilities(image), expected)
    Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    for name, file in (("plain", runs[0]), ("calibrated", calibrated)):
        given = [
            f"ckpt={file}",
            f"input={tmp_path}/a.png",
            f"output={tmp_path}/{name}",
            "device=cpu",
            "uncertainty=true",
        ]
        assert predict(compose("predict", given)) == []
    masks, entropies = (
        [np.asarray(Image.open(tmp_path / name / file)) for name in ("plain", "calibrated")]
        for file in ("masks/a.png", "uncertainty/a_entropy.png")
    )
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(entropies[0], entropies[1])
    assert evaluate(evaluation(tmp_path / "again", calibrated))["val"] == pytest.approx(
        run_folder.read_metrics(runs[0])["val"]  # type: ignore[index]
    )


def test_pictures_and_figures_are_there(runs: tuple[Path, Path]) -> None:
    folder = runs[0] / "evaluation/val"
    pictures = sorted(file.name for file in (folder / "images").iterdir())
    assert [name[:10] for name in pictures] == ["typical_01", "typical_02", "worst_01_v", "worst_02_v"]
    assert said(runs[0])["by_image"][0]["id"].replace("/", "_") in pictures[2]
    for file in (folder / "trimap.png", folder / "reliability.png", folder / "images" / pictures[0]):
        with Image.open(file) as picture:
            assert min(picture.size) > 100
    assert said(runs[0])["boundary"]["data_set_boundary_iou"] > 0


def test_where_it_is_written(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Under another protocol, or as told, the run's own file stays what it is."""
    before = (runs[0] / "evaluation/val/images.npz").read_bytes()
    one = ["splits=[val]", "metrics=[classes]", "bootstrap.samples=0"]
    evaluate(evaluation(tmp_path / "flipped", runs[0], *one, "inference.flip=true"))
    assert (tmp_path / "flipped/evaluation/val/images.npz").is_file()
    evaluate(evaluation(tmp_path / "log", runs[0], *one, f"output={tmp_path}/told"))
    assert matrices.read(tmp_path / "told/evaluation/val/images.npz").about["as_trained"] is True
    shutil.copy(runs[0] / run_folder.BEST, tmp_path / "alone.ckpt")
    evaluate(evaluation(tmp_path / "of file", tmp_path / "alone.ckpt", *one))
    assert (tmp_path / "of file/evaluation/val/images.npz").is_file()
    assert (runs[0] / "evaluation/val/images.npz").read_bytes() == before
    evaluate(evaluation(tmp_path / "plain", runs[0], "splits=[val]"))
    assert sorted(file.name for file in (tmp_path / "plain").iterdir()) == ["metrics.json"]


@pytest.mark.parametrize(("overrides", "message"), [
    (["calibrate=true"], "calibrate: a temperature is fitted by metrics=[calibration] on val"),
    (["metrics=[calibration]", "calibrate=true", "splits=[test]"], "calibrate: a temperature is fitted by metrics="),
    (["metrics=[class]"], "metrics.of"),
    (["metrics.bin=3"], "metrics.bin"),
    (["output=x"], "output: is for what metrics=[…] measures"),
    (["metrics=[classes]", "bootstrap.group='^(.*)x'"], "bootstrap.group: '^(.*)x' is not found in the name"),
])  # fmt: skip
def test_mistakes_are_named(runs: tuple[Path, Path], tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        evaluate(evaluation(tmp_path, runs[0], *overrides))


def test_a_list_of_metrics_is_that_of_evaluate_alone() -> None:
    assert Request.parse("evaluate", ["metrics=[classes]"]).overrides == ["++metrics.of=[classes]"]
    assert Request.parse("train", ["metrics=topology"]).overrides == ["metrics=topology"]


def comparison(tmp_path: Path, a: object, b: object, *overrides: str) -> dict[str, Any]:
    return compose(
        "compare", [f"a={a}", f"b={b}", "trainer=cpu", f"output={tmp_path}", "bootstrap.samples=200", *overrides]
    )


def test_compare_evaluates_what_has_no_file_and_says_what_may_be_claimed(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(comparison(tmp_path, *runs, "pictures=1"))
    assert (runs[1] / "evaluation/val/images.npz").is_file()
    found = json.loads((tmp_path / "compare.json").read_text())
    scores = [run_folder.read_metrics(run)["val"]["miou"] for run in runs]  # type: ignore[index]
    assert [found["data_set_miou"][side] for side in "ab"] == pytest.approx(scores)
    assert found["data_set_miou"]["by"]["value"] == pytest.approx(scores[1] - scores[0])
    assert len(found["by_image"]) == 5 and len(found["classes"]) == 6
    printed = capsys.readouterr().out
    assert found["verdict"] in printed and "what another seed would change" in printed
    page = _Page()
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    page.feed(text)
    assert page.open == [] and "script" not in page.elements
    assert len(page.links) in (1, 2) and all(link.startswith("data:image/webp") for link in page.links)
    assert found["verdict"] in text.replace("&#39;", "'") and "default-src 'none'" in text
    occurring = sum(one["iou"]["by"]["value"] is not None for one in found["classes"])
    assert page.elements.count("circle") == 5 + occurring


def test_several_runs_a_side_and_a_folder_of_an_evaluation(runs: tuple[Path, Path], tmp_path: Path) -> None:
    one = ["splits=[val]", "metrics=[classes]", "bootstrap.samples=0"]
    for at, run in enumerate(runs):
        evaluate(evaluation(tmp_path / f"flip{at}", run, *one, "inference.flip=true"))
        (tmp_path / f"flip{at}/.hydra").mkdir()
        (tmp_path / f"flip{at}/.hydra/config.yaml").write_text(f"seed: {at + 1}\nckpt: x\n")
    sides = (runs, (tmp_path / "flip0", tmp_path / "flip1"))
    lists = ["[" + ",".join(f"'{path}'" for path in side) + "]" for side in sides]
    compare(comparison(tmp_path, *lists))
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["seeds"]["paired"] is True
    assert [row[0] for row in found["seeds"]["rows"]] == [1, 2]
    assert "Over seeds (paired by seed)" in found["verdict"]


@pytest.mark.parametrize(("a", "b", "message"), [
    ("{0}", "{0}", "b: is one of the runs of a"),
    ("{0}", "nowhere", "b: there is no folder nowhere"),
    ("{tmp}", "{0}", "a: {tmp} is no run, and no completed run is below it"),
])  # fmt: skip
def test_what_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path, a: str, b: str, message: str) -> None:
    given = [text.format(*runs, tmp=tmp_path) for text in (a, b)]
    with pytest.raises(UserError, match=re.escape(message.format(tmp=tmp_path))):
        compare(comparison(tmp_path, *given))


def test_a_run_with_other_weights_than_its_file_is_evaluated_anew(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs[1], tmp_path / "run")
    compare(comparison(tmp_path, runs[0], run, "pictures=0"))
    shutil.copy(runs[0] / run_folder.BEST, run / run_folder.BEST)
    compare(comparison(tmp_path, runs[0], run, "pictures=0"))
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["data_set_miou"]["by"]["value"] == 0.0 and found["data_set_miou"]["p"] == 1.0


def test_the_keys_of_a_comparison() -> None:
    asked = PairedComparison.of(compose("compare", ["a=x (1), y", "b=[x,'y z']"]))
    assert (asked.a, asked.b) == ("x (1), y", ["x", "y z"])
    for wrong, message in (("bootstrap.samples=10", "100 data sets or more"), ("trainer=ddp_cpu", "takes one device")):
        with pytest.raises(UserError, match=message):
            PairedComparison.of(compose("compare", ["a=x", "b=y", wrong]))


@pytest.mark.slow
def test_two_devices_count_the_same(runs: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    """5 images, 2 at a time: one rank gets 3 and the other 2."""
    given = [
        f"ckpt={runs[0]}",
        ALL,
        "trainer=ddp_cpu",
        "trainer.devices=2",
        f"output={tmp_path}",
        "bootstrap.samples=100",
    ]
    result = run("src.evaluate", *given, f"hydra.run.dir={tmp_path}/log")
    assert result.returncode == 0, result.stderr
    for split in ("val", "test"):
        with (
            np.load(runs[0] / f"evaluation/{split}/images.npz") as alone,
            np.load(tmp_path / f"evaluation/{split}/images.npz") as both,
        ):
            for name in ("ids", "matrices"):
                assert np.array_equal(alone[name], both[name])
        one, other = said(runs[0], split), said(tmp_path, split)
        assert one["boundary"] == other["boundary"] and one["classes"] == other["classes"]
        for ours, theirs in zip(one["calibration"]["at"], other["calibration"]["at"], strict=True):
            assert ours["ece"] == pytest.approx(theirs["ece"]) and ours["nll"] == pytest.approx(theirs["nll"])
