"""A pattern means the same whatever it looks for: photos, volumes, scenes, folders of a series."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from src.data.formats.nifti import Nifti
from src.data.layout.pairs import Pair, match
from src.data.layout.patterns import Items, exists, find, is_glob, split_folder
from src.errors import UserError
from tests.data.volumes import phantom, write_dicom, write_nifti

PHOTOS = Items((".jpg", ".png"))
VOLUMES = Items((".nii", ".nii.gz"), flat=True)
SERIES = Items((".nii",), lambda path: path.is_dir() and any(path.glob("*.dcm")), flat=True, what="series")


def put(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("pattern", "photos", "volumes"),
    [
        ("in", ["a", "b.c"], ["a", "b.c"]),
        ("in/", ["a", "b.c"], ["a", "b.c"]),
        ("in/*", ["a", "b.c"], ["a", "b.c"]),
        ("in/?", [], []),  # no name without its suffix
        (
            "in/?.*",
            ["a", "b/c"],
            ["a_nii.gz", "b_c"],
        ),  # volumes' names are those of files that were written: so they stay
        ("in/[!b]*", ["a"], ["a_"]),
        ("in/**/*", ["a", "b.c", "p1/a", "p1/q/d"], ["a", "b.c", "p1_a", "p1/q_d"]),
        ("in/p?/*", ["1/a"], ["1_a"]),
        ("*/p1/q/*", ["in/d"], ["in_d"]),
        ("in/p1/q", ["d"], ["d"]),
        ("deep", ["x/y/e"], ["x/y_e"]),  # has none itself
        ("odd [1]", ["f"], ["f"]),  # what is called so
        ("odd [1]/*", ["f"], ["f"]),
        ("odd [[]1]/*", ["f"], ["f"]),
        ("odd [0-9]/*", ["2/g"], ["2_g"]),
        ("in/[a[]*", ["a"], ["a_"]),
        ("in/[a", [], []),
        ("in/a.jpg", [""], [""]),
    ],
)
def test_one_meaning_of_a_pattern(tmp_path: Path, pattern: str, photos: list[str], volumes: list[str]) -> None:
    for suffix in (".jpg", ".nii.gz"):
        put(tmp_path / suffix, *(f"{name}{suffix}" for name in (
            "in/a", "in/b.c", "in/.hidden", "in/p1/a", "in/p1/q/d", "deep/x/y/e", "deep/.x/y", "odd [1]/f", "odd 2/g",
        )), "in/notes.txt")  # fmt: skip
    for root, items, names, own in (
        (".jpg", PHOTOS, photos, pattern),
        (".nii.gz", VOLUMES, volumes, pattern.replace(".jpg", ".nii.gz")),
    ):
        if names:
            found = find(tmp_path / root, own, items)
            assert sorted(found) == sorted(names), root
            assert all((tmp_path / root / file).is_file() for file in found.values())
        else:
            with pytest.raises(UserError, match="the split is empty"):
                find(tmp_path / root, own, items)


def test_folders_that_are_items(tmp_path: Path) -> None:
    put(tmp_path, "ct/a/1.dcm", "ct/b/1.dcm", "ct/notes.txt", "nested/p1/a/1.dcm", "alone/1.dcm")
    assert find(tmp_path, "ct", SERIES) == {"a": "ct/a", "b": "ct/b"}
    assert find(tmp_path, "c?/*", SERIES) == {"t_a": "ct/a", "t_b": "ct/b"}
    assert find(tmp_path, "nested", SERIES) == {"p1_a": "nested/p1/a"}
    assert find(tmp_path, "alone", SERIES) == {"": "alone"}
    assert match(tmp_path, "alone", "alone", SERIES, SERIES) == [Pair("alone", "alone", "alone")]


def test_literal_names_are_no_patterns(tmp_path: Path) -> None:
    put(tmp_path, "odd [1]/a.jpg")
    assert not is_glob(tmp_path, "odd [1]") and not is_glob(tmp_path, "odd [1]/a.jpg")
    assert is_glob(tmp_path, "odd [1]/*") and is_glob(tmp_path, "odd [2]")
    assert exists(tmp_path, "odd [1]") and exists(tmp_path, "odd [[]1]/?.jpg") and not exists(tmp_path, "odd 1")


def test_the_folder_of_a_split(tmp_path: Path) -> None:
    put(tmp_path, "in/test/a.jpg", "in [x]/val/a.jpg", "test_1.nii")
    assert [split_folder(tmp_path, "in/{split}", s) for s in ("train", "val", "test")] == ["train", "val", "test"]
    assert split_folder(tmp_path, "in [x]/{split}/*.jpg", "test") == "val"
    assert split_folder(tmp_path, "{split}_*.nii", "test") == "test"


def test_what_is_said_where_nothing_is(tmp_path: Path) -> None:
    put(tmp_path, "in/a.mha", "other/a.txt", "one/a.jpg", "one/a.png")
    for pattern, items, said in (
        ("none", VOLUMES, rf"data\.root: {tmp_path}/none is missing; check data\.root .*has in/, one/, other/"),
        ("in", VOLUMES, r"/in: no \.nii or \.nii\.gz files; there is a\.mha, and volumes in MetaImage .* are not read"),
        ("in/*.nii", PHOTOS, r"/in/\*\.nii: no \.jpg or \.png files; there is a\.mha"),
        ("other", SERIES, r"/other: no series; the split is empty \(1 \.txt file is there\)"),
        ("one", Items((".jpg", ".png"), tail="_x"), r"files whose names end with _x; the split is empty"),
        ("one/[z-a]*", PHOTOS, r"one/\[z-a\]\*: is no pattern \(bad character range z-a .*\); write"),
        ("one/*", PHOTOS, r"one/a\.png: has the same name as a\.jpg; keep one of them"),
    ):
        with pytest.raises(UserError, match=said):
            find(tmp_path, pattern, items)


def test_images_and_masks_that_stand_alone(tmp_path: Path) -> None:
    put(tmp_path, "in/a.nii", "out/b.nii.gz", "ct/a/1.dcm")
    with pytest.raises(UserError, match=rf"{tmp_path}/in/a\.nii: image without mask; {tmp_path}/out/a\.nii is missing"):
        match(tmp_path, "in", "out", VOLUMES, VOLUMES)
    with pytest.raises(
        UserError, match=rf"in/a\.nii: image without mask; a file for 'a' in {tmp_path}/out/\* is missing"
    ):
        match(tmp_path, "in", "out/*", VOLUMES, VOLUMES)
    put(tmp_path, "both/a.nii", "masks/a.nii", "masks/b.nii.gz")
    with pytest.raises(
        UserError, match=rf"masks/b\.nii\.gz: mask without image; add {tmp_path}/both/b\.nii or remove it"
    ):
        match(tmp_path, "both", "masks", VOLUMES, VOLUMES)
    with pytest.raises(
        UserError, match=rf"ct/a: image without mask; a file for 'a' in {tmp_path}/masks/b\.\* is missing"
    ):
        match(tmp_path, "ct/a", "masks/b.*", SERIES, VOLUMES)
    assert match(tmp_path, "in/a.nii", "masks/b.nii.gz", VOLUMES, VOLUMES) == [Pair("a", "in/a.nii", "masks/b.nii.gz")]
    assert match(tmp_path, "ct/a", "in", SERIES, VOLUMES) == [Pair("a", "ct/a", "in/a.nii")]


def test_volumes_of_accents_and_places(tmp_path: Path) -> None:
    """End to end: one spelling in the images, another in the masks, patients' folders below, a series beside."""
    for i, name in enumerate(("Süd", "Nord", "West")):
        for kind, form, array in zip(("scans", "truth"), ("NFC", "NFD"), phantom((4, 5, 3)), strict=True):
            write_nifti(tmp_path / f"{kind}/patient {i}" / f"{unicodedata.normalize(form, name)}.nii", array)  # type: ignore[arg-type]
    write_dicom(tmp_path / "series/a", phantom((4, 5, 3))[0])
    keys: dict[str, Any] = {"images": "scans", "masks": "truth/patient [0-9]/*", "val_fraction": 0.3}
    with pytest.raises(UserError, match=r"image without mask; a file for 'patient 0_Süd' in"):
        Nifti("train", str(tmp_path), {"one": 1}, **keys)
    source = Nifti("train", str(tmp_path), {"one": 1}, **keys | {"masks": "truth"})
    assert {source.whole(i) for i in range(len(source))} < {"patient 0_Süd", "patient 1_Nord", "patient 2_West"}
