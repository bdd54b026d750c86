"""`from src import load`: the pixels of `predict`, from arrays, PIL images and paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src import load
from src.cli.command import compose
from src.data import windows
from src.errors import UserError
from src.inference import photos
from src.predict import predict
from src.storage.checkpoints import write_calibrated
from src.storage.run_folder import BEST
from src.train import train
from tests.conftest import environment, settings
from tests.inference.test_inputs import picture


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings(tmp_path_factory.mktemp("photos"), "trainer.max_epochs=1", "test=false")).run_dir


def written(run_dir: Path, given: Path, output: Path) -> dict[str, np.ndarray]:
    options = [f"ckpt={run_dir}", f"input={given}", f"output={output}", "device=cpu", "probabilities=true"]
    assert predict(compose("predict", options)) == []
    return {kind: np.asarray(Image.open(output / kind / f"{given.stem}.png")) for kind in ("masks", "overlays")} | {
        "probabilities": np.load(output / f"probabilities/{given.stem}.npy")
    }


@pytest.mark.parametrize("large", [False, True])
def test_the_same_pixels_as_predict(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    file = picture(tmp_path / "in/a.png", 150, 190)
    if large:
        monkeypatch.setattr(photos, "WHOLE", 100)
        monkeypatch.setattr(photos, "SIDE", 160)
    expected = written(run_dir, file, tmp_path / "out")
    segmenter = load(str(run_dir), device="cpu")
    pixels = np.asarray(Image.open(file))
    for given in (file, str(file), Image.open(file), pixels):
        found = segmenter.predict(given)
        assert found.mask.dtype == np.uint8
        assert np.array_equal(found.mask, expected["masks"])
        assert np.array_equal(found.probabilities, expected["probabilities"])
        assert np.array_equal(found.overlay(), expected["overlays"])
    assert (found.names, found.colors) == (segmenter.labels.names, segmenter.labels.colors)
    assert windows.WHOLE == 4096 * 4096


def test_probabilities_are_at_the_fitted_temperature(run_dir: Path, tmp_path: Path) -> None:
    """What `calibrate=true` writes moves no class, and every probability that is written or given."""
    file = picture(tmp_path / "a.png", 64, 96)
    plain = load(run_dir, device="cpu").predict(file)
    calibrated = tmp_path / "calibrated.ckpt"
    write_calibrated(run_dir / BEST, 2.0, calibrated)
    found = load(calibrated, device="cpu").predict(file)
    root = plain.probabilities.astype(np.float32) ** 0.5
    assert np.allclose(found.probabilities, root / root.sum(axis=0), atol=2e-3)
    assert np.array_equal(found.mask, plain.mask)
    output = tmp_path / "out"
    predict(compose("predict", [
        f"ckpt={calibrated}", f"input={file}", f"output={output}", "device=cpu", "probabilities=true",
    ]))  # fmt: skip
    assert np.array_equal(np.load(output / "probabilities/a.npy"), found.probabilities)


def test_a_list_is_a_batch(run_dir: Path, tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{at}.png", width=50 + 8 * (at == 2), seed=at) for at in range(6)]
    segmenter = load(run_dir / BEST, device="cpu", batch_size=3)
    together = segmenter.predict([str(file) for file in files])
    assert [found.mask.shape[1] for found in together] == [50, 50, 58, 50, 50, 50]
    for file, found in zip(files, together, strict=True):
        assert np.array_equal(found.mask, segmenter.predict(file).mask)
    assert segmenter.predict([]) == []


def test_a_photo_that_a_camera_turned(run_dir: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(picture(tmp_path / "a.png", 40, 60)).save(tmp_path / "b.png", exif=exif)
    segmenter = load(run_dir, device="cpu")
    by_path, by_image = (segmenter.predict(given) for given in (tmp_path / "b.png", Image.open(tmp_path / "b.png")))
    assert by_path.mask.shape == (60, 40)
    assert np.array_equal(by_path.mask, by_image.mask)


def test_what_is_wrong_is_said(run_dir: Path, tmp_path: Path) -> None:
    segmenter = load(run_dir, device="cpu")
    given = {
        "has the shape": np.zeros((4, 4), np.uint8), "uint8, 0 to 255": np.zeros((4, 4, 3), np.float32),
        "cannot be read": tmp_path / "none.png", "is no photo by its name": "a.nii.gz", "is a int": 3,
    }  # fmt: skip
    for words, image in given.items():
        with pytest.raises(UserError, match=words):
            segmenter.predict(image)  # type: ignore[call-overload]
    for words, place, options in (
        ("s3: is no place", "s3://a/b", {}),
        ("there is no file", "none", {}), ("cannot be used", str(run_dir), {"device": "cuda:77"}),
        ("precision: predicting in 64", str(run_dir), {"precision": "64"}),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            load(place, **{"device": "cpu", **options})  # type: ignore[arg-type]


def test_from_another_folder_without_torch_until_it_is_used(run_dir: Path, tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    code = (
        "import sys, src; assert 'torch' not in sys.modules; from src import load; "
        f"print(load({str(run_dir)!r}, device='cpu').predict({str(file)!r}).mask.shape); "
        "import src.nothing"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), text=True, capture_output=True, timeout=200
    )
    assert done.stdout.strip() == "(40, 50)"
    assert "No module named 'src.nothing'" in done.stderr
