"""Masks in a data set's own numbers, as its server takes them: `ids=dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from src.cli.command import compose
from src.data.formats.cityscapes import Cityscapes
from src.data.labels import LabelSet
from src.errors import UserError
from src.predict import predict
from src.storage.run_folder import BEST
from src.train import train
from tests.conftest import settings
from tests.data import layouts
from tests.data.formats import test_geotiff, test_nifti

_RUN = (
    "network=tiny",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "data.num_workers=0",
    "data.crop=[16,16]",
    "data.batch_size=2",
)


def both(run: Path, given: Path, output: Path) -> tuple[Path, Path]:
    """Folders of what a run predicts in class numbers and in the data set's."""
    for ids in ("train", "dataset"):
        overrides = [f"ckpt={run}", f"input={given}", f"output={output / ids}", f"ids={ids}", "device=cpu", "window=64"]
        assert predict(compose("predict", [*overrides, "overlap=32"])) == []
    for name in [file.relative_to(output / "train") for file in (output / "train/overlays").rglob("*.png")]:
        assert (output / "train" / name).read_bytes() == (output / "dataset" / name).read_bytes()
    return output / "train/masks", output / "dataset/masks"


def values_of(file: Path) -> npt.NDArray[Any]:
    with Image.open(file) as image:
        return np.array(image)


def trained(folder: Path, *overrides: str) -> Path:
    return train(settings(folder, *_RUN, *overrides, small=False)).run_dir


def test_cityscapes_masks_are_label_ids(tmp_path: Path) -> None:
    root = layouts.cityscapes(tmp_path / "cityscapes")
    run = trained(tmp_path / "run", "data=cityscapes", f"data.root={root}")
    image = "leftImg8bit/val/aachen/aachen_000000_000019_leftImg8bit.png"
    classes, ids = both(run, root / image, tmp_path / "out")
    name = f"{Path(image).stem}.png"
    official = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert (np.array(official)[values_of(classes / name)] == values_of(ids / name)).all()
    with Image.open(classes / name) as ours, Image.open(ids / name) as theirs:
        assert ours.convert("RGB").tobytes() == theirs.convert("RGB").tobytes()
    # Read as the data set's own truth they are the classes again.
    truth = root / "gtFine/val/aachen/aachen_000000_000019_gtFine_labelIds.png"
    truth.write_bytes((ids / name).read_bytes())
    assert (Cityscapes("val", str(root)).read(0)[1].numpy() == values_of(classes / name)).all()


def test_voc_masks_have_the_data_sets_numbers_and_palette(tmp_path: Path) -> None:
    root = layouts.voc(tmp_path / "voc")
    run = trained(tmp_path / "run", "data=voc", f"data.root={root}")
    given = root / "VOCdevkit/VOC2012/JPEGImages/val_000000.jpg"
    classes, ids = both(run, given, tmp_path / "out")
    assert (classes / "val_000000.png").read_bytes() == (ids / "val_000000.png").read_bytes()
    truth = root / "VOCdevkit/VOC2012/SegmentationClass/val_000000.png"
    with Image.open(ids / "val_000000.png") as written, Image.open(truth) as theirs:
        assert written.mode == theirs.mode == "P"
        assert written.getpalette()[:63] == theirs.getpalette()[:63]  # type: ignore[index]


@pytest.mark.parametrize(("crack", "mode"), [(255, "P"), (1000, "I;16")])
def test_masks_of_a_folder_have_its_values(tmp_path: Path, crack: int, mode: str) -> None:
    for split in ("train", "val"):
        for i in range(3):
            layouts.photo(tmp_path / f"images/{split}/{i}.png", i)
            values = layouts.rows(0, crack)
            file = tmp_path / f"masks/{split}/{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8 if crack < 256 else np.uint16)).save(file)
    values_key = f"data.dataset.values={{background: 0, crack: {crack}}}"
    run = trained(tmp_path / "run", "data=folder", f"data.root={tmp_path}", values_key)
    classes, ids = both(run, tmp_path / "images/val", tmp_path / "out")
    assert (values_of(classes / "0.png").astype(int) * crack == values_of(ids / "0.png")).all()
    with Image.open(ids / "0.png") as image:
        assert image.mode == mode


def test_rasters_and_volumes_have_their_label_values(tmp_path: Path) -> None:
    rasterio, nib = pytest.importorskip("rasterio"), pytest.importorskip("nibabel")
    scenes = test_geotiff.write(tmp_path / "scenes", dtype="uint16")
    run = train(settings(tmp_path / "of_scenes", *test_geotiff.overrides(scenes), small=False)).run_dir
    image, _ = test_geotiff.scene()
    image[:, :9] = 0
    file = test_geotiff.write_raster(tmp_path / "scene.tif", image, nodata=0)
    classes, ids = both(run, file, tmp_path / "scene_out")
    with rasterio.open(classes / "scene.tif") as ours, rasterio.open(ids / "scene.tif") as theirs:
        known = ours.read(1) != 255
        assert not known[:9].any()
        # background is what no label has, so 0; building 1, water 2 and 3
        assert (np.array([0, 1, 2])[ours.read(1)[known]] == theirs.read(1)[known]).all()
        assert (theirs.read(1)[~known] == theirs.nodata).all()
    volumes = test_nifti.single(tmp_path / "volumes")
    keys = [f"data.dataset.{key}" for key in ("images=image.nii", "masks=label.nii", "block=4", "labels.two=300")]
    run = train(settings(tmp_path / "of_volumes", *test_nifti.overrides(volumes, *keys), small=False)).run_dir
    classes, ids = both(run, volumes / "image.nii", tmp_path / "volume_out")
    ours, theirs = (np.asarray(nib.load(folder / "image.nii.gz").dataobj) for folder in (classes, ids))
    assert theirs.dtype == np.uint16
    assert (np.array([0, 1, 300])[ours] == theirs).all()


def test_a_checkpoint_that_does_not_know_them_is_told_of(tmp_path: Path) -> None:
    run = train(settings(tmp_path / "run", "trainer.max_epochs=1", "test=false")).run_dir
    content = torch.load(run / BEST, weights_only=True)
    del content["segmenter"]["label_set"]["ids"]
    torch.save(content, tmp_path / "earlier.ckpt")
    layouts.photo(tmp_path / "a.png")
    given = [
        f"ckpt={tmp_path / 'earlier.ckpt'}",
        f"input={tmp_path / 'a.png'}",
        f"output={tmp_path / 'out'}",
        "device=cpu",
    ]
    with pytest.raises(UserError, match="does not say what the data set's own files have"):
        predict(compose("predict", [*given, "ids=dataset"]))
    assert not (tmp_path / "out").exists()
    assert predict(compose("predict", given)) == []


@pytest.mark.parametrize("ids", [[0], [1, 1], [0, -1], [0, 65536], [0, "1"], [0, True]])
def test_wrong_ids_of_a_stranger(ids: list[object]) -> None:
    about = LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1))).to_dict() | {"ids": ids}
    with pytest.raises(UserError, match="label set: "):
        LabelSet.from_dict(about)


def test_what_is_no_class_has_a_value_of_its_own() -> None:
    own = LabelSet(("a", "b"), ((9, 9, 9), (1, 2, 3)), ids=(0, 255)).own_ids()
    mask = np.array([0, 1, 255], np.uint8)
    assert own.of(mask).tolist() == [0, 255, 254]
    assert own.classes(own.of(mask)).tolist() == mask.tolist()
    assert own.by_value(LabelSet(("a", "b"), ((9, 9, 9), (1, 2, 3))).palette())[[0, 255]].tolist() == [
        [9, 9, 9],
        [1, 2, 3],
    ]
