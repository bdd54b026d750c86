"""8-bit integers in the place of floats: static post-training quantization by ONNX Runtime, and what it costs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from src.data.sources import Source
from src.errors import UserError
from src.metrics.confusion import ConfusionMatrix, scores
from src.models.base import Segmenter
from src.sharing.formats import quiet
from src.sharing.graph import Run

Array = npt.NDArray[Any]


def quantized(model: Any, inputs: Sequence[Array]) -> Any:
    """An `onnx.ModelProto` whose convolutions and products compute with 8-bit integers: weights per output channel, in 7 bits
    (processors without VNNI add products of 8 bits up beyond what 16 hold), activations in the ranges that `inputs` make.

    Args:
        inputs: raw images [B, C, H, W].
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(inputs)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image}

    with tempfile.TemporaryDirectory() as folder, quiet():
        given, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "made"))
        onnx.save(model, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, made, Reader(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, per_channel=True, reduce_range=True,
        )  # fmt: skip
        return onnx.load(made)


@contextlib.contextmanager
def standing_in(model: Segmenter, run: Run) -> Iterator[None]:
    """Within it a model predicts, by its whole protocol, with `run` in the place of its network."""

    def evaluated(image: Tensor) -> dict[str, Tensor]:
        return {"logits": run(image)}

    model.__dict__["evaluated"] = evaluated
    try:
        yield
    finally:
        del model.__dict__["evaluated"]


@torch.no_grad()
def seen_by(model: Segmenter, source: Source, count: int) -> list[Array]:
    """What the network is given of `count` images of a split, evenly spread, by the model's protocol: raw [B, C, H, W] each."""
    seen: list[Array] = []

    def run(image: Tensor) -> Tensor:
        seen.append(image.contiguous().numpy())
        return torch.zeros(len(image), model.label_set.num_classes, *image.shape[-2:])

    with standing_in(model, run):
        for index in np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int):
            for _ in model.predicted(source.read(int(index))[0][None]):
                pass
    return seen


def check_size(model: Segmenter, source: Source, count: int, size: Sequence[int] | None) -> None:
    """Checks that a graph of one size takes what it is calibrated on.

    Raises:
        UserError: the network is given other sizes of the split.
    """
    if size is None:
        return
    other = next((image for image in seen_by(model, source, count) if tuple(image.shape[-2:]) != tuple(size)), None)
    if other is not None:
        height, width = other.shape[-2:]
        raise UserError(
            f"size: {list(size)} is none that the network is given of val, on which int8 is calibrated and scored; leave size "
            f"out, or take size=[{height},{width}]"
        )


@torch.no_grad()
def scored(model: Segmenter, source: Source) -> dict[str, float]:
    """Scores over a split, as in metrics.json, of the classes that a model predicts."""
    labels = model.label_set
    matrix = ConfusionMatrix(labels.num_classes, labels.ignore_index)
    for index in range(len(source)):
        image, mask = source.read(index)
        strips = [outputs["logits"].argmax(dim=1) for _, outputs in model.predicted(image[None], mask.shape)]
        matrix.update(torch.cat(strips, dim=-2), mask[None])
    return scores(matrix.compute(), labels.names)


@dataclass(frozen=True)
class Cost:
    """What quantization costs on a split.

    Attributes:
        images, calibrated_on: of the split, and those of them whose ranges were taken.
        before, after: scores of the checkpoint, and of the file.
    """

    images: int
    calibrated_on: int
    before: dict[str, float]
    after: dict[str, float]

    @property
    def told(self) -> str:
        was, now = self.before["miou"], self.after["miou"]
        return (
            f"val mIoU {now:.4f} on {self.images} images, the checkpoint's {was:.4f}: {100 * (now - was):+.2f} points"
        )

    def plain(self) -> dict[str, object]:
        """As plain containers."""
        return {
            "split": "val", "images": self.images, "calibrated_on": self.calibrated_on, "checkpoint": self.before,
            "file": self.after, "miou_lost": self.before["miou"] - self.after["miou"],
        }  # fmt: skip
