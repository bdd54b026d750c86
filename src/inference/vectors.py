"""Outlines of what was predicted, for tools that take polygons: GeoJSON, COCO's and labelme's JSON, GeoPackage.

They run along the edges of pixels, so that drawing them gives the mask again. A region is what hangs together by its sides.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.labels import LabelSet
from src.errors import UserError
from src.files.atomic import replacing
from src.inference.coco_files import image_file
from src.inference.writing import Vectors, Writing
from src.optional_packages import needs

Ring = list[tuple[float, float]]  # closed: its last point is its first
OF_PHOTOS: tuple[Vectors, ...] = ("geojson", "coco", "coco_rle", "labelme")
OF_MAPS: tuple[Vectors, ...] = ("geojson", "gpkg")
_WGS84 = "EPSG:4326"  # what GeoJSON is in (RFC 7946)


@dataclass(frozen=True)
class Region:
    """Pixels of one class that hang together.

    Attributes:
        number: of the class.
        rings: the outer one, then those of holes; x to the right and y down in pixels, or in a map's coordinates.
    """

    number: int
    rings: list[Ring]


def regions(mask: object, classes: int, transform: object = None) -> Iterator[Region]:
    """The regions of a mask uint8 [H, W], or of a raster's band, which is read block by block.

    Args:
        classes: their number; pixels of other values have no outline.
        transform: from pixels to coordinates; None leaves pixels.

    Raises:
        UserError: rasterio is not installed.
    """
    features = needs("rasterio.features", "geo")
    more = {} if transform is None else {"transform": transform}
    for shape, value in features.shapes(mask, connectivity=4, **more):
        if value < classes:
            yield Region(int(value), shape["coordinates"])


def check_forms(wanted: Sequence[Vectors], possible: Sequence[Vectors], file: Path, kind: str) -> None:
    """Checks that outlines of an input can be written in the forms that are wanted.

    Raises:
        UserError: one cannot.
    """
    if wrong := [form for form in wanted if form not in possible]:
        mend = f"take vectors=[{','.join(possible)}] or one of them" if possible else "leave vectors out"
        raise UserError(f"{file}: is {kind}, of which vectors={wrong[0]} is not written; {mend}")


def save_vectors(mask: npt.NDArray[np.uint8], labels: LabelSet, name: str, photo: Path, writing: Writing) -> None:
    """Writes the outlines of a photo's mask in each form that is asked for, in pixels.

    Raises:
        UserError: a form is one of maps only, or a package is missing.
        OSError: the output cannot be written.
    """
    check_forms(writing.vectors, OF_PHOTOS, photo, "a photo")
    if not writing.vectors:
        return
    found = list(regions(mask, labels.num_classes)) if set(writing.vectors) != {"coco_rle"} else []
    for form in writing.vectors:
        file = writing.vector(name, form)
        if form == "geojson":
            _dump(_collection(found, labels, lambda ring: ring), file)
        elif form == "labelme":
            _dump(_labelme(found, labels, mask.shape, photo, file), file)
        else:
            outlines = [(r.number, r.rings) for r in found] if form == "coco" else None
            _dump(image_file(mask, outlines, labels, writing.ids, f"{name}{photo.suffix}"), file)


def save_map_vectors(mask_file: Path, labels: LabelSet, name: str, writing: Writing) -> None:
    """Writes the outlines of a map's mask (a GeoTIFF of class numbers, or ids) in its CRS as GeoPackage, or in longitude and
    latitude as GeoJSON (without a CRS: as they are).

    Raises:
        UserError: a package is missing.
        OSError: the output cannot be written.
    """
    rasterio = needs("rasterio", "geo")
    with rasterio.open(mask_file, driver="GTiff") as mask:
        band = rasterio.band(mask, 1) if writing.ids is None else writing.ids.classes(mask.read(1))
        found = list(regions(band, labels.num_classes, mask.transform))
        crs = mask.crs
    for form in writing.vectors:
        file = writing.vector(name, form)
        if form == "gpkg":
            _geopackage(found, labels, crs.to_wkt() if crs else None, file)
            continue
        lonlat = needs("rasterio.warp", "geo").transform

        def placed(ring: Ring, crs: Any = crs, lonlat: Callable[..., Any] = lonlat) -> Ring:
            return ring if crs is None else list(zip(*lonlat(crs, _WGS84, *zip(*ring, strict=True)), strict=True))

        _dump(_collection(found, labels, placed), file)


def _collection(found: Sequence[Region], labels: LabelSet, placed: Callable[[Ring], Ring]) -> dict[str, object]:
    features = [
        {
            "type": "Feature",
            "properties": {"class": region.number, "name": labels.names[region.number], "color": _hex(labels, region.number)},
            "geometry": {"type": "Polygon", "coordinates": [placed(ring) for ring in region.rings]},
        }
        for region in found
    ]  # fmt: skip
    return {"type": "FeatureCollection", "features": features}


def _hex(labels: LabelSet, number: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*labels.colors[number])


def _labelme(
    found: Sequence[Region], labels: LabelSet, size: tuple[int, ...], photo: Path, file: Path
) -> dict[str, object]:
    """Its polygons have no holes, and later ones lie over earlier ones: the largest come first, and what is in their holes is
    drawn over them."""
    ordered = sorted(found, key=lambda region: -abs(_signed(region.rings[0])))
    shapes: list[dict[str, object]] = [
        {"label": labels.names[region.number], "points": _centred(region.rings[0]), "group_id": None,
         "description": "", "shape_type": "polygon", "flags": {}}
        for region in ordered
    ]  # fmt: skip
    return {
        "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": os.path.relpath(photo, file.parent),
        "imageData": None, "imageHeight": size[0], "imageWidth": size[1],
    }  # fmt: skip


def _centred(ring: Ring) -> list[list[float]]:
    """A ring along pixels' edges as one through the outermost pixels themselves: labelme fills polygons with Pillow, which
    counts the pixels that the line runs through as inside."""
    corners = np.array(ring[:-1])
    ahead = np.sign(np.roll(corners, -1, axis=0) - corners)
    inward = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) * (1 if _signed(ring) > 0 else -1)
    before = np.roll(inward, 1, axis=0)
    both = np.where((inward == before).all(axis=1)[:, None], inward, inward + before)
    centred: list[list[float]] = (corners + both / 2 - 0.5).tolist()
    return centred


def _signed(ring: Ring) -> float:
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def _geopackage(found: Sequence[Region], labels: LabelSet, crs: str | None, file: Path) -> None:
    raw = needs("pyogrio.raw", "geo")
    numbers = np.array([region.number for region in found], np.int32)
    names = np.array([labels.names[number] for number in numbers], object)
    colors = np.array([_hex(labels, number) for number in numbers], object)
    shapes: npt.NDArray[np.object_] = np.array([_wkb(region) for region in found], object)
    with replacing(file) as partial:
        raw.write(
            str(partial), shapes, [numbers, names, colors], ["class", "name", "color"], layer="prediction", driver="GPKG",
            geometry_type="Polygon", crs=crs,
        )  # fmt: skip


def _wkb(region: Region) -> bytes:
    """A polygon as well-known binary, little-endian."""
    rings = (struct.pack("<I", len(ring)) + np.array(ring, "<f8").tobytes() for ring in region.rings)
    return struct.pack("<BII", 1, 3, len(region.rings)) + b"".join(rings)


def _dump(content: Mapping[str, object], file: Path) -> None:
    with replacing(file) as partial, partial.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, separators=(",", ":"))
