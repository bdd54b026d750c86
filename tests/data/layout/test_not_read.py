"""What people have and nothing here reads is named, with what to make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from src.data.formats.dicom import Dicom
from src.data.formats.geotiff import GeoTiff
from src.data.formats.nifti import Nifti
from src.errors import UserError
from src.inference.inputs import find
from tests.data.formats.test_geotiff import scene, write_raster
from tests.data.volumes import phantom, write_dicom, write_nifti

MENDS = {
    ".mha": "NIfTI", ".mhd": "NIfTI", ".nrrd": "NIfTI", ".seg.nrrd": "NIfTI", ".dcm": "a folder for each series",
    ".shp": "rasterize", ".geojson": "rasterize", ".gpkg": "rasterize", ".vrt": "gdal_translate", ".zarr": "TIFF or PNG",
    ".h5": "TIFF or PNG", ".npz": "TIFF or PNG",
}  # fmt: skip


@pytest.mark.parametrize("suffix", MENDS)
def test_a_format_that_is_not_read_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / f"other/a{suffix}"
    other.mkdir() if suffix == ".zarr" else other.write_bytes(b"")
    write_nifti(tmp_path / "scans/a.nii", phantom()[0])
    write_dicom(tmp_path / "series/a", phantom()[0])
    write_raster(tmp_path / "scenes/a.tif", scene()[0])
    labels: dict[str, Any] = {"one": 1}
    for kind, images in ((Nifti, "scans"), (Dicom, "series"), (GeoTiff, "scenes")):
        for masks in ("other", f"other/*{suffix}", "other/*.nii.gz", "**/labels/*"):
            with pytest.raises(UserError) as caught:
                kind("train", str(tmp_path), labels, images=images, masks=masks)
            words = str(caught.value)
            if masks.startswith("other"):
                assert f"({suffix}) are not read" in words, words
                assert MENDS[suffix] in words
            assert "\n" not in words


@pytest.mark.parametrize("suffix", [".mha", ".gpkg", ".zarr", ".h5"])
def test_as_an_input_too(tmp_path: Path, suffix: str) -> None:
    other = tmp_path / f"a{suffix}"
    other.mkdir() if suffix == ".zarr" else other.write_bytes(b"")
    for given in (tmp_path, *([other] if suffix == ".zarr" else [])):
        with pytest.raises(UserError, match=rf"input: no image at .*\({suffix}\) are not read"):
            find(str(given), tmp_path / "out")
