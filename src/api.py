"""A trained segmenter from Python: `from src import load; load("RUN_OR_FILE").predict("photo.jpg").mask`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

import src.which_src  # noqa: F401  first of ours: it ends where another src is in the way
from src.config.rules import check_precision
from src.data.labels import LabelSet
from src.data.readers.images import IMAGE_SUFFIXES, read_rgb, upright
from src.data.windows import Window
from src.errors import UserError
from src.files.untrusted import shown
from src.inference.devices import MIXED, autocast, usable_device
from src.inference.drawing import as_picture, overlay
from src.inference.photos import Cut, Put, predict_maps
from src.models.base import Segmenter
from src.storage import published
from src.training.ensembles import files_of, segmenter_of

__all__ = ["Segmentation", "TrainedSegmenter", "load"]

Given = str | Path | Image.Image | npt.NDArray[Any]
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:(?!\\)", re.IGNORECASE)


def load(
    place: str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    precision: str | None = None,
    trust: Sequence[str] = (),
    batch_size: int = 4,
    revision: str | None = None,
) -> TrainedSegmenter:
    """A segmenter from a run folder (its best checkpoint), a checkpoint file, or what `src.publish` made, ready to predict.

    Args:
        place: the folder or file, or `hf:OWNER/NAME` of the hub; of a list the mean of their probabilities is predicted.
        device: in torch's words: "cpu", "cuda:1"; "auto" takes the machine's accelerator.
        precision: "bf16-mixed" or "16-mixed"; None and "32-true" compute in float32.
        trust: your packages of which the checkpoint's config may build too.
        batch_size: the most images of one size that go through the network together.
        revision: of the hub's model: a branch, a tag or a commit.

    Raises:
        UserError: there is no such checkpoint, it cannot be trusted, or the device or the precision is none.
    """
    places = [str(one) for one in ([place] if isinstance(place, str | Path) else place)]
    if not places:
        raise UserError("load: an empty list; give a run folder or a checkpoint file")
    for one in places:
        on_hub = one.startswith(published.SCHEME)
        if not on_hub and (scheme := _SCHEME.match(one)) is not None and not Path(one).exists():
            raise UserError(
                f"load: {shown(one)}: {scheme[0]} is no place that is read; give a run folder, a checkpoint file or "
                "hf:OWNER/NAME"
            )
        if revision is not None and not (on_hub and len(places) == 1):
            raise UserError("revision: is of one model of the hub, hf:OWNER/NAME; leave it out")
    if revision is not None:
        places = [f"{places[0]}@{revision}"]
    if precision not in (None, "32-true", "32", *MIXED):
        raise UserError(
            f"precision: predicting in {shown(str(precision))} is not possible; take 32-true, {', '.join(MIXED)}"
        )
    if isinstance(trust, str):
        trust = [trust]
    where = usable_device(device)
    check_precision(precision, has_gpu=where.type != "cpu", here=True)
    model, _ = segmenter_of(files_of(places), trust)
    return TrainedSegmenter(model.to(where), where, precision, batch_size)


@dataclass(frozen=True)
class Segmentation:
    """What was predicted for one image.

    Attributes:
        mask: class numbers, uint8 [H, W].
        names, colors: of the classes, by number.
    """

    mask: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    _segmenter: TrainedSegmenter
    _image: Tensor  # raw [C, H, W]

    @property
    def probabilities(self) -> npt.NDArray[np.float16]:
        """The probability of each class, float16 [K, H, W], predicted when it is asked for and not kept."""
        found = np.empty((len(self.names), *self.mask.shape), np.float16)

        def put(area: Window, values: npt.NDArray[np.float16]) -> None:
            found[:, area.top : area.top + area.height, area.left : area.left + area.width] = values

        self._segmenter.masks(self._image[None], [put])
        return found

    @property
    def uncertainty(self) -> npt.NDArray[np.float32]:
        """The entropy of each pixel's probabilities as a share of the largest one, log K: float32 [H, W] in 0 … 1, in steps of
        1/255; predicted when it is asked for and not kept."""
        return self._segmenter.entropy(self._image[None])

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        """The image itself, RGB uint8 [H, W, 3]."""
        return as_picture(self._image.numpy(), self._segmenter.model.intensity)

    def overlay(self, opacity: float = 0.5) -> npt.NDArray[np.uint8]:
        """The classes' colours over the image, RGB uint8 [H, W, 3]."""
        if not 0 <= opacity <= 1:
            raise UserError(f"opacity: {opacity} is not between 0 and 1")
        return overlay(self.picture, self.mask, self._segmenter.labels, opacity)


class TrainedSegmenter:
    """A segmenter that predicts by the protocol of its training (`inference.*`), pixels as `python -m src.predict` writes them.

    Attributes:
        model: the LightningModule, in evaluation mode.
        device: where it computes.
        labels: names and colours of the classes.
    """

    def __init__(
        self, model: Segmenter, device: torch.device, precision: str | None = None, batch_size: int = 4
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size: {batch_size} is below 1")
        self.model, self.device = model, device
        self._precision, self._batch_size = precision, batch_size if model.takes_batches else 1

    @property
    def labels(self) -> LabelSet:
        return self.model.label_set

    @property
    def names(self) -> tuple[str, ...]:
        return self.labels.names

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        return self.labels.colors

    @overload
    def predict(self, image: Given) -> Segmentation: ...
    @overload
    def predict(self, image: list[Given]) -> list[Segmentation]: ...
    def predict(self, image: Given | list[Given]) -> Segmentation | list[Segmentation]:
        """What is seen in an image, or in each image of a list.

        Args:
            image: the path of a photo, a PIL image, or an array [H, W, C] as the network was trained on (RGB uint8 for photos;
                [H, W] for one channel).

        Raises:
            UserError: it cannot be read, or has other channels or values than the model takes.
        """
        if not isinstance(image, list):
            return self._predicted([self._raw(image)])[0]
        raw = [self._raw(one) for one in image]
        found: list[Segmentation] = []
        while len(found) < len(raw):
            first = raw[len(found)]
            same = raw[len(found) : len(found) + self._batch_size]
            count = next(
                (at for at, one in enumerate(same) if one.shape != first.shape or one.dtype != first.dtype), len(same)
            )
            found += self._predicted(same[:count])
        return found

    def masks(self, images: Tensor, puts: Sequence[Put] = ()) -> list[npt.NDArray[np.uint8]]:
        """Class numbers uint8 [H, W] of raw images [B, C, H, W].

        Args:
            puts: for each image what takes the probabilities of its parts; none where they are not wanted.
        """
        with autocast(self.device, self._precision):
            found = predict_maps(self.model, self.device, images, Cut(), puts=puts)
        return [maps["mask"].astype(np.uint8, copy=False) for maps in found]

    def entropy(self, image: Tensor) -> npt.NDArray[np.float32]:
        """The entropy of each pixel of a raw image [1, C, H, W], as `Segmentation.uncertainty` has it."""
        with autocast(self.device, self._precision):
            (maps,) = predict_maps(self.model, self.device, image, Cut(), uncertainty=True)
        return maps["entropy"].astype(np.float32) / np.float32(255)

    def _predicted(self, raw: list[Tensor]) -> list[Segmentation]:
        masks = self.masks(torch.stack(raw) if len(raw) > 1 else raw[0][None])
        return [Segmentation(mask, self.names, self.colors, self, one) for mask, one in zip(masks, raw, strict=True)]

    def _raw(self, image: Given) -> Tensor:
        """An image as the network takes it, [C, H, W]."""
        channels, is_photo = self.model.channels, self.model.intensity == (0.0, 255.0)
        if isinstance(image, str | Path):
            file = Path(image).expanduser()
            if channels != 3 or not is_photo:
                raise UserError(
                    f"{shown(str(file))}: this model takes no photos; give an array, or take python -m src.predict"
                )
            if not file.name.lower().endswith(IMAGE_SUFFIXES):
                raise UserError(f"{shown(str(file))}: is no photo by its name; give one of {', '.join(IMAGE_SUFFIXES)}")
            return read_rgb(file)
        if isinstance(image, Image.Image):
            image = np.array(upright(image).convert("RGB" if channels == 3 else "L"))
        if not isinstance(image, np.ndarray):
            raise UserError(f"image: is a {type(image).__name__}; give a path, a PIL image or a NumPy array")
        values = image[..., None] if image.ndim == 2 else image
        if values.ndim != 3 or values.shape[2] != channels or 0 in values.shape:
            wanted = f"[H, W, {channels}]" + (" or [H, W]" if channels == 1 else "")
            raise UserError(f"image: has the shape {list(image.shape)}; this model takes {wanted}")
        if is_photo and values.dtype != np.uint8:
            raise UserError(f"image: is {values.dtype}, and this model takes uint8, 0 to 255; scale it")
        if values.dtype.kind not in "uif":
            raise UserError(f"image: is {values.dtype}; give numbers")
        if values.dtype.kind == "f" or values.dtype.itemsize == 8 or values.dtype == np.uint32:  # as rasters are read
            values = values.astype(np.float32)
        # a copy: the caller may write to it before the probabilities are asked for
        return torch.from_numpy(np.array(values, order="C")).permute(2, 0, 1)
