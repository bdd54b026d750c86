"""What a model makes of images that nobody labelled yet: how unsure it is, and what they look like to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from src.data.readers.images import IMAGE_SUFFIXES, read_rgb
from src.errors import UserError
from src.inference.photos import Cut, predict_maps
from src.models.base import Segmenter
from src.models.ensemble import Ensemble

By = Literal["entropy", "mutual_information"]


@dataclass(frozen=True)
class Seen:
    """Images that a model has looked at.

    Attributes:
        names: of the images.
        scores: the mean uncertainty over an image's pixels, 0…1, [N].
        features: [N, D]; None of a network without an encoder.
        failed: what could not be read, a line each.
    """

    names: list[str]
    scores: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32] | None
    failed: list[str]


def look(model: Segmenter, device: torch.device, files: Mapping[str, Path], by: By, featured: bool) -> Seen:
    """Predicts each image.

    Args:
        files: by name.
        by: the uncertainty that counts.
        featured: whether features are wanted.

    Raises:
        UserError: the model takes no photos or has no such uncertainty, or no image can be read.
    """
    from rich.progress import track

    if (model.channels, model.intensity) != (3, (0.0, 255.0)):
        raise UserError(f"ckpt: it takes images of {model.channels} channels, and src.select looks at RGB photos")
    names, scores, features, failed = [], [], [], []
    for name, file in track(files.items(), "looking", disable=not sys.stdout.isatty()):
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            failed.append(f"{file}: is no photo")
            continue
        try:
            image = read_rgb(file)
        except UserError as error:
            failed.append(str(error))
            continue
        with _features(model if featured else None) as found:
            maps = predict_maps(model, device, image[None], Cut(), names=[str(file)], uncertainty=True)[0]
        if by not in maps:
            raise UserError(
                f"by: {by} is the disagreement of several predictions, and this model makes one; give several runs "
                "(ckpt=[RUN1,RUN2,RUN3]), or take by=entropy"
            )
        names.append(name)
        scores.append(float(maps[by].astype(np.float64).mean() / 255))
        features += [torch.stack(found).mean(dim=0).numpy()] if found else []
    if not names:
        raise UserError(f"input: no image could be read; the first: {failed[0]}")
    return Seen(names, np.asarray(scores), np.stack(features) if features else None, failed)


@contextmanager
def _features(model: Segmenter | None) -> Iterator[list[Tensor]]:
    """Collects, while it lasts, the deepest features of each pass of the model's encoder, averaged over the image, [D]."""
    found: list[Tensor] = []
    encoder = None if model is None else _encoder(model)

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.append(_deepest(output).float().mean(dim=(0, 2, 3)).cpu())

    handle = None if encoder is None else encoder.register_forward_hook(keep)
    try:
        yield found
    finally:
        if handle is not None:
            handle.remove()


def _encoder(model: Segmenter) -> nn.Module | None:
    one = model.segmenters[0] if isinstance(model, Ensemble) else model
    network = one.network if one.ema is None else one.ema.module
    encoder = getattr(network, "encoder", None)
    return encoder if isinstance(encoder, nn.Module) else None


def _deepest(output: Any) -> Tensor:
    """Of what an encoder gives the map [B, C, h, w] that comes last."""
    if isinstance(output, Tensor):
        return output
    return _deepest(list(output.values() if isinstance(output, Mapping) else output)[-1])
