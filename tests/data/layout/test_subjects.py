"""No subject is in two splits: by BIDS' names, by the patient in DICOM headers, or as the user says."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from src.cli.command import compose
from src.data import warn_once
from src.data.formats.dicom import Dicom
from src.data.formats.geotiff import GeoTiff
from src.data.formats.nifti import Nifti
from src.data.layout.splits import draw
from src.data.layout.subjects import by_subject, subjects
from src.errors import UserError
from src.training.build import build_data
from tests.data.formats.test_geotiff import LABELS as OF_SCENES
from tests.data.formats.test_geotiff import scene, write_raster
from tests.data.volumes import phantom, write_dicom, write_nifti

LABELS: dict[str, Any] = {"one": 1, "two": 2}
SMALL = (4, 5, 3)


def bids(root: Path, subjects: int = 4, sessions: int = 3) -> Path:
    for subject in range(subjects):
        for session in range(sessions):
            name = f"sub-{subject:02}_ses-{session}_T1w.nii"
            write_nifti(root / "images" / name, phantom(SMALL)[0])
            write_nifti(root / "masks" / name, phantom(SMALL)[1])
    return root


def drawn(made_by: Any, root: Path, labels: dict[str, Any] = LABELS, **keys: Any) -> dict[str, set[str]]:
    """The wholes that each split has."""
    opened = {
        split: made_by(split, str(root), labels, images="images", masks="masks", **keys) for split in ("train", "val")
    }
    return {split: {source.whole(i) for i in range(len(source))} for split, source in opened.items()}


@pytest.mark.parametrize("seed", range(5))
def test_sessions_of_a_subject_stay_together(tmp_path: Path, seed: int) -> None:
    found = drawn(Nifti, bids(tmp_path), group="auto", val_fraction=0.25, split_seed=seed)
    of = {split: {name.split("_")[0] for name in names} for split, names in found.items()}
    assert not of["train"] & of["val"]
    assert (len(found["train"]), len(found["val"])) == (9, 3)


def test_as_the_user_says_and_as_older_runs_did(tmp_path: Path) -> None:
    found = drawn(Nifti, bids(tmp_path), group=r"_(ses-\d)_", val_fraction=0.3)
    assert {name.split("_")[1] for name in found["val"]} == {next(iter(found["val"])).split("_")[1]}
    names = [f"sub-{i // 3:02}_ses-{i % 3}_T1w" for i in range(12)]
    alone = draw(names, 0.25, 0, 0)["val"]
    assert drawn(Nifti, tmp_path, val_fraction=0.25)["val"] == {names[i] for i in alone}
    with pytest.raises(UserError, match=r"data.dataset.group: '\(pat-\.\)' does not fit the name 'sub-00_ses-0_T1w'"):
        drawn(Nifti, tmp_path, group="(pat-.)")


def test_one_subject_alone_is_split_by_volume_and_said(caplog: pytest.LogCaptureFixture) -> None:
    warn_once._said.clear()
    names = ["sub-1_ses-1", "sub-1_ses-2", "sub-1_ses-3"]
    assert by_subject(names, subjects(names, "auto", [None] * 3), "volumes") == names
    assert "all 3 volumes are of one subject (sub-1_ses-1 …)" in caplog.text


def test_what_headers_say(tmp_path: Path) -> None:
    import pydicom

    for i, patient in enumerate(["A", "B", "A", "C", "B", "A"]):
        for file in write_dicom(tmp_path / f"images/s{i}", phantom(SMALL)[0]):
            header = pydicom.dcmread(file)
            header.PatientID = patient
            header.save_as(file)
        write_nifti(tmp_path / f"masks/s{i}.nii", phantom(SMALL)[1])
    for seed in range(4):
        found = drawn(Dicom, tmp_path, group="auto", split_seed=seed)
        assert found["val"] in ({"s0", "s2", "s5"}, {"s1", "s4"}, {"s3"})
    assert subjects(["a", "b"], "auto", ["ANON", "ANON"]) == {}  # anonymous headers tell nobody apart
    assert subjects(["a", "sub-1_b"], "auto", [None, None]) == {"sub-1_b": "sub-1"}


def test_scenes_of_a_city(tmp_path: Path) -> None:
    for i in range(8):
        image, label = scene(bands=3, dtype="uint8", seed=i)
        write_raster(tmp_path / f"images/city{i % 4}_{i}.tif", image)
        write_raster(tmp_path / f"masks/city{i % 4}_{i}.tif", label[None])
    found = drawn(GeoTiff, tmp_path, OF_SCENES, group="^([^_]+)_")
    assert len({name.split("_")[0] for name in found["val"]}) == 1
    assert len(found["val"]) == 2


@pytest.mark.parametrize("layout", ["lists", "folders"])
@pytest.mark.parametrize("group", ["auto", "^(sub-[0-9]+)"])
def test_splits_that_share_a_subject_are_said_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, layout: str, group: str
) -> None:
    bids(tmp_path, subjects=2, sessions=2)
    keys = ["images=images", "masks=masks", "val=[sub-00_ses-0_T1w]"]
    if layout == "folders":
        keys = []
        for kind in ("images", "masks"):
            for split, names in {
                "train": ["sub-00_ses-1", "sub-01_ses-1"],
                "val": ["sub-00_ses-0", "sub-01_ses-0"],
            }.items():
                (tmp_path / kind / split).mkdir()
                for name in names:
                    (tmp_path / f"{kind}/{name}_T1w.nii").rename(tmp_path / f"{kind}/{split}/{name}_T1w.nii")
    given = [
        "data=nifti",
        f"data.root={tmp_path}",
        "data.dataset.labels={one:1,two:2}",
        "data.cache=null",
        "data.batch_size=2",
    ]
    options = [*given, "data.crop=null", "data.augment.scale=null", *(f"data.dataset.{key}" for key in keys)]
    composed = compose("train", [*options, f"data.dataset.group='{group}'"])
    datamodule = build_data(composed["data"], 0)
    with caplog.at_level(logging.WARNING):
        if group == "auto":
            datamodule.prepare()
            assert "sub-00_ses-1_T1w (train) and sub-00_ses-0_T1w (val) are of one subject" in caplog.text
        else:
            with pytest.raises(
                UserError, match=r"data.dataset.group: sub-00_ses-1_T1w \(train\) and sub-00_ses-0_T1w \(val\)"
            ):
                datamodule.prepare()
