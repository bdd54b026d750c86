"""Scores are those of what `predict` writes: the written masks, counted by hand, give metrics.json's figures exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from PIL import Image

from src.cli.command import compose
from src.data.windows import OVERLAP, SIDE
from src.evaluate import evaluate
from src.predict import predict
from src.storage import run_folder
from src.train import train
from src.training.build import build_data, model_from_checkpoint
from tests.conftest import settings
from tests.data.formats.test_geotiff import scene, write_raster
from tests.data.volumes import affine, phantom, write_dicom, write_nifti

Array = npt.NDArray[Any]
TINY = [
    "debug=fast",
    "network=tiny",
    "trainer=cpu",
    "data.batch_size=2",
    "optimizer.lr=0.02",
    "data.num_workers=0",
    "test=false",
]
ALL = ["trainer.limit_val_batches=1.0"]


def ious(pairs: list[tuple[Array, Array]], names: tuple[str, ...]) -> dict[str, float]:
    """IoU of each class over all (prediction, truth), as anyone would count it; 255 in the truth is not labelled."""
    result: dict[str, float] = {}
    for k, name in enumerate(names):
        hit = sum(int(((p == k) & (t == k)).sum()) for p, t in pairs)
        either = sum(int((((p == k) | (t == k)) & (t != 255)).sum()) for p, t in pairs)
        if either:
            result[f"iou/{name}"] = hit / either
    return result


def trained(root: Path, *overrides: str) -> Path:
    return train(settings(root / "run", *TINY, *ALL, f"data.root={root}/data", *overrides, small=False)).run_dir


def scored(run_dir: Path, tmp_path: Path, *overrides: str) -> Mapping[str, float]:
    composed = compose("evaluate", [f"ckpt={run_dir}", "splits=[val]", *overrides])
    composed["paths"]["output_dir"] = str(tmp_path / "evaluated")
    return evaluate(composed)["val"]


def predicted(run_dir: Path, given: Path, output: Path, *overrides: str) -> Path:
    options = [f"ckpt={run_dir}", f"input={given}", f"output={output}", "device=cpu", *overrides]
    assert predict(compose("predict", options)) == []
    return output / "masks"


def check(run_dir: Path, tmp_path: Path, pairs: list[tuple[Array, Array]], *overrides: str) -> None:
    """That the run's own figures and those of `evaluate` are those of the written masks."""
    by_hand = ious(pairs, model_from_checkpoint(run_dir / run_folder.BEST)[0].label_set.names)
    assert len(by_hand) > 1
    assert len(np.unique(np.concatenate([p.ravel() for p, _ in pairs]))) > 1  # or where it is wrong would not show
    metrics = run_folder.read_metrics(run_dir)
    assert metrics is not None
    for found in (metrics["val"], scored(run_dir, tmp_path, *overrides)):
        assert {key: value for key, value in found.items() if key.startswith("iou/")} == by_hand
        assert found["miou"] == pytest.approx(np.mean(list(by_hand.values())), abs=1e-12)


def test_sklearn_counts_what_evaluate_counts(tmp_path: Path) -> None:
    """In CamVid's layout and sizes of one kind, in batches of other sizes: the confusion matrix, to the last integer."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    for split in ("train", "val"):
        for i in range(5):
            mask = np.kron(rng.integers(0, 12, (9, 12)), np.ones((8, 8))).astype(np.uint8)
            image = (mask[..., None] * 20 + rng.integers(0, 30, (72, 96, 3))).astype(np.uint8)
            for folder, values in ((split, image), (f"{split}annot", mask)):
                (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(tmp_path / "data" / folder / f"{i}.png")
    run_dir = trained(tmp_path, "data=camvid", "data.crop=[32,32]", "data.eval_batch_size=2")
    masks = predicted(run_dir, tmp_path / "data/val", tmp_path / "out", "batch_size=3")
    truth, found = (
        np.concatenate([np.asarray(Image.open(file)).ravel() for file in sorted(folder.iterdir())])
        for folder in (tmp_path / "data/valannot", masks)
    )
    labelled = truth != 11
    by_sklearn = metrics.confusion_matrix(truth[labelled], found[labelled], labels=range(11))
    data = settings(tmp_path / "again", *TINY, "data=camvid", f"data.root={tmp_path}/data", small=False)["data"]
    datamodule = build_data({**data, "crop": [32, 32], "eval_batch_size": 2, "num_workers": 0}, seed=0)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    model, _ = model_from_checkpoint(run_dir / run_folder.BEST, scored=True)
    trainer.validate(model, datamodule, verbose=False)
    assert np.array_equal(model.matrices["val"].numpy(), by_sklearn)
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize("batch", [1, 3])
def test_photos_of_any_size_and_turned(tmp_path: Path, batch: int) -> None:
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (64, 64), (33, 65), (64, 64), (47, 51)]
    for split in ("train", "val"):
        for i, (height, width) in enumerate(sizes):
            mask = np.kron(rng.integers(0, 3, (9, 9)), np.ones((8, 8)))[:height, :width].astype(np.uint8)
            image = (mask[..., None] * 80 + rng.integers(0, 60, (height, width, 3))).astype(np.uint8)
            for kind in ("images", "masks"):
                (tmp_path / "data" / kind / split).mkdir(parents=True, exist_ok=True)
            turned = Image.Exif()
            turned[0x0112] = 6 if i == 4 else 1  # a camera held upright
            shown = np.rot90(image) if i == 4 else image
            file = tmp_path / "data/images" / split / f"{i}.png"
            Image.fromarray(np.ascontiguousarray(shown)).save(file, exif=turned)
            mask[:3] = 255
            Image.fromarray(mask).save(tmp_path / "data/masks" / split / f"{i}.png")
    options = ["data=folder", "data.dataset.names=[a,b,c]", "data.crop=[32,32]", f"data.eval_batch_size={batch}"]
    run_dir = trained(tmp_path, *options)
    masks = predicted(run_dir, tmp_path / "data/images/val", tmp_path / "out")
    pairs = [
        (np.asarray(Image.open(masks / f.name)), np.asarray(Image.open(f)))
        for f in sorted((tmp_path / "data/masks/val").iterdir())
    ]
    check(run_dir, tmp_path, pairs, f"data.root={tmp_path}/data")


def test_windows_are_those_of_predict() -> None:
    scored, written = compose("train", ["data=geotiff"])["data"]["dataset"], compose("predict", [])
    assert (written["window"] or SIDE, written["overlap"]) == (SIDE, OVERLAP)  # null: of a raster, SIDE
    assert (scored["eval_window"], scored["eval_overlap"]) == (SIDE, OVERLAP)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_scene_in_windows_with_missing_pixels(tmp_path: Path, batch: int) -> None:
    """Larger than a window, so that most pixels lie in one window's margin and in another's middle."""
    for split, (height, width) in {"train": (70, 90), "val": (150, 230)}.items():
        image, label = scene(height, width, bands=3, dtype="uint8")
        image[:, 5:9, 50:90] = 0
        write_raster(tmp_path / f"data/images/{split}/a.tif", image, nodata=0)
        write_raster(tmp_path / f"data/masks/{split}/a.tif", label[None])
    options = [
        "data=geotiff",
        "data.dataset.labels={one:1,two:2,three:3}",
        "data.dataset.tile=[64,64]",
        "data.crop=[32,32]",
    ]
    options += ["data.dataset.eval_window=96", "data.dataset.eval_overlap=32", f"data.eval_batch_size={batch}"]
    run_dir = trained(tmp_path, *options)
    masks = predicted(run_dir, tmp_path / "data/images/val", tmp_path / "out", "window=96", "overlap=32")
    with rasterio.open(masks / "a.tif") as written, rasterio.open(tmp_path / "data/masks/val/a.tif") as truth:
        prediction, label = written.read(1), truth.read(1).copy()
    label[5:9, 50:90] = 255  # no data
    check(run_dir, tmp_path, [(prediction, label)], f"data.root={tmp_path}/data")


VOLUMES = ["data.dataset.labels={one:1,two:2}", "data.dataset.window=[0,2000]", "data.crop=[16,16]", "data.cache=null"]


@pytest.mark.parametrize(
    ("axis", "codes", "cache"), [("axial", "RAS", "null"), ("coronal", "LIP", "ram"), ("sagittal", "PSR", "disk")]
)
def test_volumes_in_their_own_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axis: str, codes: str, cache: str
) -> None:
    """Slices are resampled for the network; what is scored are the voxels that there are."""
    for split, count in (("train", 1), ("val", 2)):
        for i in range(count):
            image, label = phantom((20 + 3 * i, 24, 16), seed=i)
            write_nifti(tmp_path / f"data/images/{split}/v{i}.nii.gz", image, (1.0, 3.0, 5.0), codes)
            write_nifti(tmp_path / f"data/masks/{split}/v{i}.nii.gz", label, (1.0, 3.0, 5.0))
    options = ["data=nifti", *VOLUMES, f"data.dataset.axis={axis}", "data.dataset.spacing=2", "data.eval_batch_size=5"]
    options += [f"data.cache={cache}"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run_dir = trained(tmp_path, *options)
    masks = predicted(run_dir, tmp_path / "data/images/val", tmp_path / "out")
    pairs = []
    for i in range(2):
        found, truth = (
            nib.as_closest_canonical(nib.load(f))
            for f in (masks / f"v{i}.nii.gz", tmp_path / f"data/masks/val/v{i}.nii.gz")
        )
        pairs.append((np.asarray(found.dataobj), np.asarray(truth.dataobj)))
    check(run_dir, tmp_path, pairs, f"data.root={tmp_path}/data")


def test_an_oblique_volume(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for split in ("train", "val"):
        for kind, values in zip(("images", "masks"), phantom(), strict=True):
            (tmp_path / f"data/{kind}/{split}").mkdir(parents=True)
            nib.save(nib.Nifti1Image(values, turn @ affine((1.0, 2.0, 4.0))), tmp_path / f"data/{kind}/{split}/v.nii")
    run_dir = trained(tmp_path, "data=nifti", *VOLUMES, "data.dataset.spacing=1.5", "data.dataset.neighbors=1")
    masks = predicted(run_dir, tmp_path / "data/images/val", tmp_path / "out")
    pair = [np.asarray(nib.load(f).dataobj) for f in (masks / "v.nii.gz", tmp_path / "data/masks/val/v.nii")]  # type: ignore[attr-defined]
    check(run_dir, tmp_path, [(pair[0], pair[1])], f"data.root={tmp_path}/data")


def test_a_dicom_series(tmp_path: Path) -> None:
    image, label = phantom()
    for split in ("train", "val"):
        write_dicom(tmp_path / f"data/images/{split}/p", image, (1.0, 1.5, 2.0))
        write_nifti(tmp_path / f"data/masks/{split}/p.nii", label, (1.0, 1.5, 2.0))
    run_dir = trained(tmp_path, "data=dicom", *VOLUMES, "data.dataset.spacing=0.7")
    masks = predicted(run_dir, tmp_path / "data/images/val/p", tmp_path / "out")
    found = nib.as_closest_canonical(nib.load(masks / "p.nii.gz"))
    check(run_dir, tmp_path, [(np.asarray(found.dataobj), label)], f"data.root={tmp_path}/data")
