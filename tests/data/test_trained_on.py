"""A model and the data that it is given: read as in training unless typed otherwise, and refused where they cannot fit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import rasterio
import torch
from PIL import Image

from src.cli.command import compose
from src.data.labels import LabelSet
from src.data.trained_on import Images, as_trained, check_classes, typed_keys
from src.errors import UserError
from src.evaluate import evaluate
from src.predict import predict
from src.storage import run_folder
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import settings
from tests.data.formats import test_geotiff, test_nifti
from tests.data.formats.test_geotiff import scene, write_raster, write_with_points
from tests.data.volumes import phantom, write_dicom, write_nifti
from tests.inference.test_predict_grids import prediction

# What says where the data lie; all else of how they are read belongs to the model.
PLACE = ["data.dataset.images=image.nii", "data.dataset.masks=label.nii", "data.dataset.block=4"]
LABELS = "data.dataset.labels={one: 1, two: 2}"
READ = ["neighbors=1", "axis=coronal", "window=[40,400]", "spacing=2"]


@pytest.fixture(scope="module")
def on_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = test_nifti.single(tmp_path_factory.mktemp("volumes"))
    read = [f"data.dataset.{key}" for key in READ]
    return train(settings(folder / "run", *test_nifti.overrides(folder, *PLACE, *read), small=False)).run_dir


@pytest.fixture(scope="module")
def on_rasters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rasters")
    test_geotiff.write(folder, dtype="uint16")
    return train(settings(folder / "run", *test_geotiff.overrides(folder), small=False)).run_dir


def scores(run_dir: Path, tmp_path: Path, *overrides: str, whole: bool = False) -> dict[str, dict[str, float]]:
    """What `python -m src.evaluate` gives with these overrides; `whole` as a function that is given all settings."""
    arguments = [f"ckpt={run_dir}", "data.num_workers=0", *overrides]
    composed = compose("evaluate", arguments)
    composed["paths"]["output_dir"] = str(tmp_path)
    return evaluate(composed, None if whole else typed_keys(arguments))


def recorded(run_dir: Path) -> dict[str, Any]:
    metrics = run_folder.read_metrics(run_dir)
    assert metrics is not None
    return metrics


def changed(run_dir: Path, file: Path, **about: Any) -> Path:
    """A run's best checkpoint with another description of itself; None takes a key out."""
    content = torch.load(run_dir / run_folder.BEST, weights_only=True)
    for key, value in about.items():
        content["segmenter"].pop(key, None)
        if value is not None:
            content["segmenter"][key] = value
    torch.save(content, file)
    return file


def test_volumes_are_read_as_in_training(on_volumes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The readme's form: window, spacing, axis and neighbours are the checkpoint's, not the group's."""
    caplog.set_level(logging.INFO)
    root = f"data.root={on_volumes.parent}"
    for labels in ([LABELS], ["data.dataset.labels={two: 2, one: 1}"], []):
        given = scores(on_volumes, tmp_path, "data=nifti", root, *PLACE, *labels)
        assert given["val"] == recorded(on_volumes)["val"], labels
    assert "data.dataset.axis=coronal, data.dataset.neighbors=1, data.dataset.window=[40,400]" in caplog.text


def test_rasters_are_read_as_in_training(on_rasters: Path, tmp_path: Path) -> None:
    place = ["data.dataset.images=*_image.tif", "data.dataset.masks=*_label.tif"]
    given = scores(on_rasters, tmp_path, "data=geotiff", f"data.root={on_rasters.parent}", *place)
    assert given["val"] == recorded(on_rasters)["val"]


@pytest.mark.parametrize("whole", [False, True])
def test_what_was_typed_otherwise_is_said(
    on_volumes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: bool
) -> None:
    more = [f"data.dataset.{key}" for key in READ] if whole else []
    typed = ["data=nifti", f"data.root={on_volumes.parent}", *PLACE, LABELS, *more, "data.dataset.spacing=1"]
    given = scores(on_volumes, tmp_path, *typed, whole=whole)
    assert given["val"] != recorded(on_volumes)["val"]
    assert "data.dataset.spacing=1 (trained with 2)" in caplog.text


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (["data.dataset.window=[50,350]"], "values from -125 to 225 but the model was trained on -160 to 240"),
        (["data.dataset.window=null"], "values from 0 to 65535 but the model was trained on -160 to 240"),
        (["data.dataset.neighbors=0"], "1 channel but the model was trained on 3"),
        (["data.dataset.labels={one: 1}"], "knows 3 classes .* the data has 2"),
    ],
)
def test_what_cannot_fit_is_refused(on_volumes: Path, tmp_path: Path, typed: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        scores(on_volumes, tmp_path, "data=nifti", f"data.root={on_volumes.parent}", *PLACE, *typed)


def test_a_groups_defaults_are_no_contradiction_but_all_settings_are(on_volumes: Path, tmp_path: Path) -> None:
    arguments = ["data=nifti", f"data.root={on_volumes.parent}", *PLACE, LABELS]
    with pytest.raises(UserError, match="1 channel but the model was trained on 3"):
        scores(on_volumes, tmp_path, *arguments, whole=True)


@pytest.mark.parametrize("trained", ["uint16", "uint8"])
@pytest.mark.parametrize("old", [False, True])
def test_eight_bits_and_more_are_told_apart_both_ways(tmp_path: Path, trained: str, old: bool) -> None:
    """An old checkpoint says no dtype: its range tells."""
    other = "uint8" if trained == "uint16" else "uint16"
    for dtype in (trained, other):
        test_geotiff.write(tmp_path / dtype, dtype=dtype)
    deep = ["data.dataset.intensity=[0,300]"] if trained == "uint16" else ["data.dataset.intensity=null"]
    run_dir = train(
        settings(tmp_path / "run", *test_geotiff.overrides(tmp_path / trained), *deep, "test=false", small=False)
    ).run_dir
    file = changed(run_dir, tmp_path / "x.ckpt", **(dict.fromkeys(("dtype", "modality")) if old else {}))
    failed = predict(prediction(file, tmp_path / other / "s0_image.tif", tmp_path / "out"))
    assert len(failed) == 1
    assert f"s0_image.tif: is {other} but the model was trained on" in failed[0]
    assert predict(prediction(file, tmp_path / trained / "s0_image.tif", tmp_path / "out")) == []
    place = ["data=geotiff", "data.dataset.images=*_image.tif", "data.dataset.masks=*_label.tif"]
    assert scores(file, tmp_path, *place, f"data.root={tmp_path / trained}")["val"] == recorded(run_dir)["val"]
    reason = f"values of {other} but the model was trained on" if trained == "uint16" else "intensity: must be given"
    with pytest.raises(UserError, match=reason):
        scores(file, tmp_path, *place, f"data.root={tmp_path / other}")


@pytest.mark.parametrize(
    "value", [{"_target_": "os.system", "command": "touch x"}, [{"_target_": "os.getcwd"}], "x", [1, "2"]]
)
@pytest.mark.parametrize("key", ["window", "labels", "axis"])
def test_a_strangers_settings_are_values_only(on_volumes: Path, tmp_path: Path, key: str, value: Any) -> None:
    content = torch.load(on_volumes / run_folder.BEST, weights_only=True)
    content["segmenter"]["config"]["data"]["dataset"][key] = value
    torch.save(content, tmp_path / "stranger.ckpt")
    with pytest.raises(UserError, match=rf"more than plain values|data\.dataset\.{key}: should be"):
        scores(tmp_path / "stranger.ckpt", tmp_path, "data=nifti", f"data.root={on_volumes.parent}", *PLACE)


@pytest.mark.parametrize("word", ["\x1b[2J", "a" * 99, 5, {"x": 1}])
def test_a_strangers_words_are_words(on_volumes: Path, tmp_path: Path, word: Any) -> None:
    for key in ("dtype", "modality"):
        with pytest.raises(UserError, match="not a checkpoint of this program"):
            model_from_checkpoint(changed(on_volumes, tmp_path / "x.ckpt", **{key: word}))


def test_the_same_classes_in_another_order() -> None:
    ours = LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1)))
    check_classes(ours, ours, "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt has the data's classes in another order \(a, b; the data: b, a\)"):
        check_classes(ours, LabelSet(("b", "a"), ours.colors), "x.ckpt")
    with pytest.raises(UserError, match="ignores the mask value 255 and the data 254"):
        check_classes(ours, LabelSet(ours.names, ours.colors, 254), "x.ckpt")


def test_what_counts_as_typed() -> None:
    typed = typed_keys(["data=nifti", "+data.dataset.window=[1,2]", "~data.dataset.spacing", "data.dataset.labels.a=3"])
    trained = {"window": [3, 4], "spacing": 2, "labels": {"a": 1}, "axis": "coronal"}
    chosen = {"window": [1, 2], "labels": {"a": 3}, "axis": "axial"}
    merged, taken, otherwise = as_trained(
        chosen, trained, ("window", "spacing", "labels", "axis", "percentiles"), typed
    )
    assert merged == chosen | {"axis": "coronal"}
    assert taken == ["data.dataset.axis=coronal"]
    assert otherwise[0] == "data.dataset.window=[1,2] (trained with [3,4])"
    assert as_trained(chosen, trained, ("axis",), {"data.dataset"})[0] == chosen


def test_a_ct_window_is_for_ct(on_volumes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The run's own data were NIfTI, which says no modality: its window does."""
    for name in ("ct", "mr", "pt"):
        for file in write_dicom(tmp_path / f"in/{name}", phantom()[0]):
            data = pydicom.dcmread(file)
            data.Modality = name.upper()
            data.save_as(file)
    failed = predict(prediction(on_volumes, tmp_path / "in", tmp_path / "out"))
    assert [line.partition(": is of modality ")[2][:2] for line in failed] == ["MR", "PT"]
    assert "but the model was trained on CT (values from -160 to 240)" in failed[0]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    write_nifti(tmp_path / "stored.nii", (phantom()[0] + 1024).astype(np.int16))
    assert predict(prediction(on_volumes, tmp_path / "stored.nii", tmp_path / "out")) == []
    assert "stored.nii: is without a value below -200" in caplog.text


def test_the_modality_that_a_model_learnt_from_is_in_its_checkpoint(tmp_path: Path) -> None:
    image, label = phantom()
    for file in write_dicom(tmp_path / "mr", image):
        data = pydicom.dcmread(file)
        data.Modality = "MR"
        data.save_as(file)
    write_nifti(tmp_path / "label.nii", label)
    write_dicom(tmp_path / "ct", image)
    place = ["data=dicom", "data.dataset.images=mr", "data.dataset.masks=label.nii", "data.dataset.block=4"]
    run_dir = train(
        settings(tmp_path / "run", *test_nifti.overrides(tmp_path), *place, "test=false", small=False)
    ).run_dir
    assert model_from_checkpoint(run_dir / run_folder.BEST)[0].images == Images(1, (0.0, 65535.0), None, "MR")
    failed = predict(prediction(run_dir, tmp_path / "ct", tmp_path / "out"))
    assert "ct: is of modality CT but the model was trained on MR" in failed[0]
    place[1] = "data.dataset.images=ct"
    with pytest.raises(UserError, match="the split 'val' has modality CT but the model was trained on MR"):
        scores(run_dir, tmp_path, *place, f"data.root={tmp_path}", "splits=[val]")


def test_a_start_from_other_images_is_said(on_volumes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    root = test_nifti.single(tmp_path)
    keys = ["neighbors=1", "window=[50,350]", "axis=coronal", "spacing=1"]
    options = test_nifti.overrides(root, *PLACE, *(f"data.dataset.{key}" for key in keys))
    train(settings(tmp_path / "run", *options, f"init_from={on_volumes}", "test=false", small=False))
    said_ = [line for line in caplog.messages if line.startswith("init_from: ")]
    assert any("the data have values from -125 to 225 but the model was trained on -160 to 240" in s for s in said_)
    assert any("data.dataset.spacing=1 (trained with 2)" in s for s in said_)
    assert not any("axis" in s for s in said_)


def test_a_scene_keeps_its_points_and_polynomials(on_rasters: Path, tmp_path: Path) -> None:
    """What lies nowhere but by ground control points, or by rational polynomials."""
    file = write_with_points(tmp_path / "in/points.tif", scene()[0])
    rpcs = rasterio.rpc.RPC(
        height_off=10.0, height_scale=500.0, lat_off=48.0, lat_scale=0.1, line_off=35.0, line_scale=35.0, long_off=9.0,
        long_scale=0.1, samp_off=45.0, samp_scale=45.0, line_num_coeff=[0.0, 0.0, 1.0, *[0.0] * 17],
        line_den_coeff=[1.0, *[0.0] * 19], samp_num_coeff=[0.0, 1.0, *[0.0] * 18], samp_den_coeff=[1.0, *[0.0] * 19],
    )  # fmt: skip
    image = scene()[0]
    with rasterio.open(
        tmp_path / "in/rpc.tif", "w", driver="GTiff", count=4, height=70, width=90, dtype="uint16", rpcs=rpcs
    ) as sink:
        sink.write(image)
    assert predict(prediction(on_rasters, tmp_path / "in", tmp_path / "out", "uncertainty=true")) == []
    for name in ("masks/points.tif", "uncertainty/points_entropy.tif"):
        with rasterio.open(file) as source, rasterio.open(tmp_path / "out" / name) as mask:
            (points, crs), (kept, its_crs) = source.gcps, mask.gcps
            assert [(p.row, p.col, p.x, p.y) for p in kept] == [(p.row, p.col, p.x, p.y) for p in points]
            assert its_crs == crs == "EPSG:32632"
    with rasterio.open(tmp_path / "in/rpc.tif") as source, rasterio.open(tmp_path / "out/masks/rpc.tif") as mask:
        assert mask.rpcs.to_gdal() == source.rpcs.to_gdal()


def test_prediction_leaves_out_what_training_ignores(on_rasters: Path, tmp_path: Path) -> None:
    image = scene()[0]
    image[3, 10:20, 30:40] = 0  # one band of the two
    image[:, 40:45, 50:55] = 0
    write_raster(tmp_path / "in/a.tif", image, nodata=0)
    assert predict(prediction(on_rasters, tmp_path / "in", tmp_path / "out")) == []
    with rasterio.open(tmp_path / "out/masks/a.tif") as mask:
        empty = mask.read(1) == 255
    assert empty[40:45, 50:55].all()
    assert empty.sum() == 25


@pytest.mark.parametrize(("factor", "offset", "doubted"), [(1, 0, False), (0.003, 0, True), (1, 5000, True)])
def test_values_of_another_range_are_said(
    on_rasters: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, factor: float, offset: float, doubted: bool
) -> None:
    """Reflectance that was scaled otherwise looks all alike to a model."""
    file = write_raster(tmp_path / "a.tif", (scene()[0] * factor + offset).astype(np.uint16))
    assert predict(prediction(on_rasters, file, tmp_path / "out")) == []
    assert ("a.tif: its values lie from" in caplog.text) == doubted


def test_another_type_of_values_is_said(on_rasters: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_raster(tmp_path / "a.tif", scene(dtype="float32")[0])
    assert predict(prediction(on_rasters, file, tmp_path / "out")) == []
    assert "a.tif: has values of float32 but the model was trained on uint16" in caplog.text


def test_a_photo_where_a_model_takes_scenes_of_more_bits(on_rasters: Path, tmp_path: Path) -> None:
    Image.fromarray(scene(bands=3, dtype="uint8")[0].transpose(1, 2, 0)).save(tmp_path / "photo.png")
    write_raster(tmp_path / "photo4.tif", scene(bands=4, dtype="uint8")[0])
    failed = predict(prediction(on_rasters, tmp_path / "*photo*", tmp_path / "out"))
    assert "photo.png: has 3 bands" in failed[0]
    assert "photo4.tif: is uint8 but the model was trained on uint16 from 0 to 300" in failed[1]
