"""Files as a stranger may make them: what names other files, claims what is not so, or unpacks without end is refused.

A case writes files below `root` and returns what reads them. The next kind is one more function and one more line of a list.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import rasterio
import torch
from PIL import Image

from src.data.formats.chunks import Chunks
from src.data.formats.coco import Coco
from src.data.formats.nifti import open_nifti
from src.data.formats.sample_bytes import encode
from src.data.formats.streaming import Streaming
from src.data.layout.class_files import described
from src.data.layout.pairs import read_list
from src.data.readers import picture_limits
from src.data.readers.dicom_series import open_series
from src.data.readers.images import Encoded, index_lookup, read_index_mask, read_rgb
from src.data.readers.raster import open_raster, preview
from src.errors import UserError
from src.inference.scenes import is_georeferenced
from tests.conftest import ROOT
from tests.data.layouts import SIZE, coco
from tests.data.volumes import phantom, write_dicom, write_nifti

PILLOW = int(PIL.__version__.partition(".")[0])  # the 13th reads TIFFs of two bands, to tell how many they are
Read = Callable[[], object]
Case = Callable[[Path], Read]
LOOKUP = index_lookup(3, [], 255)


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **given: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def check(tmp_path: Path, case: Case, said: str) -> None:
    read = case(tmp_path)
    with pytest.raises(UserError) as caught:
        read()
    assert said in str(caught.value)
    assert str(caught.value).replace("\n", "\\n").isprintable() and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def cases(listed: dict[Case, str]) -> Any:
    return pytest.mark.parametrize(("case", "said"), [pytest.param(c, s, id=c.__name__) for c, s in listed.items()])


# Pictures


def png(
    width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, color: int = 0, data: bytes = b""
) -> bytes:
    """A PNG of these chunks, whatever they say."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def photo_of(content: bytes) -> Case:
    def case(root: Path) -> Read:
        (root / "x.png").write_bytes(content)
        return lambda: read_rgb(root / "x.png")

    return case


def postscript(root: Path) -> Read:
    return photo_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n")(root)


def other_format(root: Path) -> Read:
    Image.new("RGB", (8, 8)).save(root / "x.png", "PCX")
    return lambda: read_rgb(root / "x.png")


def pipe(root: Path) -> Read:
    os.mkfifo(root / "x.png")
    return lambda: read_rgb(root / "x.png")


def device(root: Path) -> Read:
    (root / "x.png").symlink_to("/dev/zero")
    return lambda: read_rgb(root / "x.png")


def name_with_nul(root: Path) -> Read:
    return lambda: read_rgb(Path(f"{root}/x\0.png"))


def many_pixels(root: Path) -> Read:
    return photo_of(png(13_000, 13_000, depth=1, data=bytes(1626 * 13_000)))(root)


def more_pixels(root: Path) -> Read:
    return photo_of(png(2**31 - 1, 2**31 - 1))(root)


def many_pixels_in_a_mask(root: Path) -> Read:
    (root / "x.png").write_bytes(png(13_000, 13_000, depth=1))
    return lambda: read_index_mask(root / "x.png", LOOKUP)


def text_bomb(root: Path) -> Read:
    return photo_of(png(4, 4, (b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20))), data=bytes(20)))(root)


def lying_tiff(root: Path) -> Read:
    Image.new("RGB", (40, 40)).save(root / "x.tif")
    content = bytearray((root / "x.tif").read_bytes())
    at = content.index(struct.pack("<HHI", 256, 4, 1)) if struct.pack("<HHI", 256, 4, 1) in content else content.index(
        struct.pack("<HHI", 256, 3, 1)
    )  # fmt: skip
    content[at + 8 : at + 10] = struct.pack("<H", 5000)
    (root / "x.tif").write_bytes(content)
    return lambda: read_rgb(root / "x.tif")


def two_pages(root: Path) -> Read:
    page = Image.new("RGB", (8, 8))
    page.save(root / "x.tif", save_all=True, append_images=[page])
    return lambda: read_rgb(root / "x.tif")


def animation(root: Path) -> Read:
    frames = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in (0, 99)]
    frames[0].save(root / "x.webp", save_all=True, append_images=frames[1:])
    return lambda: read_rgb(root / "x.webp")


def animated_png(root: Path) -> Read:
    frames = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in (0, 99)]
    frames[0].save(root / "x.png", save_all=True, append_images=frames[1:])
    return lambda: read_rgb(root / "x.png")


def deep_rgb(root: Path) -> Read:
    return photo_of(png(2, 2, depth=16, color=2, data=bytes(2 * 13)))(root)


def deep_rgb_mask(root: Path) -> Read:
    from src.data.labels import LabelSet
    from src.data.readers.color_masks import ColorTable

    (root / "x.png").write_bytes(png(2, 2, depth=16, color=2, data=bytes(2 * 13)))
    return lambda: ColorTable(LabelSet(("a", "b"), ((0, 0, 0), (9, 9, 9)))).read(root / "x.png")


def deep_gray(root: Path) -> Read:
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(root / "x.png")
    return lambda: read_rgb(root / "x.png")


def deep_gray_alpha(root: Path) -> Read:
    return photo_of(png(2, 2, depth=16, color=4, data=bytes(2 * 9)))(root)


def tiff(root: Path, values: Any, **keys: Any) -> Path:
    count, height, width = values.shape
    with rasterio.open(
        root / "x.tif", "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **keys
    ) as sink:
        sink.write(values)
    return root / "x.tif"


NOISE = np.random.default_rng(0).integers(0, 255, (8, 16, 16), np.uint8)


def deep_tiff(root: Path) -> Read:
    file = tiff(root, NOISE[:3].astype(np.uint16), photometric="RGB")
    return lambda: read_rgb(file)


def four_bands(root: Path) -> Read:
    file = tiff(root, NOISE[:4], photometric="RGB", alpha="NO")
    return lambda: read_rgb(file)


def four_bands_as_alpha(root: Path) -> Read:
    Image.fromarray(NOISE[:4].transpose(1, 2, 0), "RGBA").save(root / "x.tif")
    return lambda: read_rgb(root / "x.tif")


def eight_bands(root: Path) -> Read:
    file = tiff(root, NOISE, photometric="RGB")
    return lambda: read_rgb(file)


def two_bands(root: Path) -> Read:
    file = tiff(root, NOISE[:2])
    return lambda: read_rgb(file)


def fractions(root: Path) -> Read:
    file = tiff(root, NOISE[:1].astype(np.float32))
    return lambda: read_rgb(file)


def lab(root: Path) -> Read:
    Image.new("LAB", (4, 4)).save(root / "x.tif")
    return lambda: read_rgb(root / "x.tif")


PICTURES: dict[Case, str] = {
    postscript: "it is PostScript, which is a program and not run",
    other_format: "its content is none of JPEG, PNG, WEBP, BMP, TIFF",
    pipe: "is no regular file; refused",
    device: "is no regular file; refused",
    name_with_nul: "is no name that a file can have",
    many_pixels: "is 13000x13000 = 169 megapixels, more than the 150 that one picture may have; cut it into tiles",
    more_pixels: "more than twice the pixels that one picture may have",
    many_pixels_in_a_mask: "is 13000x13000 = 169 megapixels",
    text_bomb: "cannot be read as an image",
    lying_tiff: "cannot be read as an image",
    two_pages: "has 2 pages, and only the first would be read",
    animation: "is an animation, and only its first picture would be read",
    animated_png: "is an animation, and only its first picture would be read",
    deep_rgb: "has 3 channels of 16 bits, of which Pillow would keep 8; scale it to 8 bits, or take data=geotiff",
    deep_rgb_mask: "has 3 channels of 16 bits",
    deep_gray: "more than 8 bits a channel",
    deep_gray_alpha: "channels of 16 bits, of which Pillow would keep 8",
    deep_tiff: "has 3 channels of 16 bits",
    four_bands: "has 4 channels, of which 3 would be read; take data=geotiff with data.dataset.bands=[1,2,3,4]",
    four_bands_as_alpha: "has 4 channels, the last of which is no transparency",
    eight_bands: "a TIFF of many bands, of fractions, or damaged: data=geotiff reads those that are whole",
    two_bands: "has 2 channels" if PILLOW >= 13 else "a TIFF of many bands, of fractions, or damaged",
    fractions: "more than 8 bits a channel (F)",
    lab: "its colours are LAB, which is not read; save it as RGB",
}


@cases(PICTURES)
def test_pictures(tmp_path: Path, case: Case, said: str) -> None:
    check(tmp_path, case, said)


def test_what_was_narrowed_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture_limits._said.clear()
    pixels = np.full((8, 8, 4), 200, np.uint8)
    for file, alpha in (("opaque.png", 255), ("cut.png", 0), ("again.png", 0)):
        pixels[:4, :, 3] = alpha
        pixels[4:, :, 3] = 255
        Image.fromarray(pixels, "RGBA").save(tmp_path / file)
        assert torch.equal(read_rgb(tmp_path / file), torch.full((3, 8, 8), 200, dtype=torch.uint8))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{tmp_path}/cut.png: has transparent pixels, whose stored colours are read as if they were not (said once)"
    ]


def test_more_pixels_where_they_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (1500, 1000)).save(tmp_path / "x.png")
    monkeypatch.setenv("PIXELWISE_MAX_MEGAPIXELS", "1")
    with pytest.raises(UserError, match="1500x1000 = 2 megapixels, more than the 1 that"):
        read_rgb(tmp_path / "x.png")
    monkeypatch.setenv("PIXELWISE_MAX_MEGAPIXELS", "1.5")
    read_rgb(tmp_path / "x.png")
    monkeypatch.setenv("PIXELWISE_MAX_MEGAPIXELS", "many")
    with pytest.raises(
        UserError, match="PIXELWISE_MAX_MEGAPIXELS: should be a number of megapixels above 0, not 'many'"
    ):
        read_rgb(tmp_path / "x.png")


def test_linked_data_and_nonsense_in_exif_are_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\xff\xff\xff\xff\x99\x99"
    Image.new("RGB", (8, 4)).save(tmp_path / "elsewhere/a.jpg", exif=exif)
    (tmp_path / "a.jpg").symlink_to(tmp_path / "elsewhere/a.jpg")
    assert read_rgb(tmp_path / "a.jpg").shape == (3, 4, 8)


def test_pages_that_are_smaller_copies_are_no_pages(tmp_path: Path) -> None:
    file = tiff(tmp_path, np.tile(NOISE[:3], (1, 16, 16)), photometric="RGB", tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(file, "r+") as sink:
        sink.build_overviews([2, 4])
    assert read_rgb(file).shape == (3, 256, 256)


# Rasters


def container(driver_text: str) -> Case:
    def case(root: Path) -> Read:
        tiff(root, NOISE[:1]).rename(root / "secret.tif")
        (root / "x.tif").write_text(driver_text.format(root=root))
        return lambda: thinned(root / "x.tif")

    return case


def thinned(file: Path) -> Any:
    with open_raster(file) as dataset:
        return preview(dataset, [1], 8)


VRT = (
    '<VRTDataset rasterXSize="16" rasterYSize="16"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    "<SourceFilename>{root}/secret.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
)


def virtual(root: Path) -> Read:
    return container(VRT)(root)


def map_service(root: Path) -> Read:
    return container('<GDAL_WMS><Service name="WMS"><ServerUrl>http://localhost/</ServerUrl></Service></GDAL_WMS>')(
        root
    )


def index_of_tiles(root: Path) -> Read:
    return container(
        "<GDALTileIndexDataset><IndexDataset>/vsicurl/http://localhost/i</IndexDataset></GDALTileIndexDataset>"
    )(root)


def stac(root: Path) -> Read:
    return container('{{"stac_version": "1.0.0", "assets": {{"a": {{"href": "http://localhost/a.tif"}}}}}}')(root)


def address(root: Path) -> Read:
    return lambda: thinned(Path("/vsicurl/http://localhost/a.tif"))


def overviews_elsewhere(root: Path) -> Read:
    file = tiff(root, NOISE[:1])
    with rasterio.open(file, "r+") as sink:
        sink.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="/etc/other.vrt")
    return lambda: thinned(file)


def overviews_elsewhere_by_pam(root: Path) -> Read:
    file = tiff(root, NOISE[:1])
    (root / "x.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/http://localhost/a</MDI></Metadata></PAMDataset>'
    )
    return lambda: thinned(file)


def overviews_of_another_format(root: Path) -> Read:
    file = tiff(root, NOISE[:1])
    (root / "x.tif.ovr").write_text(VRT.format(root=root))
    return lambda: thinned(file)


def mask_of_another_format(root: Path) -> Read:
    file = tiff(root, NOISE[:1])
    (root / "x.tif.msk").write_text(VRT.format(root=root))
    return lambda: thinned(file)


def pipe_as_raster(root: Path) -> Read:
    os.mkfifo(root / "x.tif")
    assert is_georeferenced(root / "x.tif")  # not a photo, so that rasterio's reader says what it is
    return lambda: thinned(root / "x.tif")


def sparse_raster(root: Path) -> Read:
    with rasterio.open(
        root / "x.tif", "w", driver="GTiff", count=1, height=10**6, width=10**6, dtype="uint8", sparse_ok=True, tiled=True,
        blockxsize=8192, blockysize=8192, bigtiff="yes",
    ):  # fmt: skip
        pass
    return lambda: thinned(root / "x.tif")


def one_block(root: Path) -> Read:
    with rasterio.open(
        root / "x.tif", "w", driver="GTiff", count=1, height=20_000, width=15_000, dtype="float32", sparse_ok=True,
        blockysize=20_000, compress="deflate",
    ):  # fmt: skip
        pass
    return lambda: thinned(root / "x.tif")


RASTERS: dict[Case, str] = {
    virtual: "it is no TIFF, PNG, JPEG, JPEG 2000, WebP or BMP file",
    map_service: "it is no TIFF, PNG, JPEG, JPEG 2000, WebP or BMP file",
    index_of_tiles: "it is no TIFF, PNG, JPEG, JPEG 2000, WebP or BMP file",
    stac: "it is no TIFF, PNG, JPEG, JPEG 2000, WebP or BMP file",
    address: "there is no such file",
    overviews_elsewhere: "takes its overviews from another file, which its metadata name; refused",
    overviews_elsewhere_by_pam: "takes its overviews from another file, which its metadata name; refused",
    overviews_of_another_format: "x.tif.ovr: cannot be read as a raster (it is no TIFF",
    mask_of_another_format: "x.tif.msk: cannot be read as a raster (it is no TIFF",
    pipe_as_raster: "is no regular file; refused",
    sparse_raster: "claims 1000000x1000000 pixels in",
    one_block: "is stored in blocks of 15000x20000 pixels, each of which fills 1.1 GiB; tile it",
}


@cases(RASTERS)
def test_rasters(tmp_path: Path, case: Case, said: str) -> None:
    check(tmp_path, case, said)


# Volumes


def volume(root: Path, name: str = "x.nii", **fields: Any) -> Read:
    """Reads a NIfTI file with fields of its header overwritten: offset and struct format to values."""
    file = write_nifti(root / name, phantom()[0])
    content = bytearray(gzip.decompress(file.read_bytes()) if name.endswith(".gz") else file.read_bytes())
    for place, value in fields.values():
        content[place : place + len(value)] = value
    file.write_bytes(gzip.compress(bytes(content)) if name.endswith(".gz") else bytes(content))
    return lambda: open_nifti(file).stored()


def shorts(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


def large_dims(root: Path) -> Read:
    return volume(root, dims=(40, shorts(3, 32767, 32767, 32767)))


def large_dims_packed(root: Path) -> Read:
    return volume(root, "x.nii.gz", dims=(40, shorts(3, 3000, 3000, 3000)))


def negative_dims(root: Path) -> Read:
    return volume(root, dims=(40, shorts(3, -5, 4, 4)))


def offset_far_away(root: Path) -> Read:
    return volume(root, "x.nii.gz", offset=(108, struct.pack("<f", 1e30)))


def offset_nan(root: Path) -> Read:
    return volume(root, offset=(108, struct.pack("<f", float("nan"))))


def affine_nan(root: Path) -> Read:
    return volume(root, affine=(280, struct.pack("<4f", *[float("nan")] * 4)))


def not_nifti(root: Path) -> Read:
    (root / "x.nii").write_bytes(b"\x93NUMPY" + bytes(2000))
    return lambda: open_nifti(root / "x.nii")


def cut_off_volume(root: Path) -> Read:
    file = write_nifti(root / "x.nii.gz", np.random.default_rng(0).integers(0, 99, (30, 30, 30)).astype(np.int16))
    file.write_bytes(file.read_bytes()[:-9000])
    return lambda: open_nifti(file).stored()


def pipe_as_volume(root: Path) -> Read:
    os.mkfifo(root / "x.nii")
    return lambda: open_nifti(root / "x.nii")


def series(root: Path, change: Callable[[Any], None]) -> Read:
    import pydicom

    file = write_dicom(root / "s", phantom()[0][:, :, :1])[0]
    data = pydicom.dcmread(file)
    change(data)
    data.save_as(file)
    return lambda: open_series(root / "s").stored()


def tags(**values: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for tag, value in values.items():
            setattr(data, tag, value)

    return change


def rows_that_are_not_there(root: Path) -> Read:
    return series(root, tags(Rows=9000, Columns=9000))


def rows_without_end(root: Path) -> Read:
    return series(root, tags(Rows=65535, Columns=65535))


def position_of_two(root: Path) -> Read:
    return series(root, tags(ImagePositionPatient=[0, 0]))


def spacing_of_nothing(root: Path) -> Read:
    return series(root, tags(PixelSpacing=[0, 1]))


def deflated(root: Path) -> Read:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    def change(data: Any) -> None:
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    return series(root, change)


def no_syntax(root: Path) -> Read:
    read, file = series(root, tags()), next((root / "s").iterdir())
    file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    return read


def length_that_is_none(root: Path) -> Read:
    read, file = series(root, tags()), next((root / "s").iterdir())
    file.write_bytes(file.read_bytes().replace(b"\x28\0\x03\x01US", b"\x28\0\x03\x01UL"))
    return read


VOLUMES: dict[Case, str] = {
    large_dims: "its header promises 32767x32767x32767 voxels",
    large_dims_packed: "its header promises 3000x3000x3000 voxels",
    negative_dims: "cannot be read as a NIfTI volume (it has -5x4x4 voxels)",
    offset_far_away: "its header promises",
    offset_nan: "its header promises",
    affine_nan: "its affine, slope or intercept is not finite",
    not_nifti: "cannot be read as a NIfTI volume (it is no NIfTI file of header and voxels in one)",
    cut_off_volume: "cannot be read",
    pipe_as_volume: "is no regular file; refused",
    rows_that_are_not_there: "claims 9000x9000 pixels and has",
    rows_without_end: "65535x65535 = 4,295 megapixels, more than",
    position_of_two: "its ImagePositionPatient should be 3 finite numbers",
    spacing_of_nothing: "mm apart; replace or remove it",
    no_syntax: "cannot be read as DICOM (UID is not a transfer syntax.)",
    length_that_is_none: "cannot be read as DICOM",
    deflated: "is deflated as a whole, which may unpack to any size",
}


@cases(VOLUMES)
@pytest.mark.filterwarnings("ignore")
def test_volumes(tmp_path: Path, case: Case, said: str) -> None:
    check(tmp_path, case, said)


# Chunks


def chunk(*samples: tuple[bytes, ...]) -> bytes:
    bodies = [struct.pack(f"<{len(s)}I", *map(len, s)) + b"".join(s) for s in samples]
    offsets = np.cumsum([4 * (len(samples) + 2), *map(len, bodies)]).astype(np.uint32)
    return struct.pack("<I", len(samples)) + offsets.tobytes() + b"".join(bodies)


PAIR = encode(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8), "png")


def chunks(root: Path, content: bytes | None = None, name: Any = "c.bin", **fields: Any) -> Read:
    """Reads a split of one chunk, whose index and description have these fields instead."""
    content = chunk((b"a", *PAIR)) if content is None else content
    (root / "train").mkdir()
    (root / "train/c.bin").write_bytes(content)
    entry = {"filename": name, "chunk_size": 1, "chunk_bytes": len(content)}
    entry |= {key: fields[key] for key in entry.keys() & fields.keys()}
    index = {"chunks": [entry], "config": fields.get("config")}
    (root / "train/index.json").write_text(json.dumps(index))
    labels = {"names": ["a", "b"], "colors": [[0, 0, 0], [9, 9, 9]], "ignore_index": 255}
    about = {"parts": ["id", "image", "mask"], "label_set": labels, "channels": 3, "intensity": [0, 255]}
    about["splits"] = {"train": {"samples": 1, "chunks": {"c.bin": "0"}}}
    about |= {key: fields[key] for key in about.keys() & fields.keys()}
    (root / "dataset.json").write_text(json.dumps(about))
    return lambda: Streaming("train", str(root)).read(0)


def reads(**fields: Any) -> Case:
    return lambda root: chunks(root, **fields)


def at(content: bytes, place: int, value: int) -> bytes:
    return content[:place] + struct.pack("<I", value) + content[place + 4 :]


GOOD = chunk((b"a", *PAIR))
BODY = 12  # where the first sample begins
RAW = encode(torch.zeros(3, 4, 4, dtype=torch.int16), torch.zeros(4, 4, dtype=torch.uint8), "raw")
TALL = encode(torch.zeros(3, 5, 4), torch.zeros(5, 4).byte(), "raw")[1]
OF_77 = encode(torch.zeros(3, 4, 4), torch.full((4, 4), 77).byte(), "png")[1]
CHUNKS: list[tuple[str, dict[str, Any], str]] = [
    ("absolute", {"name": "/tmp/x.bin"}, "names the chunk '/tmp/x.bin', which is no plain file name; refused"),
    ("climbs", {"name": "../x.bin"}, "which is no plain file name; refused"),
    ("climbs on Windows", {"name": "..\\x.bin"}, "which is no plain file name; refused"),
    ("a drive", {"name": "c:x.bin"}, "which is no plain file name; refused"),
    ("a device", {"name": "\0.bin"}, "which is no plain file name; refused"),
    ("colours a terminal", {"name": "\x1b[31m.bin"}, "which is no plain file name; refused"),
    ("a number for a name", {"name": 7}, "which is no plain file name; refused"),
    ("no samples", {"chunk_size": 0}, "should have samples and bytes, whole numbers from 1"),
    ("a negative size", {"chunk_bytes": -1}, "should have samples and bytes, whole numbers from 1"),
    ("text for a size", {"chunk_bytes": "many"}, "should have samples and bytes, whole numbers from 1"),
    ("samples without end", {"chunk_size": 2**62}, "should have samples and bytes, whole numbers from 1"),
    ("more samples than told", {"chunk_size": 10**9}, "has 1000000000 of 1 train samples"),
    ("compressed", {"config": {"compression": "zstd"}}, "its chunks are compressed (zstd), which is not read"),
    ("two bytes", {"content": b"ab"}, "c.bin: this chunk is cut off or another one"),
    ("another count", {"content": at(GOOD, 0, 2)}, "c.bin: this chunk is cut off or another one"),
    ("begins in the header", {"content": at(GOOD, 4, 0)}, "c.bin: this chunk is damaged (its samples begin and end"),
    ("ends beyond the file", {"content": at(GOOD, 8, 2**32 - 1)}, "c.bin: this chunk is damaged (its samples begin and end"),
    ("ends before it begins", {"content": at(GOOD, 8, 3)}, "c.bin: this chunk is damaged (its samples begin and end"),
    ("no room for sizes", {"content": at(GOOD, 8, BODY + 4)}, "c.bin: this chunk is damaged (its sample 0 has 4 bytes)"),
    ("sizes that lie", {"content": at(GOOD, BODY + 4, 2**32 - 1)}, "c.bin: this chunk is damaged (the parts of its sample 0"),
    ("no image", {"content": chunk((b"a", b"x", PAIR[1]))}, "sample a: cannot be read as an image"),
    ("an array that lies", {"content": chunk((b"a", RAW[0].replace(b"(3, 4, 4)", b"(3, 9**9,)"), RAW[1]))}, "is damaged"),
    ("an array of objects", {"content": chunk((b"a", RAW[0].replace(b"'<i2'", b"'|O' "), RAW[1]))}, "is damaged"),
    ("an array cut off", {"content": chunk((b"a", RAW[0][:-9], RAW[1]))}, "sample a: is damaged"),
    ("a mask of another size", {"content": chunk((b"a", PAIR[0], TALL))},
     "its image is [4, 4] and its mask [5, 4]"),
    ("a class that is none", {"content": chunk((b"a", PAIR[0], OF_77))},
     "its mask has the value 77, and classes are 0 to 1"),
    ("a name to colour a terminal", {"content": chunk((b"\x1b[31m\xff", b"x", b"y"))}, "sample \\x1b[31m"),
    ("channels of text", {"channels": "many"}, "dataset.json is damaged or of another version"),
    ("channels without end", {"channels": 10**9}, "dataset.json is damaged or of another version"),
    ("no intensity", {"intensity": [5, 5]}, "dataset.json is damaged or of another version"),
    ("no classes", {"label_set": {"names": ["a"]}}, "dataset.json is damaged or of another version"),
    ("a split elsewhere", {"splits": {"../x": {"samples": 1, "chunks": {}}}}, "dataset.json is damaged or of another version"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "said"), [pytest.param(f, s, id=name) for name, f, s in CHUNKS])
def test_chunks(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    check(tmp_path, reads(**fields), said)


def test_a_good_chunk_is_read(tmp_path: Path) -> None:
    chunks(tmp_path)  # the base of the cases above
    image, mask = Streaming("train", str(tmp_path)).read(0)
    assert (image.shape, mask.shape) == ((3, 4, 4), (4, 4))


# COCO


def instances(root: Path, change: Callable[[dict[str, Any]], None]) -> Read:
    """Reads the first image of COCO's layout, its JSON changed."""
    file = coco(root, count=1) / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return lambda: Coco("train", str(root)).read(0)


def outlined(segmentation: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = segmentation

    return change


def entry(kind: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content[kind][0][key] = value

    return change


NAN, PIXELS = float("nan"), SIZE[0] * SIZE[1]
COCO: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("far away", outlined([[0, 0, 1e9, 0, 1e9, 1e9]]), "it has a point at 1e+09,0, far outside of the image of 32x24"),
    ("NaN", outlined([[0, 0, NAN, 0, 5, 5]]), "points that are no finite numbers"),
    ("400 digits", outlined([[0, 0, 10**400, 0, 5, 5]]), "points that are no finite numbers"),
    ("text", outlined([["0", 0, 5, 0, 5, 5]]), "points that are no numbers"),
    ("a flat list", outlined([0, 0, 5, 0, 5, 5]), "a polygon needs three points of x and y"),
    ("a text", outlined("5;5"), "it is a str, neither polygons nor a run-length code"),
    ("a long way", outlined([[0, 0, 32, 24] * 100_000]), "its outlines are 6,400,000 pixels long in an image of 32x24"),
    (
        "runs too long",
        outlined({"size": list(SIZE), "counts": [0, 10**9]}),
        "its counts add up to 1000000000, not to the 768",
    ),
    ("runs too short", outlined({"size": list(SIZE), "counts": [5]}), "its counts add up to 5, not to the 768 pixels"),
    (
        "negative runs",
        outlined({"size": list(SIZE), "counts": [-5, PIXELS + 5]}),
        "its counts are no whole numbers from 0",
    ),
    ("another size", outlined({"size": [10**9, 10**9], "counts": [5]}), "its size is [1000000000, 1000000000]"),
    ("no size", outlined({"counts": "abc"}), "its size is None"),
    (
        "a code too long",
        outlined({"size": list(SIZE), "counts": "oooooooooo"}),
        "characters or numbers that it cannot have",
    ),
    ("no code", outlined({"size": list(SIZE), "counts": "\x01\xff"}), "characters or numbers that it cannot have"),
    ("a code too short", outlined({"size": list(SIZE), "counts": "1"}), "its counts add up to 1, not to the 768"),
    (
        "ids of text",
        entry("annotations", "image_id", "7"),
        "entry 0 of annotations has image_id '7', not a whole number",
    ),
    ("ids of lists", entry("images", "id", [7]), "entry 0 of images has id [7], not a whole number"),
    ("no name", entry("categories", "name", None), "category 1 has no name"),
    ("no size of an image", entry("images", "height", 0), "image 7 is 32x0, which is no size"),
    ("a huge image", entry("images", "height", 10**9), "image 7: is 32x1000000000 = 32,000 megapixels"),
    ("NaN for an area", entry("annotations", "area", NAN), "annotation 1 has the area nan"),
    (
        "a photo elsewhere",
        entry("images", "file_name", "../../etc/passwd"),
        "does not lie below the folder of the images; refused",
    ),
    (
        "an absolute photo",
        entry("images", "file_name", "/etc/passwd"),
        "does not lie below the folder of the images; refused",
    ),
    ("no list", lambda content: content.update(images={}), "it has no list of entries 'images'"),
    ("entries of numbers", lambda content: content.update(annotations=[1]), "it has no list of entries 'annotations'"),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(c, s, id=name) for name, c, s in COCO])
def test_coco(tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str) -> None:
    check(tmp_path, lambda root: instances(root, change), said)


def test_a_nested_coco_file(tmp_path: Path) -> None:
    file = coco(tmp_path, count=1) / "annotations/instances_train2017.json"
    file.write_text("[" * 100_000)
    check(tmp_path, lambda root: lambda: Coco("train", str(root)), "is not in COCO's format")


# Classes and the hub's folders

BILLION = "a: &n0 [x, x]\n" + "".join(f"b{k}: &n{k} [{', '.join([f'*n{k - 1}'] * 9)}]\n" for k in range(1, 9))
CLASS_FILES = {
    "- 7\n- 8": "is no list of classes",
    "- \"a\\e[31mb\"\n- c": "has characters that are none to read",
    f"- {'a' * 500}\n- b": "is longer than 200",
    "- ''\n- b": "is empty",
    "!!python/object/apply:os.system ['true']": "is no list of classes",
    BILLION: "stands for more than 100,000 values",
    "[" * 10_000: "is nested more than",
}  # fmt: skip


@pytest.mark.parametrize("text", CLASS_FILES, ids=lambda text: text[:12])
def test_class_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    check(tmp_path, lambda root: lambda: described(root), CLASS_FILES[text])


def hub(root: Path, file: str, text: str, path: str | None = None) -> Read:
    """Reads a folder of one row, which has one more file."""
    datasets = pytest.importorskip("datasets")
    from src.data.formats.huggingface import HuggingFace

    picture = {"bytes": PAIR[0], "path": None} if path is None else {"bytes": None, "path": path}
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    row = {"image": [picture], "mask": [{"bytes": PAIR[1], "path": None}]}
    # Written through pyarrow, since the library would put a named file's bytes in.
    table = datasets.Dataset.from_dict(row, features=features)
    pytest.importorskip("pyarrow.parquet").write_table(table.data.table, root / "train.parquet")
    if file:
        (root / file).write_text(text)
    return lambda: HuggingFace("train", str(root), ["a", "b"]).read(0)


CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {}\n---\n"
HUB: list[tuple[str, tuple[str, str, str | None], str]] = [
    (
        "a URL",
        ("README.md", CARD.format("https://localhost/train.parquet"), None),
        "takes data from https://localhost/train.pa",
    ),
    ("a store", ("README.md", CARD.format("hf://datasets/a/b/train.parquet"), None), "takes data from hf://"),
    ("climbs", ("README.md", CARD.format("../other/*.parquet"), None), "which is not in its own folder; refused"),
    ("absolute", ("README.md", CARD.format("/etc/x.parquet"), None), "which is not in its own folder; refused"),
    (
        "other settings",
        (".huggingface.yaml", CARD.format("https://localhost/x").strip("-\n"), None),
        "takes data from https",
    ),
    (
        "rows elsewhere",
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', None),
        "takes data from ../x.arrow",
    ),
    ("splits elsewhere", ("dataset_dict.json", '{"splits": ["/etc"]}', None), "takes data from /etc"),
    ("no splits", ("dataset_dict.json", '{"splits": 7}', None), "is damaged (it has no list 'splits')"),
    ("a photo elsewhere", ("", "", "/etc/passwd"), "is the file /etc/passwd, which does not lie in"),
    ("a photo on the network", ("", "", "https://localhost/a.png"), "which does not lie in"),
]


@pytest.mark.parametrize(("given", "said"), [pytest.param(g, s, id=name) for name, g, s in HUB])
def test_hub_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, str, str | None], said: str
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    check(tmp_path / "set", lambda root: hub(root, *given), said)


def test_a_list_with_nul_bytes(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a\nb\0.png c.png\n")
    with pytest.raises(UserError, match=r"list.txt line 2: has characters that no name has: b\\x00.png c.png; correct"):
        read_list(tmp_path, tmp_path / "list.txt", "images", "masks")


def test_encoded_pictures_go_the_same_way() -> None:
    with pytest.raises(UserError, match="row 1: cannot be read as an image \\(it is PostScript"):
        read_rgb(Encoded("row 1", b"%!PS\n{} loop\n"))


def test_an_index_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "index.json")
    with pytest.raises(UserError, match="is no regular file; refused"):
        Chunks(tmp_path, {})


# What an opener must be told, or is not used at all; the report's pictures have a test of their own.
TOLD = {
    r"\bImage\.open\(": "formats=",
    r"\brasterio\.open\(": "driver=",
    r"\bnib\w*\.load\(": None,
}


@pytest.mark.parametrize("opener", TOLD)
def test_each_opener_is_told_what_it_may_open(opener: str) -> None:
    for file in sorted((ROOT / "src").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for found in re.finditer(opener, text) if "src/reporting/" not in file.as_posix() else ():
            call = text[found.end() : text.index(")", found.end() + 40)]
            told = TOLD[opener]
            assert told is not None and told in call, f"{file}: {found[0]}{call})"
