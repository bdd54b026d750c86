"""Volumes in NIfTI files: the same slices whatever the file's orientation, and splits that share nothing."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from src.cli.command import compose
from src.config.check import check
from src.data.formats.nifti import Nifti
from src.errors import UserError
from src.train import train
from tests.conftest import settings
from tests.data.volumes import SHAPE, affine, phantom, write_nifti

LABELS: dict[str, Any] = {"one": 1, "two": 2}
ONE: dict[str, Any] = {"images": "image.nii", "masks": "label.nii", "block": 4, "gap": 1}
AXES = ("axial", "coronal", "sagittal")


def single(
    root: Path,
    codes: str = "RAS",
    mask_codes: str = "RAS",
    name: str = "",
    slope: float | None = None,
    intercept: float = 0,
    **keys: Any,
) -> Path:
    image, label = phantom()
    write_nifti(root / f"image.nii{name}", image, codes=codes, slope=slope, intercept=intercept, **keys)
    write_nifti(root / f"label.nii{name}", label, codes=mask_codes, **keys)
    return root


def many(root: Path, count: int = 5) -> Path:
    for i in range(count):
        image, label = phantom(seed=i)
        write_nifti(root / f"scans/case{i}_t1.nii.gz", image)
        write_nifti(root / f"labels/case{i}.nii.gz", label)
    return root


def test_an_axial_slice_as_radiologists_see_it(tmp_path: Path) -> None:
    source = Nifti("train", str(single(tmp_path)), LABELS, window=[0, 2000], **ONE)
    image, label = phantom()
    at = int(source.name(0).rpartition("_")[2])
    seen, mask = source.read(0)
    assert (seen.dtype, mask.dtype) == (torch.int16, torch.uint8)
    assert seen.shape == (1, SHAPE[1], SHAPE[0])
    assert np.array_equal(seen[0].numpy(), image[::-1, ::-1, at].T)  # patient's right at the left, front above
    assert np.array_equal(mask.numpy(), label[::-1, ::-1, at].T)
    assert source.label_set.names == ("background", "one", "two")


@pytest.mark.parametrize(("codes", "mask_codes"), [("LPS", "RAS"), ("SAL", "SAL"), ("PIR", "RSA"), ("ILP", "ASR")])
@pytest.mark.parametrize("axis", AXES)
def test_orientation_on_disk_changes_nothing(tmp_path: Path, codes: str, mask_codes: str, axis: Any) -> None:
    spacing = (1.0, 1.5, 2.0)
    keys: dict[str, Any] = {"window": [0, 2000], "axis": axis, "neighbors": 1, "spacing": 1.25, **ONE}
    plain = Nifti("val", str(single(tmp_path / "a", spacing=spacing)), LABELS, **keys)
    turned = Nifti("val", str(single(tmp_path / "b", codes, mask_codes, spacing=spacing)), LABELS, **keys)
    assert len(plain) == len(turned) > 0
    for index in range(len(plain)):
        for ours, theirs in zip(plain.read(index), turned.read(index), strict=True):
            assert torch.equal(ours, theirs)


def test_neighbours_repeat_at_the_ends(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image, label = phantom((6, 6, 3))
        write_nifti(tmp_path / f"images/{split}/a.nii", image)
        write_nifti(tmp_path / f"masks/{split}/a.nii", label)
    source = Nifti("train", str(tmp_path), LABELS, window=[0, 2000], neighbors=2)
    shown = image[::-1, ::-1].transpose(2, 1, 0)
    for index, expected in enumerate([(0, 0, 0, 1, 2), (0, 0, 1, 2, 2), (0, 1, 2, 2, 2)]):
        assert np.array_equal(source.read(index)[0].numpy(), shown[list(expected)])


def test_windows_and_percentiles(tmp_path: Path) -> None:
    root = single(tmp_path, slope=0.5, intercept=-10.0)
    windowed = Nifti("val", str(root), LABELS, window=[40, 400], **ONE)
    assert windowed.intensity == (-160, 240)
    assert windowed.read(0)[0].dtype == torch.float32  # halves do not fit int16
    stored = np.asanyarray(nib.load(root / "image.nii").dataobj)  # type: ignore[attr-defined]
    at = int(windowed.name(0).rpartition("_")[2])
    assert np.allclose(windowed.read(0)[0][0].numpy(), stored[::-1, ::-1, at].T)
    stretched = Nifti("val", str(root), LABELS, percentiles=[5, 95], **ONE)
    seen = stretched.read(0)[0]
    assert seen.dtype == torch.uint16
    assert stretched.intensity == (0, 65535)
    low, high = np.percentile(stored, (5, 95))
    expected = np.clip((stored[::-1, ::-1, at].T - low) / (high - low), 0, 1)
    assert np.allclose(seen[0].numpy() / 65535, expected, atol=2e-5)


def test_nan_does_not_spread(tmp_path: Path) -> None:
    image, label = phantom()
    broken = image.astype(np.float32)
    broken[5, 5] = np.nan
    write_nifti(tmp_path / "image.nii", broken)
    write_nifti(tmp_path / "label.nii", label)
    windows: list[list[float] | None] = [[40, 400], None]
    for window in windows:
        assert Nifti("val", str(tmp_path), LABELS, window=window, **ONE).read(0)[0].float().isfinite().all()


@pytest.mark.parametrize(
    ("shares", "said"),
    [([0, 1], "0th to the 1st"), ([2, 3], "2nd to the 3rd"), ([11, 12], "11th to the 12th"), ([2.5, 21], "2.5th to the 21st")],
)  # fmt: skip
def test_percentiles_in_words(tmp_path: Path, shares: list[float], said: str) -> None:
    write_nifti(tmp_path / "image.nii", np.zeros(SHAPE, np.int16))
    write_nifti(tmp_path / "label.nii", phantom()[1])
    with pytest.raises(UserError, match=f"from the {said} percentile are all 0"):
        Nifti("val", str(tmp_path), LABELS, percentiles=shares, **ONE).read(0)


def test_resampling_keeps_places(tmp_path: Path) -> None:
    root = str(single(tmp_path, spacing=(1, 2, 1)))
    image, mask = Nifti("train", root, LABELS, window=[0, 2000], spacing=1.0, **ONE).read(0)
    assert image.shape[-2:] == mask.shape == (2 * SHAPE[1], SHAPE[0])
    bright = image[0] > 130
    assert (bright == (mask == 2)).float().mean() > 0.97
    scored = Nifti("val", root, LABELS, window=[0, 2000], spacing=1.0, **ONE)
    assert scored.read(0)[0].shape[-2:] == (2 * SHAPE[1], SHAPE[0])
    assert torch.equal(scored.read(0)[1], Nifti("val", root, LABELS, window=[0, 2000], **ONE).read(0)[1])  # the voxels


@pytest.mark.parametrize("neighbors", [0, 2])
def test_blocks_do_not_leak(tmp_path: Path, neighbors: int) -> None:
    image, label = phantom((4, 4, 120))
    write_nifti(tmp_path / "image.nii", image)
    write_nifti(tmp_path / "label.nii", label)
    keys = ONE | {"gap": 2, "neighbors": neighbors, "test_fraction": 0.1, "val_fraction": 0.2}
    reads: dict[str, set[int]] = {}
    for split in ("train", "val", "test"):
        source = Nifti(split, str(tmp_path), LABELS, **keys)
        assert source.split == split
        own = [int(source.name(i).rpartition("_")[2]) for i in range(len(source))]
        reads[split] = {s + n for s in own for n in range(-neighbors, neighbors + 1)}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        assert min(abs(i - j) for i in reads[a] for j in reads[b]) > 2
    assert len(reads["train"]) > 30


def test_the_split_is_its_own_seeds(tmp_path: Path) -> None:
    root = str(many(tmp_path))
    keys: dict[str, Any] = {"images": "scans/*_t1.nii.gz", "masks": "labels"}
    names = {seed: {Nifti("val", root, LABELS, split_seed=seed, **keys).name(0) for _ in range(2)} for seed in range(6)}
    assert all(len(chosen) == 1 for chosen in names.values())
    assert len(set.union(*names.values())) > 1
    train, val, test = (Nifti(split, root, LABELS, val=["case3"], **keys) for split in ("train", "val", "test"))
    assert (len(train), len(val), test.split) == (4 * SHAPE[2], SHAPE[2], "val")
    assert val.name(3) == "case3_003"


def test_empty_slices_and_other_values(tmp_path: Path) -> None:
    root = str(single(tmp_path))
    full = Nifti("train", root, LABELS, **ONE)
    assert Nifti("train", root, {"one": [1]}, skip_empty=True, **ONE).read(0)[1].unique().tolist() == [0, 1]
    assert len(Nifti("train", root, LABELS, skip_empty=True, **ONE)) < len(full)
    ignored = Nifti("train", root, {"background": 0, "two": 2}, others="ignore", **ONE)
    middle = next(i for i in range(len(full)) if full.read(i)[1].unique().tolist() == [0, 1, 2])
    assert ignored.read(middle)[1].unique().tolist() == [0, 1, 255]
    assert Nifti("train", root, {"both": [1, 2]}, **ONE).read(middle)[1].unique().tolist() == [0, 1]
    assert Nifti("train", root, {"one": 1}, ignore=[2], **ONE).read(middle)[1].unique().tolist() == [0, 1, 255]


def _moved(root: Path) -> None:
    image: Any = nib.load(root / "label.nii")
    image.affine[0, 3] += 3
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj).copy(), image.affine), root / "label.nii")


def _smaller(root: Path) -> None:
    write_nifti(root / "label.nii", phantom()[1][:-1])


def _truncated(root: Path) -> None:
    content = (root / "image.nii").read_bytes()
    (root / "image.nii").write_bytes(content[: len(content) // 2])


def _text(root: Path) -> None:
    (root / "image.nii").write_text("no volume")


def _four(root: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), affine()), root / "image.nii")


def _image_as_label(root: Path) -> None:
    (root / "label.nii").write_bytes((root / "image.nii").read_bytes())


def _no_label(root: Path) -> None:
    (root / "label.nii").unlink()


GALLERY: dict[Callable[[Path], None], tuple[str, str]] = {
    _moved: ("label.nii", "lies up to 3 mm from its image"),
    _smaller: ("label.nii", "19x24x16 voxels"),
    _truncated: ("image.nii", "cannot be read"),
    _text: ("image.nii", "cannot be read as a NIfTI volume"),
    _four: ("image.nii", "is 4x4x4x2, not a volume of three dimensions"),
    _image_as_label: ("label.nii", "is no class index"),
    _no_label: ("label.nii", "is missing; check data.root"),
}


@pytest.mark.parametrize("spoil", GALLERY)
def test_bad_volumes_are_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(single(tmp_path))
    file, reason = GALLERY[spoil]
    with pytest.raises(UserError) as caught:
        Nifti("train", str(tmp_path), LABELS, **ONE).read(0)
    assert str(tmp_path / file) in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_gzip_is_named(tmp_path: Path) -> None:
    single(tmp_path, name=".gz")
    file = tmp_path / "image.nii.gz"
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content)[:-3000])
    with pytest.raises(UserError, match=r"image\.nii\.gz: cannot be read"):
        Nifti("train", str(tmp_path), LABELS, **ONE | {"images": "image.nii.gz", "masks": "label.nii.gz"}).read(0)


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[medical\]"'):
        Nifti("train", str(tmp_path), LABELS)


def overrides(root: Path, *more: str) -> list[str]:
    return [
        "network=tiny", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "data=nifti",
        f"data.root={root}", "data.dataset.labels={one: 1, two: 2}", "data.num_workers=0", "data.batch_size=4",
        "data.crop=[16,16]", *more,
    ]  # fmt: skip


def test_a_run(tmp_path: Path) -> None:
    single(tmp_path)
    keys = ["data.dataset.images=image.nii", "data.dataset.masks=label.nii", "data.dataset.block=4"]
    outcome = train(settings(tmp_path / "run", *overrides(tmp_path, *keys, "data.dataset.neighbors=1"), small=False))
    assert outcome.status == "completed"
    assert 0 <= outcome.metrics["val"]["dice"] <= 1
    assert outcome.model.channels == 3


def test_photometric_change_is_for_eight_bits(tmp_path: Path) -> None:
    single(tmp_path)
    keys = ["data.dataset.images=image.nii", "data.dataset.masks=label.nii", "data.augment.photometric=0.5"]
    with pytest.raises(UserError, match=r"data\.augment\.photometric: .* 8 bits"):
        train(settings(tmp_path / "run", *overrides(tmp_path, *keys), small=False))


@pytest.mark.parametrize("experiment", ["mri_unet", "ct_unet"])
def test_recipes_are_whole(experiment: str) -> None:
    check(compose("train", [f"experiment={experiment}", "data.root=anywhere"]))


REAL = Path(os.environ.get("PIXELWISE_DATA", "none"))


@pytest.mark.skipif(not (REAL / "ct").is_dir(), reason="PIXELWISE_DATA names no folder with ct/")
def test_a_real_ct() -> None:
    source = Nifti(
        "train", str(REAL / "ct"), {"liver": 5}, images="image.nii.gz", masks="label.nii.gz", window=[40, 400], gap=0
    )
    image, mask = zip(*(source.read(i) for i in range(len(source))), strict=True)
    liver = torch.cat([i[0][m == 1] for i, m in zip(image, mask, strict=True)]).float()
    assert 30 < liver.median() < 130  # HU of a liver, without or with contrast
    where = torch.cat([(m == 1).nonzero()[:, 1] for m in mask]).float() / mask[0].shape[1]
    assert where.median() < 0.4  # the patient's right, at the left
