"""DICOM series: in order, in Hounsfield units, the same slices as the volume in a NIfTI file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from src.data.dicom import Dicom, open_series
from src.data.nifti import Nifti
from src.errors import UserError
from src.train import train
from tests.conftest import settings
from tests.data.test_nifti import LABELS
from tests.data.volumes import phantom, write_dicom, write_nifti

SPACING = (1.0, 1.5, 2.0)
KEYS: dict[str, Any] = {"images": "ct", "window": [0, 2000], "block": 4, "gap": 1}


def write(root: Path) -> list[Path]:
    """One series in ct/, its labels as NIfTI (of another orientation) and as PNGs."""
    image, label = phantom()
    files = write_dicom(root / "ct", image, SPACING)
    write_nifti(root / "image.nii", image, SPACING)
    write_nifti(root / "label.nii", label, SPACING, codes="LIP")
    for folder in ("ordered", "named"):
        (root / folder).mkdir()
        for k, file in enumerate(files):
            name = f"{k:03}" if folder == "ordered" else file.stem
            Image.fromarray(np.ascontiguousarray(label[::-1, ::-1, k].T)).save(root / folder / f"{name}.png")
    return files


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("masks", ["label.nii", "ordered", "named"])
def test_the_same_slices_as_nifti(tmp_path: Path, axis: Any, masks: str) -> None:
    write(tmp_path)
    series = Dicom("val", str(tmp_path), LABELS, masks=masks, axis=axis, **KEYS)
    volume = Nifti("val", str(tmp_path), LABELS, masks="label.nii", axis=axis, **KEYS | {"images": "image.nii"})
    assert len(series) == len(volume)
    for index in range(len(series)):
        for ours, theirs in zip(series.read(index), volume.read(index), strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)


def test_compressed_slices(tmp_path: Path) -> None:
    files = write(tmp_path)
    before = Dicom("val", str(tmp_path), LABELS, masks="label.nii", **KEYS).read(0)[0]
    for file in files:
        data = pydicom.dcmread(file)
        data.compress(pydicom.uid.RLELossless)
        data.save_as(file)
    assert torch.equal(Dicom("val", str(tmp_path), LABELS, masks="label.nii", **KEYS).read(0)[0], before)


def _edit(file: Path, **values: Any) -> None:
    data = pydicom.dcmread(file)
    for key, value in values.items():
        setattr(data, key, value)
    data.save_as(file)


def _missing(files: list[Path]) -> None:
    files[5].unlink()


def _twice(files: list[Path]) -> None:
    (files[5].parent / "again.dcm").write_bytes(files[5].read_bytes())


def _mixed(files: list[Path]) -> None:
    _edit(files[0], SeriesInstanceUID="1.2.3")


def _no_position(files: list[Path]) -> None:
    _edit(files[4], ImagePositionPatient=None)


def _text(files: list[Path]) -> None:
    files[3].write_text("no DICOM")


def _undecodable(files: list[Path]) -> None:
    data = pydicom.dcmread(files[2])
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8"])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.103")  # MPEG-4 video
    data.save_as(files[2])


def _frames(files: list[Path]) -> None:
    _edit(files[2], NumberOfFrames=3)


def _short(files: list[Path]) -> None:
    _edit(files[2], PixelData=b"\0" * 10)


GALLERY: dict[Callable[[list[Path]], None], tuple[str, str]] = {
    _missing: ("ct", "a slice is missing"),
    _twice: ("ct/", "lies where"),
    _mixed: ("ct/im", "belongs to another series"),
    _no_position: ("ct/im028.dcm", "has no ImagePositionPatient"),
    _text: ("ct/im021.dcm", "cannot be read as DICOM"),
    _undecodable: ("ct/im014.dcm", "is compressed"),
    _frames: ("ct/im014.dcm", "has 3 frames"),
    _short: ("ct/im014.dcm", "its pixels cannot be decoded"),
}


@pytest.mark.parametrize("spoil", GALLERY)
def test_bad_series_are_named(tmp_path: Path, spoil: Callable[[list[Path]], None]) -> None:
    spoil(write(tmp_path))
    file, reason = GALLERY[spoil]
    with pytest.raises(UserError) as caught:
        Dicom("val", str(tmp_path), LABELS, masks="label.nii", **KEYS).read(0)
    assert str(tmp_path / file) in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "ordered/000.png").unlink()
    with pytest.raises(UserError, match="15 PNGs but 16 slices"):
        Dicom("val", str(tmp_path), LABELS, masks="ordered", **KEYS)
    Image.new("L", (5, 5)).save(tmp_path / "named/im000.png")
    with pytest.raises(UserError, match=r"im000\.png: mask is 5x5 but its slice is 20x24"):
        Dicom("val", str(tmp_path), LABELS, masks="named", **KEYS).read(0)


def test_series_of_a_folder_each(tmp_path: Path) -> None:
    for i in range(3):
        image, label = phantom(seed=i)
        write_dicom(tmp_path / f"scans/p{i}/ct", image)
        write_nifti(tmp_path / f"scans/p{i}/seg.nii.gz", label)
    keys: dict[str, Any] = {"images": "scans/*/ct", "masks": "scans/*/seg.nii.gz", "val": ["p1"]}
    assert Dicom("val", str(tmp_path), LABELS, **keys).name(2) == "p1_002"
    assert len(Dicom("train", str(tmp_path), LABELS, **keys)) == 32
    assert open_series(tmp_path / "scans/p0/ct").whole


def test_a_run(tmp_path: Path) -> None:
    write(tmp_path)
    outcome = train(
        settings(
            tmp_path / "run", "network=tiny", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2",
            "data=dicom", f"data.root={tmp_path}", "data.dataset.labels={one: 1, two: 2}", "data.num_workers=0",
            "data.batch_size=2", "data.crop=[16,16]", "data.dataset.images=ct", "data.dataset.masks=ordered",
            "data.dataset.block=4", small=False,
        )
    )  # fmt: skip
    assert outcome.status == "completed"
