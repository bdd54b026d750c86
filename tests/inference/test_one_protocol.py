"""`inference.*` means the same in training's validation and test, in `evaluate` and in `predict`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from src.cli.command import compose
from src.config.inference import Inference
from src.errors import UserError
from src.evaluate import evaluate
from src.inference import protocol
from src.inference.protocol import joined
from src.predict import predict
from src.storage import run_folder
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import SMALL, settings

Run = Callable[..., subprocess.CompletedProcess[str]]
# Samples are 32 x 48, so that there are several windows.
WINDOWS = ["inference=window", "inference.window=[32,32]", "inference.stride=[16,12]", "inference.batch=2"]
PAPERS = ["inference=multiscale", "inference.short_side=40"]


def run_of(run_dir: Path, *options: str) -> Path:
    train(settings(run_dir, "trainer.max_epochs=1", *options))
    return run_dir


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("windowed"), *WINDOWS, "inference.blend=gaussian")


def evaluation(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    composed = compose("evaluate", list(overrides))
    composed["paths"]["output_dir"] = str(tmp_path)
    return composed


def test_evaluate_scores_as_the_run_did(windowed: Path, tmp_path: Path) -> None:
    recorded = run_folder.read_metrics(windowed)
    assert recorded is not None
    results = evaluate(evaluation(tmp_path / "same", f"ckpt={windowed}"))
    assert results == {split: recorded[split] for split in ("val", "test")}
    written = run_folder.read_metrics(tmp_path / "same")
    assert written is not None
    assert written["inference"] == recorded["inference"]
    assert Inference(**recorded["inference"]) == model_from_checkpoint(windowed / run_folder.BEST)[0].inference
    assert (recorded["inference"]["mode"], recorded["inference"]["blend"]) == ("window", "gaussian")


def test_evaluate_by_another_protocol(windowed: Path, tmp_path: Path) -> None:
    """Key by key, or an option of the group; what was said stands beside the scores."""
    found = {}
    for name, options in {"own": [], "whole": ["inference=whole"], "papers": ["inference.mode=whole", *PAPERS]}.items():
        found[name] = evaluate(evaluation(tmp_path / name, f"ckpt={windowed}", *options))["val"]
    assert found["own"] != found["whole"] != found["papers"]
    written = run_folder.read_metrics(tmp_path / "papers")
    assert written is not None
    assert written["inference"]["scales"] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert (written["inference"]["flip"], written["inference"]["short_side"]) == (True, 40)
    larger = evaluation(tmp_path, f"ckpt={windowed}", "inference.window=[64,64]")
    evaluate(larger)  # the stride was the other window's
    again = run_folder.read_metrics(tmp_path)
    assert again is not None
    assert again["inference"]["stride"] is None
    with pytest.raises(UserError, match=r"inference\.stride: .* would leave pixels out"):
        evaluate(evaluation(tmp_path, f"ckpt={windowed}", "inference.stride=[64,64]"))
    with pytest.raises(UserError, match=r"inference\.flip: should be a valid boolean"):
        evaluate(evaluation(tmp_path, f"ckpt={windowed}", "inference.flip=maybe"))


def test_one_window_is_no_window(tmp_path: Path) -> None:
    """Bit for bit, in all scores and all weights."""
    runs = [run_of(tmp_path / name, f"inference={name}") for name in ("whole", "window")]
    first, second = (run_folder.read_metrics(run) for run in runs)
    assert first is not None and second is not None
    assert [first[s] for s in ("val", "test")] == [second[s] for s in ("val", "test")]
    states = [torch.load(run / run_folder.BEST, weights_only=True)["state_dict"] for run in runs]
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())


def test_strips_score_as_one_piece(windowed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image whose logits are too many at once is scored the same; its loss is that of its strips, by their rows."""
    whole = evaluate(evaluation(tmp_path / "whole", f"ckpt={windowed}"))["val"]
    monkeypatch.setattr(protocol, "_AT_ONCE", 2 * 6 * 8 * 48)
    parted = evaluate(evaluation(tmp_path / "parted", f"ckpt={windowed}"))["val"]
    loss, expected = parted.pop("loss"), whole.pop("loss")
    assert parted == whole
    assert loss == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("options", [WINDOWS, PAPERS])
def test_predict_writes_what_is_scored(windowed: Path, tmp_path: Path, options: list[str]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (75, 101, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    model, _ = model_from_checkpoint(windowed / run_folder.BEST)
    asked = ["inference.mode=whole", *options] if options is PAPERS else options
    told = compose(
        "predict", [f"ckpt={windowed}", f"input={tmp_path}/a.png", f"output={tmp_path}/out", "device=cpu", *asked]
    )
    assert predict(told) == []
    model.inference = model.inference.with_keys(told["inference"])
    with torch.inference_mode():
        raw = torch.from_numpy(image).permute(2, 0, 1)[None]
        expected = joined(model.predicted(raw))["logits"].argmax(dim=1)[0].numpy()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/a.png")), expected)


def test_predict_with_two_kinds_of_windows(windowed: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    told = [f"ckpt={windowed}", f"input={tmp_path}/a.png", f"output={tmp_path}/out", "window=64", "overlap=32"]
    with pytest.raises(UserError, match=r"window: .* give inference.window=\[64,64\], or inference.mode=whole"):
        predict(compose("predict", told))
    assert predict(compose("predict", [*told, "inference.mode=whole"])) == []


def test_a_raster_of_several_windows(windowed: Path, tmp_path: Path) -> None:
    """Windows of a scene are averaged without seams, as those of the same picture are, mirrored or not; other sizes are
    refused in words."""
    rasterio = pytest.importorskip("rasterio")
    values = np.random.default_rng(1).integers(0, 255, (3, 90, 120), np.uint8)
    grid = {"height": 90, "width": 120, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    place = rasterio.transform.from_origin(5e5, 5e6, 1, 1)
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", transform=place, **grid) as sink:
        sink.write(values)
    Image.fromarray(values.transpose(1, 2, 0)).save(tmp_path / "photo.png")
    common = [f"ckpt={windowed}", f"output={tmp_path}/out", "device=cpu", "inference.flip=true"]
    for name in ("scene.tif", "photo.png"):
        assert predict(compose("predict", [*common, f"input={tmp_path}/{name}"])) == []
    with rasterio.open(tmp_path / "out/masks/scene.tif") as mask:
        assert np.array_equal(mask.read(1), np.asarray(Image.open(tmp_path / "out/masks/photo.png")))
    for key, mend in {
        "inference.scales=[0.5,1]": "take inference.scales=",
        "inference.short_side=64": "short_side=0",
        "inference.resize=[64,64]": "take inference.resize=[]",
    }.items():
        (line,) = predict(compose("predict", [*common, key, "overwrite=true", f"input={tmp_path}/scene.tif"]))
        assert mend in line


@pytest.mark.slow
def test_two_ranks_give_the_same_counts(windowed: Path, run: Run, tmp_path: Path) -> None:
    """Windows, sizes and mirror images; the split has 5 images, 3 on one rank and 2 on the other."""
    options = ["splits=[val]", "inference.scales=[0.75,1]", "inference.flip=true"]
    two = run(
        "src.evaluate",
        f"ckpt={windowed}",
        *options,
        "trainer=ddp_cpu",
        "trainer.devices=2",
        f"hydra.run.dir={tmp_path}/two",
    )
    assert two.returncode == 0, two.stderr
    alone = evaluate(evaluation(tmp_path / "one", f"ckpt={windowed}", *options))["val"]
    both = json.loads((tmp_path / "two" / run_folder.METRICS).read_text())["val"]
    loss, expected = both.pop("loss"), alone.pop("loss")
    assert both == alone
    assert loss == pytest.approx(expected, rel=1e-6)


def test_noise_is_averaged_too(tmp_path: Path) -> None:
    """A generator with noise: windows of its mean probability, and its two uncertainties."""
    run_dir = run_of(tmp_path / "run", "model=gan", "model.noise.channels=2", "discriminator.depth=2", *WINDOWS)
    model, _ = model_from_checkpoint(run_dir / run_folder.BEST)
    raw = torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8)
    with torch.inference_mode():
        outputs = joined(model.predicted(raw))
        maps = model.uncertainty(outputs)
    assert outputs["logits"].shape == (1, 6, 50, 70)
    assert maps.keys() == {"entropy", "mutual_information"}
    assert all(values.shape == (1, 50, 70) and values.min() >= 0 and values.max() <= 1 for values in maps.values())


def test_a_strangers_protocol_is_checked(windowed: Path, tmp_path: Path) -> None:
    content = torch.load(windowed / run_folder.BEST, weights_only=True)
    (about,) = (value for value in content.values() if isinstance(value, dict) and "label_set" in value)
    for bad in ({"scales": [1e9]}, {"batch": 10**9}, {"_target_": "os.system"}, {"window": [1, 1]}):
        about["config"]["inference"] = bad
        torch.save(content, tmp_path / "bad.ckpt")
        with pytest.raises(UserError, match=r"ckpt: .*bad.ckpt: inference\."):
            model_from_checkpoint(tmp_path / "bad.ckpt")
    del about["config"]["inference"]
    torch.save(content, tmp_path / "old.ckpt")
    assert model_from_checkpoint(tmp_path / "old.ckpt")[0].inference == Inference()


@pytest.mark.slow
def test_a_resumed_run_keeps_its_protocol(run: Run, tmp_path: Path) -> None:
    """A new one with its config may have another, also where its config is of before there were protocols."""
    short = [*SMALL, "trainer.max_epochs=1", "test=false"]
    assert run("src.train", *short, f"hydra.run.dir={tmp_path}/run").returncode == 0
    result = run("src.train", f"resume={tmp_path}/run", "inference.flip=true")
    assert result.returncode == 2
    assert "inference.flip: a resumed run keeps its own, or the best score so far would be another's" in result.stderr
    config = tmp_path / "run" / run_folder.CONFIG
    content = yaml.safe_load(config.read_text())
    del content["inference"]
    config.write_text(yaml.safe_dump(content))
    anew = run("src.train", f"like={tmp_path}/run", "inference.flip=true", f"hydra.run.dir={tmp_path}/anew")
    assert anew.returncode == 0, anew.stderr
    metrics = run_folder.read_metrics(tmp_path / "anew")
    assert metrics is not None
    assert metrics["inference"]["flip"] is True
