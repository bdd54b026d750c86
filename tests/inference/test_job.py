"""A job of many inputs: it goes on where it was, keeps what is there, and batches change nothing."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.cli.command import compose
from src.errors import Interrupted, UserError
from src.inference import job, photos
from src.predict import predict
from src.storage.run_folder import BEST
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import environment, settings
from tests.data.formats import test_geotiff, test_nifti
from tests.inference.test_inputs import picture, prediction, written


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings(tmp_path_factory.mktemp("photos"), "trainer.max_epochs=1", "test=false")).run_dir


def test_what_is_there_is_kept_unless_it_is_written_over(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in "abc":
        picture(tmp_path / f"in/{name}.png", seed=ord(name))
    out = tmp_path / "out"
    assert predict(prediction(trained, tmp_path / "in", out)) == []
    first = {name: (out / name).read_bytes() for name in written(out)}
    (out / "masks/a.png").write_bytes(b"mine")
    (out / "overlays/b.png").unlink()
    times = {name: (out / name).stat().st_mtime_ns for name in ("masks/a.png", "masks/c.png", "overlays/c.png")}
    assert predict(prediction(trained, tmp_path / "in", out)) == []
    assert "1 done, 2 there already (overwrite=true does them anew)" in caplog.text
    assert times == {name: (out / name).stat().st_mtime_ns for name in times}
    assert (out / "overlays/b.png").is_file()
    assert predict(prediction(trained, tmp_path / "in", out, "overwrite=true")) == []
    assert first == {name: (out / name).read_bytes() for name in written(out)}
    # what is asked for in addition is done for all
    assert predict(prediction(trained, tmp_path / "in", out, "probabilities=true")) == []
    assert len(list((out / "probabilities").iterdir())) == 3


def test_predictions_of_another_kind_are_not_mixed(trained: Path, tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    assert predict(prediction(trained, tmp_path / "in", tmp_path / "out")) == []
    with pytest.raises(
        UserError, match="holds predictions of another inference; give another folder, or overwrite=true"
    ):
        predict(prediction(trained, tmp_path / "in", tmp_path / "out", "inference.flip=true"))
    content = torch.load(trained / BEST, weights_only=True)
    content["epoch"] += 1
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="of another checkpoint"):
        predict(prediction(tmp_path / "other.ckpt", tmp_path / "in", tmp_path / "out"))
    assert predict(prediction(tmp_path / "other.ckpt", tmp_path / "in", tmp_path / "out", "overwrite=true")) == []


def test_an_interrupted_job_goes_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in "abcdef":
        picture(tmp_path / f"in/{name}.png", seed=ord(name))
    segment, calls = photos.segment_photos, []

    def stopping(model: Any, device: Any, given: Any, *more: Any) -> Any:
        calls.append([photo.name for photo in given])
        if len(calls) == 3:
            raise KeyboardInterrupt("SIGTERM")
        return segment(model, device, given, *more)

    monkeypatch.setattr(job, "segment_photos", stopping)
    with pytest.raises(Interrupted, match=r"SIGTERM: [1-4] of 6 are done, .*; the same command goes on"):
        predict(prediction(trained, tmp_path / "in", tmp_path / "out", "batch_size=2"))
    masks = {file.name for file in (tmp_path / "out/masks").iterdir()}
    assert masks < {f"{name}.png" for name in "abcd"} | {"x"}
    monkeypatch.setattr(job, "segment_photos", segment)
    assert predict(prediction(trained, tmp_path / "in", tmp_path / "out", "batch_size=2")) == []
    assert f"{6 - len(masks)} done, {len(masks)} there already" in caplog.text
    assert {file.name for file in (tmp_path / "out/masks").iterdir()} == {f"{name}.png" for name in "abcdef"}


def test_batches_give_what_photos_alone_give(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at, name in enumerate("abcdefg"):
        picture(tmp_path / f"in/{name}.png", width=50 + 6 * (name in "cd"), seed=at)
    together: list[int] = []
    segment = photos.segment_photos

    def counted(model: Any, device: Any, given: Any, *more: Any) -> Any:
        together.append(len(given))
        if len(given) > 2 and given[0].name == "e":
            raise RuntimeError("out of memory")
        return segment(model, device, given, *more)

    monkeypatch.setattr(job, "segment_photos", counted)
    extra = ["probabilities=true", "uncertainty=true"]
    assert predict(prediction(trained, tmp_path / "in", tmp_path / "one", "batch_size=1", *extra)) == []
    assert together == [1] * 7
    together.clear()
    assert predict(prediction(trained, tmp_path / "in", tmp_path / "three", "batch_size=3", *extra)) == []
    assert together == [2, 2, 3, 1, 1, 1]
    assert written(tmp_path / "one") == written(tmp_path / "three")
    for name in written(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


@pytest.mark.parametrize(
    "overrides", [[], ["window=64", "overlap=32"], ["inference=window", "inference.window=[64,64]"]]
)
def test_probabilities_are_the_models(trained: Path, tmp_path: Path, overrides: list[str]) -> None:
    file = picture(tmp_path / "a.png", 90, 110)
    given = compose("predict", [f"ckpt={trained}", f"input={file}", f"output={tmp_path / 'out'}", "probabilities=true",
                                "overlays=false", "device=cpu", *overrides])  # fmt: skip
    assert predict(given) == []
    found = np.load(tmp_path / "out/probabilities/a.npy", mmap_mode="r")
    mask = np.asarray(Image.open(tmp_path / "out/masks/a.png"))
    assert (found.dtype, found.shape[1:]) == (np.float16, mask.shape)
    assert np.allclose(found.sum(axis=0, dtype=np.float32), 1, atol=2e-3)
    chosen = np.take_along_axis(found, mask[None].astype(np.int64), axis=0)[0]
    assert (chosen == found.max(axis=0)).all()
    assert not (tmp_path / "out/overlays").exists()
    if not overrides:
        model, _ = model_from_checkpoint(trained / BEST)
        raw = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            assert np.array_equal(found, model.probabilities(raw)[0].half().numpy())


def test_probabilities_of_maps_and_volumes(tmp_path: Path) -> None:
    rasterio, nib = pytest.importorskip("rasterio"), pytest.importorskip("nibabel")
    scenes = test_geotiff.write(tmp_path / "scenes", dtype="uint16")
    run = train(settings(tmp_path / "of_scenes", *test_geotiff.overrides(scenes), small=False)).run_dir
    file = test_geotiff.write_raster(tmp_path / "scene.tif", test_geotiff.scene()[0])
    extra = ["probabilities=true", "vectors=[geojson,gpkg]"] if _has("pyogrio") else ["probabilities=true"]
    assert predict(prediction(run, file, tmp_path / "out", *extra)) == []
    with rasterio.open(tmp_path / "out/probabilities/scene.tif") as chances, rasterio.open(file) as source:
        assert (chances.crs, chances.transform, chances.shape) == (source.crs, source.transform, source.shape)
        values = chances.read() * np.array(chances.scales)[:, None, None]
        assert chances.descriptions == model_from_checkpoint(run / BEST)[0].label_set.names
    with rasterio.open(tmp_path / "out/masks/scene.tif") as mask:
        best = np.take_along_axis(values, mask.read(1)[None].astype(np.int64), axis=0)[0]
    assert np.abs(values.sum(axis=0) - 1).max() < 0.01
    assert (best == values.max(axis=0)).all()
    volumes = test_nifti.single(tmp_path / "volumes")
    keys = [f"data.dataset.{key}" for key in ("images=image.nii", "masks=label.nii", "block=4")]
    run = train(settings(tmp_path / "of_volumes", *test_nifti.overrides(volumes, *keys), small=False)).run_dir
    assert predict(prediction(run, volumes / "image.nii", tmp_path / "out_v", "probabilities=true")) == []
    chance, mask = (nib.load(tmp_path / f"out_v/{kind}/image.nii.gz") for kind in ("probabilities", "masks"))
    values, classes = chance.get_fdata(), np.asarray(mask.dataobj)
    assert values.shape[:3] == classes.shape
    assert np.abs(values.sum(axis=3) - 1).max() < 0.01
    assert (np.take_along_axis(values, classes[..., None].astype(np.int64), axis=3)[..., 0] == values.max(axis=3)).all()
    failed = predict(prediction(run, volumes / "image.nii", tmp_path / "out_w", "vectors=[geojson]"))
    assert len(failed) == 1 and "is a volume, of which vectors=geojson is not written; leave vectors out" in failed[0]


def _has(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


def test_outlines_of_all_photos_are_one_file(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    for name in ("a", "sub/b"):
        picture(tmp_path / f"in/{name}.png", seed=len(name))
    given = prediction(trained, tmp_path / "in", tmp_path / "out", "recursive=true", "vectors=[coco_rle,labelme]")
    assert predict(given) == []
    assert {"coco_rle/a.json", "coco_rle/sub/b.json", "labelme/sub/b.json", "coco_rle.json"} <= set(
        written(tmp_path / "out")
    )
    coco = pytest.importorskip("pycocotools.coco").COCO(str(tmp_path / "out/coco_rle.json"))
    for image in coco.loadImgs(coco.getImgIds()):
        mask = np.asarray(Image.open(tmp_path / "out/masks" / image["file_name"]))
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            assert np.array_equal(coco.annToMask(annotation) > 0, mask == annotation["category_id"] - 1)


@pytest.mark.slow
def test_a_photo_of_108_megapixels_takes_less_than_2_gib(tmp_path: Path) -> None:
    """With the default network, measured as the kernel counts it."""
    run = train(settings(tmp_path / "run", "debug=fast", "trainer=cpu", small=False)).run_dir
    coarse = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((12000, 9000), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=90)
    arguments = [
        "src.predict",
        f"ckpt={run}",
        f"input={tmp_path / 'a.jpg'}",
        f"output={tmp_path / 'out'}",
        "device=cpu",
    ]
    code = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]; "
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment(), cwd=tmp_path, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 2 << 30
    assert Image.open(tmp_path / "out/masks/a.png").size == (12000, 9000)
