"""Predictions of rasters and volumes: where they lie is kept, and windows give what the whole image gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from src.cli.command import compose
from src.data.formats.nifti import open_nifti
from src.data.readers.slicing import Slicing
from src.data.windows import parts
from src.errors import UserError
from src.predict import predict
from src.storage.run_folder import BEST
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import settings
from tests.data.formats import test_geotiff, test_nifti
from tests.data.formats.test_geotiff import scene, write_raster
from tests.data.volumes import phantom, write_dicom, write_nifti


def prediction(ckpt: Path, given: Path, output: Path, *overrides: str) -> dict[str, Any]:
    return compose("predict", [f"ckpt={ckpt}", f"input={given}", f"output={output}", "device=cpu", *overrides])


@pytest.fixture(scope="module")
def on_rasters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rasters")
    test_geotiff.write(folder, dtype="uint16")
    return train(settings(folder / "run", *test_geotiff.overrides(folder), small=False)).run_dir


@pytest.fixture(scope="module")
def on_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = test_nifti.single(tmp_path_factory.mktemp("volumes"))
    keys = ["images=image.nii", "masks=label.nii", "block=4", "neighbors=1", "axis=coronal", "window=[0,2000]"]
    more = [f"data.dataset.{key}" for key in keys]
    return train(settings(folder / "run", *test_nifti.overrides(folder, *more), small=False)).run_dir


@pytest.fixture(scope="module")
def on_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings(tmp_path_factory.mktemp("photos"), "trainer.max_epochs=1", "test=false")).run_dir


@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128, 129, 160, 1000])
def test_each_pixel_is_kept_once(length: int) -> None:
    kept = np.zeros((length, 70), int)
    for part in parts(length, 70, side=64, overlap=32):
        read, keep = part.read, part.keep
        assert read.top <= keep.top
        assert read.left <= keep.left
        assert keep.top + keep.height <= read.top + read.height <= length
        assert keep.left + keep.width <= read.left + read.width <= 70
        assert read.top % 32 == 0
        assert keep.top == 0 or keep.top - read.top >= 16
        kept[keep.top : keep.top + keep.height, keep.left : keep.left + keep.width] += 1
    assert (kept == 1).all()


def test_a_raster_keeps_its_place(on_rasters: Path, tmp_path: Path) -> None:
    image, _ = scene(150, 230)
    image[:, 10:20, 30:40] = 0
    file = write_raster(tmp_path / "in/scene.tif", image, nodata=0)
    done = prediction(on_rasters, tmp_path / "in", tmp_path / "out", "window=96", "overlap=32", "uncertainty=true")
    assert predict(done) == []
    model, _ = model_from_checkpoint(on_rasters / BEST)
    with rasterio.open(file) as source, rasterio.open(tmp_path / "out/masks/scene.tif") as mask:
        assert (mask.crs, mask.transform, mask.shape) == (source.crs, source.transform, source.shape)
        assert mask.dtypes == ("uint8",)
        assert mask.colormap(1)[1][:3] == model.label_set.colors[1]
        written, nodata = mask.read(1), mask.nodata
    assert nodata == 255
    assert (written[10:20, 30:40] == 255).all()
    with torch.inference_mode():
        whole = model.logits(torch.from_numpy(image[[3, 0]])[None]).argmax(dim=1)[0].numpy()
    written[10:20, 30:40] = whole[10:20, 30:40]
    near = np.zeros(whole.shape, bool)  # of seams: kept parts meet at 80 + k * 64
    for at in (80, 144, 208):
        near[max(0, at - 8) : at + 8] = near[:, max(0, at - 8) : at + 8] = True
    assert np.array_equal(written[~near], whole[~near])
    with Image.open(tmp_path / "out/overlays/scene.png") as overlay:
        assert overlay.size == (230, 150)
    with rasterio.open(tmp_path / "out/uncertainty/scene_entropy.tif") as entropy:
        assert entropy.crs == "EPSG:32632"
    assert not list((tmp_path / "out/masks").glob(".*"))


def test_rasters_that_do_not_fit_are_named(on_rasters: Path, tmp_path: Path) -> None:
    write_raster(tmp_path / "in/few.tif", scene(bands=2)[0])
    (tmp_path / "in/text.tif").write_text("no raster")
    write_raster(tmp_path / "in/good.tif", scene()[0])
    failed = predict(prediction(on_rasters, tmp_path / "in", tmp_path / "out"))
    assert len(failed) == 2
    assert "few.tif: has 2 bands" in failed[0]
    assert "text.tif: cannot be read as a raster" in failed[1]
    assert [file.name for file in (tmp_path / "out/masks").iterdir()] == ["good.tif"]


def test_a_model_of_photos_takes_geotiff_too(on_photos: Path, tmp_path: Path) -> None:
    image = scene(bands=4, dtype="uint8")[0]
    write_raster(tmp_path / "in/aerial.tif", image)
    Image.fromarray(image[:3].transpose(1, 2, 0)).save(tmp_path / "in/photo.png")
    Image.fromarray(image[:3].transpose(1, 2, 0)).save(tmp_path / "in/plain.tif")
    write_raster(tmp_path / "in/deep.tif", scene(bands=3)[0])
    failed = predict(prediction(on_photos, tmp_path / "in", tmp_path / "out"))
    assert len(failed) == 1
    assert "deep.tif: is uint16 but the model was trained on 8 bits" in failed[0]
    assert sorted(f.name for f in (tmp_path / "out/masks").iterdir()) == ["aerial.tif", "photo.png", "plain.png"]
    with (
        rasterio.open(tmp_path / "out/masks/aerial.tif") as mask,
        Image.open(tmp_path / "out/masks/photo.png") as photo,
    ):
        assert np.array_equal(mask.read(1), np.asarray(photo))


@pytest.mark.parametrize("codes", ["RAS", "LIP"])
def test_a_volume_keeps_its_place(on_volumes: Path, tmp_path: Path, codes: str) -> None:
    file = write_nifti(tmp_path / "in/brain.nii.gz", phantom()[0], codes=codes)
    assert predict(prediction(on_volumes, tmp_path / "in", tmp_path / "out", "uncertainty=true")) == []
    given, written = (nib.load(f) for f in (file, tmp_path / "out/masks/brain.nii.gz"))
    assert np.allclose(given.affine, written.affine)  # type: ignore[attr-defined]
    assert given.shape == written.shape  # type: ignore[attr-defined]
    assert written.get_data_dtype() == np.uint8  # type: ignore[attr-defined]
    model, _ = model_from_checkpoint(on_volumes / BEST)
    volume = open_nifti(file)
    slicing = Slicing("coronal", neighbors=1, window=[0, 2000])
    classes = np.asanyarray(written.dataobj)  # type: ignore[attr-defined]
    for index in (0, 11, 23):
        with torch.inference_mode():
            expected = model.logits(slicing.image(volume, index)[None]).argmax(dim=1)[0].numpy()
        assert np.array_equal(volume.view(classes, "coronal", index), expected)
    assert (tmp_path / "out/overlays/brain.png").is_file()
    assert (tmp_path / "out/uncertainty/brain_entropy.nii.gz").is_file()


def test_a_dicom_series_is_segmented_to_nifti(on_volumes: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in/patient", phantom()[0], (1.0, 1.5, 2.0))
    write_nifti(tmp_path / "same.nii", phantom()[0], (1.0, 1.5, 2.0))
    for given in (tmp_path / "in", tmp_path / "same.nii"):
        assert predict(prediction(on_volumes, given, tmp_path / "out")) == []
    series, same = (nib.load(tmp_path / f"out/masks/{name}.nii.gz") for name in ("patient", "same"))
    turned = nib.as_closest_canonical(series)
    assert np.allclose(turned.affine, same.affine)  # type: ignore[attr-defined]
    assert np.array_equal(turned.dataobj, same.dataobj)  # type: ignore[attr-defined]


def test_a_volume_needs_a_model_of_volumes(on_photos: Path, tmp_path: Path) -> None:
    write_nifti(tmp_path / "brain.nii", phantom()[0])
    failed = predict(prediction(on_photos, tmp_path / "brain.nii", tmp_path / "out"))
    assert "not trained on volumes" in failed[0]


def test_more_overlap_than_window(on_photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="overlap: 128 is more than half of window=128"):
        predict(prediction(on_photos, tmp_path, tmp_path / "out", "window=128"))
