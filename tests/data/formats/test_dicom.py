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

from src.data import warn_once
from src.data.formats.dicom import Dicom
from src.data.formats.nifti import Nifti
from src.data.readers.dicom_series import open_series
from src.errors import UserError
from src.train import train
from tests.conftest import settings
from tests.data.formats.test_nifti import LABELS
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


def _edited(root: Path, remove: tuple[str, ...] = (), **values: Any) -> Path:
    """A series whose headers are changed."""
    for file in write(root):
        data = pydicom.dcmread(file)
        for key in remove:
            delattr(data, key)
        for key, value in values.items():
            setattr(data, key, value)
        data.save_as(file)
    return root


@pytest.fixture
def words(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log, in which nothing has been said yet."""
    warn_once._said.clear()
    return caplog


@pytest.mark.parametrize("remove", [("RescaleSlope", "RescaleIntercept"), ("RescaleIntercept",)])
def test_a_ct_without_rescale_is_said_once(
    tmp_path: Path, words: pytest.LogCaptureFixture, remove: tuple[str, ...]
) -> None:
    root = _edited(tmp_path, remove)
    for split in ("train", "val"):
        source = Dicom(split, str(root), LABELS, masks="label.nii", **KEYS)
        assert source.read(0)[0].min() >= 0  # as stored
    assert words.text.count("a CT without RescaleSlope") == 1
    assert "ct: is a CT" in words.text


def test_stored_values_in_a_window_of_hounsfield_units_are_said(
    tmp_path: Path, words: pytest.LogCaptureFixture
) -> None:
    """Whatever the format: an offset that nobody took off."""
    image, label = phantom()
    for name, offset in (("right", 0), ("stored", 1024)):
        write_nifti(tmp_path / f"{name}/image.nii", (image + offset).astype(np.int16))
        write_nifti(tmp_path / f"{name}/label.nii", label)
        keys: dict[str, Any] = {"images": "image.nii", "masks": "label.nii", "block": 4}
        for split in ("train", "val"):
            source = Nifti(split, str(tmp_path / name), LABELS, window=[40, 400], **keys)
            for index in range(len(source)):
                source.read(index)
        assert words.text.count("without a value below -200") == (name == "stored"), name
    Nifti("val", str(tmp_path / "stored"), LABELS, window=[500, 900], **keys).read(0)  # no window of CT's
    assert words.text.count("is in Hounsfield units") == 1


def test_monochrome1_is_inverted_where_values_are_brightness(tmp_path: Path, words: pytest.LogCaptureFixture) -> None:
    keys = KEYS | {"window": None, "percentiles": [0, 100], "masks": "label.nii"}
    plain = Dicom("val", str(_edited(tmp_path / "plain", Modality="MR")), LABELS, **keys).read(0)[0]
    turned = _edited(tmp_path / "turned", Modality="MR", PhotometricInterpretation="MONOCHROME1")
    seen = Dicom("val", str(turned), LABELS, **keys).read(0)[0]
    assert plain.float().std() > 1000
    assert torch.allclose(seen.float(), 65535 - plain.float(), atol=1)
    assert not words.text


def test_hounsfield_units_stay_what_they_are_in_monochrome1(tmp_path: Path, words: pytest.LogCaptureFixture) -> None:
    plain = Dicom("val", str(_edited(tmp_path / "plain")), LABELS, masks="label.nii", **KEYS)
    shown = _edited(tmp_path / "shown", PhotometricInterpretation="MONOCHROME1")
    source = Dicom("val", str(shown), LABELS, masks="label.nii", **KEYS)
    assert torch.equal(source.read(0)[0], plain.read(0)[0])
    assert words.text.count("MONOCHROME1") == 1


def test_a_single_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    image = phantom((20, 24, 1))[0]
    (file,) = write_dicom(tmp_path / "ct", image, SPACING)
    _edit(file, SliceThickness=5)
    volume = open_series(tmp_path / "ct")
    assert np.allclose(np.linalg.norm(volume.affine[:3, :3], axis=0), (1, 1.5, 5))
    assert not volume.doubts
    _edit(file, SliceThickness=None)
    assert open_series(tmp_path / "ct").doubts == (
        "a single slice without SliceThickness; it is taken to be 1 mm thick",
    )


@pytest.mark.parametrize("modality", ["SEG", "RTSTRUCT", "RTDOSE", "SR"])
def test_what_lies_beside_scans_is_no_scan(tmp_path: Path, modality: str) -> None:
    files = write(tmp_path)
    _edit(files[3], Modality=modality, NumberOfFrames=7)
    with pytest.raises(UserError, match=rf"im021\.dcm: is no image but .* \({modality}\); move it out"):
        Dicom("val", str(tmp_path), LABELS, masks="label.nii", **KEYS)


def test_a_window_is_for_one_modality(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        _edited(tmp_path / name, Modality="MR" if name == "c" else "CT")
    keys: dict[str, Any] = {"images": "*/ct", "masks": "*/label.nii", "val": ["b"]}
    with pytest.raises(UserError, match=r"c/ct: is MR and .*a/ct is CT"):
        Dicom("train", str(tmp_path), LABELS, window=[40, 400], **keys)
    assert Dicom("train", str(tmp_path), LABELS, **keys).modality is None
    assert Dicom("val", str(tmp_path), LABELS, window=[40, 400], **keys).modality == "CT"


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
