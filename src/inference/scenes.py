"""Segments rasters window by window, so that a scene of any size fits in memory, and keeps where they lie."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from src.config.check import check_node
from src.config.inference import Inference
from src.config.parts import Dataset
from src.data.readers.images import IMAGE_SUFFIXES
from src.data.readers.raster import check_bands, georeference, open_raster, preview, read_window
from src.data.windows import Window, parts
from src.errors import UserError
from src.files.atomic import replacing
from src.files.pictures import save_picture
from src.files.untrusted import open_regular
from src.inference.drawing import as_picture, overlay
from src.inference.predictor import Predictor
from src.inference.protocol import joined
from src.inference.vectors import OF_MAPS, check_forms, save_map_vectors
from src.inference.windows import Outputs
from src.inference.writing import Writing
from src.optional_packages import needs

_log = logging.getLogger(__name__)
TRAINED_ON = "src.data.formats.geotiff.GeoTiff"
# TIFF tags of a georeference: pixel scale, tie points (or ground control points), transform, CRS, rational polynomials
_GEO_TAGS = (33550, 33922, 34264, 34735, 50844)
_NO_DATA = 255
_NARROW = 0.02  # of the model's range; less looks all alike to it
_OVERVIEW = 2048  # pixels of the longer side of an overlay


def is_georeferenced(file: Path) -> bool:
    """Whether a file is a GeoTIFF, told by its tags, without rasterio; or of a format that photos do not have."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return file.suffix.lower() not in IMAGE_SUFFIXES
    try:
        with open_regular(file, links=True) as stream, Image.open(stream, formats=["TIFF"]) as image:
            return any(tag in image.tag_v2 for tag in _GEO_TAGS)  # type: ignore[attr-defined]
    except Exception:  # many bands, floats or damaged: no photo, so rasterio's to judge
        return True


def bands_of(dataset: Dataset, channels: int, count: int, file: Path) -> list[int]:
    """The bands of a file with `count` bands that a model takes; `dataset` is what it was trained on.

    Raises:
        UserError: it cannot be told which.
    """
    if dataset.target == TRAINED_ON:
        check_node("data.dataset", dataset.node)  # a stranger's checkpoint
        return dataset.bands or [1, 2, 3]
    if count == channels or (channels == 3 and count > 3):
        if count > channels:
            _log.warning("%s: has %d bands, and the model takes the first %d of them", file, count, channels)
        return list(range(1, channels + 1))
    raise UserError(f"{file}: has {count} bands and the model takes {channels}; give a file with these bands only")


def _check_protocol(protocol: Inference, file: Path) -> None:
    if protocol.short_side or protocol.resize:
        mend = "inference.short_side=0 inference.long_side=0" if protocol.short_side else "inference.resize=[]"
        raise UserError(f"{file}: a raster keeps its resolution; take {mend}")
    if protocol.windows and protocol.resizes:
        raise UserError(
            f"{file}: windows of a raster are read at its own resolution; take inference.scales=[1], or inference.mode=whole"
        )


@torch.inference_mode()
def segment_raster(
    model: Predictor, device: torch.device, file: Path, name: str, dataset: Dataset, writing: Writing, *,
    side: int, overlap: int,
) -> None:  # fmt: skip
    """Writes uncertainty/NAME_….tif, probabilities/NAME.tif (a band of uint8 for each class, whose scale is 1/255), outlines, a
    thinned overlays/NAME.png, and masks/NAME.tif (uint8, the classes' colours, 255 without data; with `ids` these, and their
    void), all with the CRS and transform of `file`.

    Raises:
        UserError: the file cannot be read or does not fit the model.
    """
    _check_protocol(model.inference, file)
    check_forms(writing.vectors, OF_MAPS, file, "a map")
    ids = writing.ids
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_raster(file))
        bands = bands_of(dataset, model.channels, source.count, file)
        check_bands(source, bands, file, "the model")
        given = replace(model.images, dtype=str(np.result_type(*(source.dtypes[band - 1] for band in bands))))
        if depth := model.images.other_depth(given.dtype):
            raise UserError(f"{file}: is {depth}; give it with the values that the model learnt from")
        if doubt := model.images.doubt(given):
            _log.warning("%s: has %s", file, doubt)
        sinks: dict[str, Any] = {}
        seen = _Seen(model.intensity)
        scene = _Scene(source, bands, model.intensity, device)
        pieces = _strips(model, scene) if model.inference.windows else _parts(model, scene, side, overlap)
        for area, outputs in pieces:
            maps = gray_maps(model, outputs, writing.uncertainty)[0]
            values_there, empty = read_window(source, bands, area, model.intensity)
            seen.add(values_there.numpy()[:, ~empty])
            maps["mask"][empty] = _NO_DATA
            written: dict[str, npt.NDArray[np.unsignedinteger]] = dict(maps)
            if ids is not None:
                written["mask"] = ids.of(maps["mask"])
            if writing.probabilities:
                written["probability"] = gray_probabilities(model, outputs)[0]
            for kind, values in written.items():
                if kind not in sinks:  # the mask's is made first, so it is closed, and gets its name, last
                    count = len(values) if kind == "probability" else 1
                    sinks[kind] = stack.enter_context(
                        _created(_target(kind, name, writing), source, values.dtype, count)
                    )
                    if kind == "probability":
                        sinks[kind].scales = [1 / 255] * count
                        sinks[kind].descriptions = model.label_set.names
                    if kind == "mask":
                        palette = model.label_set.palette() if ids is None else ids.by_value(model.label_set.palette())
                        sinks[kind].write_colormap(1, {k: (*map(int, rgb), 255) for k, rgb in enumerate(palette)})
                        sinks[kind].nodata = _NO_DATA if ids is None else ids.void
                _write(sinks[kind], values, area)
        if doubt := seen.doubt():
            _log.warning("%s: %s", file, doubt)
        shown = as_picture(preview(source, bands, _OVERVIEW), model.intensity)
    if writing.vectors:
        save_map_vectors(writing.mask(name, ".tif"), model.label_set, name, writing)
    if writing.opacity is None:
        return
    with open_raster(writing.mask(name, ".tif")) as mask:
        values = preview(mask, [1], _OVERVIEW)[0]
    classes = values if ids is None else ids.classes(values)
    blended = overlay(shown, classes, model.label_set, writing.opacity)
    save_picture(Image.fromarray(blended), writing.overlay(name))


def _target(kind: str, name: str, writing: Writing) -> Path:
    if kind == "mask":
        return writing.mask(name, ".tif")
    return writing.probability(name, ".tif") if kind == "probability" else writing.uncertainty_map(name, kind, ".tif")


class _Scene:
    """A scene as the network reads it.

    Args:
        source: an opened raster.
        bands: numbers from 1.
        intensity: range of the values that are told apart.
        device: where pieces are wanted.
        mirrored: left for right.
    """

    def __init__(
        self, source: Any, bands: Sequence[int], intensity: tuple[float, float], device: torch.device,
        mirrored: bool = False,
    ) -> None:  # fmt: skip
        self.source, self.bands, self.intensity, self.device = source, bands, intensity, device
        self.height, self.width, self.mirrored = source.height, source.width, mirrored

    def read(self, top: int, left: int, height: int, width: int) -> torch.Tensor:
        if self.mirrored:
            left = self.width - left - width
        raw, _ = read_window(self.source, self.bands, Window(top, left, height, width), self.intensity)
        return (raw.flip(-1) if self.mirrored else raw)[None].to(self.device)

    def turned(self) -> _Scene:
        """The same, left for right."""
        return _Scene(self.source, self.bands, self.intensity, self.device, not self.mirrored)


Piece = tuple[Window, Outputs]  # a part of a scene, and what was predicted for it


def _strips(model: Predictor, scene: _Scene) -> Iterator[Piece]:
    """By the model's own windows, whose predictions are averaged where they overlap; memory holds one row of them."""
    for top, outputs in model.predicted_scene(scene, scene.turned()):
        yield Window(top, 0, outputs["logits"].shape[-2], scene.width), outputs


def _parts(model: Predictor, scene: _Scene, side: int, overlap: int) -> Iterator[Piece]:
    """Of a model that takes images whole: the scene cut into images, of each the part that is its own."""
    for part in parts(scene.height, scene.width, side, overlap):
        read, keep = part.read, part.keep
        outputs = joined(model.predicted(scene.read(read.top, read.left, read.height, read.width)))
        rows = slice(keep.top - read.top, keep.top - read.top + keep.height)
        columns = slice(keep.left - read.left, keep.left - read.left + keep.width)
        yield keep, {name: values[..., rows, columns] for name, values in outputs.items()}


class _Seen:
    """The values of a scene, to tell whether they are of the range that a model tells apart."""

    def __init__(self, intensity: tuple[float, float]) -> None:
        self.range, self.count, self.outside = intensity, 0, 0
        self.low, self.high = np.inf, -np.inf

    def add(self, values: npt.NDArray[np.number]) -> None:
        if values.size:
            self.count += values.size
            self.outside += int(((values < self.range[0]) | (values > self.range[1])).sum())
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def doubt(self) -> str | None:
        """Why the scene may not be of the model's kind, in words; None where nothing speaks against it."""
        low, high = self.range
        narrow = self.high - self.low < _NARROW * (high - low)
        if not self.count or not (narrow or self.outside > self.count / 2):
            return None
        return (
            f"its values lie from {self.low:g} to {self.high:g}, and the model tells those from {low:g} to {high:g} apart; "
            "is it scaled otherwise than the data of its training?"
        )


def gray_maps(model: Predictor, outputs: Outputs, uncertainty: bool) -> list[dict[str, npt.NDArray[np.uint8]]]:
    """Of what was predicted for each image: "mask", uint8 [H, W] of class numbers, and uncertainty maps in which 255 is 1."""
    masks = outputs["logits"].argmax(dim=1).byte().cpu().numpy()
    maps = {kind: _as_gray(values) for kind, values in (model.uncertainty(outputs) if uncertainty else {}).items()}
    return [{"mask": mask} | {kind: values[at] for kind, values in maps.items()} for at, mask in enumerate(masks)]


def half_probabilities(model: Predictor, outputs: Outputs) -> npt.NDArray[np.float16]:
    """The probabilities of what was predicted, at the model's temperature, float16 [B, K, H, W]."""
    halves: npt.NDArray[np.float16] = model.shares(outputs["logits"]).half().cpu().numpy()
    return halves


def gray_probabilities(model: Predictor, outputs: Outputs) -> npt.NDArray[np.uint8]:
    """The same as uint8 [B, K, H, W], 255 is 1."""
    return _as_gray(model.shares(outputs["logits"]))


def _as_gray(values: torch.Tensor) -> npt.NDArray[np.uint8]:
    """A map in 0…1 as uint8 of the same shape."""
    gray: npt.NDArray[np.uint8] = (values.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return gray


@contextlib.contextmanager
def _created(file: Path, source: Any, dtype: np.dtype[Any], count: int = 1) -> Iterator[object]:
    """A new GeoTIFF on the source's grid, of so many bands; it gets its name only once it is whole.

    Raises:
        OSError: it cannot be written.
    """
    rasterio = needs("rasterio", "geo")
    with replacing(file) as partial:
        with _writing(partial):
            sink = rasterio.open(
                partial, "w", driver="GTiff", height=source.height, width=source.width, count=count, dtype=dtype.name,
                compress="deflate", tiled=True, bigtiff="if_safer", **georeference(source),
            )  # fmt: skip
        try:
            yield sink
        finally:
            with _writing(partial):
                sink.close()
        with _writing(partial), rasterio.open(partial, driver="GTiff") as written:  # closing hides what was not written
            for _, window in written.block_windows(1):
                written.read(window=window)


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Turns an error of GDAL's, which tells no cause, into that of writing to the file without it.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        yield
    except needs("rasterio", "geo").errors.RasterioError as error:
        try:
            with file.open("ab") as stream:
                stream.write(bytes(1 << 20))
        except OSError as cause:
            cause.filename = str(file.parent)
            raise cause from error
        raise OSError(errno.EIO, "Input/output error", str(file.parent)) from error


def _write(sink: Any, values: npt.NDArray[np.unsignedinteger], area: Window) -> None:
    where = needs("rasterio.windows", "geo").Window(area.left, area.top, area.width, area.height)
    with _writing(Path(sink.name)):
        sink.write(values if values.ndim == 3 else values[None], window=where)
