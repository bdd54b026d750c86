"""A checkpoint's network as a graph of torch.export, and whether what was written of it gives the same."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from src.errors import UserError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from src.models.base import Segmenter

Run = Callable[[Tensor], Tensor]  # raw images to what a file gives
Size = Sequence[int] | None

# Odd, so that the padding to the network's stride is part of the graph; then sizes of either kind to try it with.
_TRACED, _TRIED = (2, 70, 133), ((1, 96, 160), (3, 33, 101), (2, 70, 133))
_CLOSE = {"fp32": 1e-3, "fp16": 3e-2}  # of the largest logit
_POOL = torch.ops.aten.adaptive_avg_pool2d.default


def traced(
    model: Segmenter, size: Size, *, argmax: bool = False, half: bool = False, own_pooling: bool = False
) -> ExportedProgram:
    """The graph of raw images [B, C, H, W] to logits float32 [B, K, H, W].

    Args:
        size: height and width; None takes images of any size.
        argmax: to classes, uint8 [B, H, W], instead.
        half: the network computes in float16. The model's own weights become so.
        own_pooling: pooling to a grid is written as products of matrices, for exporters that know it for fixed sizes only.

    Raises:
        UserError: the network cannot be traced.
    """

    class Answer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> Tensor:
            logits = self.model.logits(image).float()
            return logits.argmax(dim=1).to(torch.uint8) if argmax else logits

    if half:
        model.network.half().register_forward_pre_hook(lambda _, given: tuple(value.half() for value in given))
    of_any = dict.fromkeys((0, 2, 3) if size is None else (0,), torch.export.Dim.DYNAMIC)
    batch, height, width = _TRACED if size is None else (2, *size)
    try:
        with torch.no_grad(), warnings.catch_warnings(), _same_padding_known(model):
            warnings.simplefilter("ignore")
            image = random_images(model, batch, height, width)
            program = torch.export.export(Answer().eval(), (image,), dynamic_shapes=(of_any,), strict=False)
            if own_pooling and any(_is_grid(node) for node in program.graph.nodes):
                program = program.run_decompositions({_POOL: pooled})
            return program
    except Exception as error:  # torch.export's errors have no class in common
        raise not_exported(error, size) from error


def not_exported(error: Exception, size: Size) -> UserError:
    reason = " ".join(str(error).split())[:160]
    mend = "" if size is not None else "; try it for one size, e.g. size=[512,512]"
    return UserError(f"ckpt: this network cannot be exported ({reason}){mend}")


@contextlib.contextmanager
def _same_padding_known(model: Segmenter) -> Iterator[None]:
    """Within it TensorFlow's "same" padding (timm's `Conv2dSame`) is a constant, as wherever a stride divides the size: in any
    image that is padded to the network's stride. As a formula of the size it costs minutes of tracing."""
    padded = getattr(model.network, "size_divisor", 1) > 1
    layers = [layer for layer in model.modules() if padded and type(layer).__name__ == "Conv2dSame"]
    for layer in layers:
        layer.forward = functools.partial(_same_convolution, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _same_convolution(layer: Any, image: Tensor) -> Tensor:
    sides: list[int] = []
    for kernel, stride, dilation in zip(layer.kernel_size[::-1], layer.stride[::-1], layer.dilation[::-1], strict=True):
        whole = max((kernel - 1) * dilation + 1 - stride, 0)
        sides += [whole // 2, whole - whole // 2]
    image = functional.pad(image, sides)
    return functional.conv2d(image, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)


def _is_grid(node: torch.fx.Node) -> bool:
    return node.target is _POOL and list(node.args[1]) != [1, 1]  # type: ignore[arg-type]


def pooled(image: Tensor, size: Sequence[int]) -> Tensor:
    """Adaptive average pooling of [..., H, W] to [..., *size], for H and W that are known only when the graph runs: torch's own
    decomposition takes the cells of the size that was traced."""
    down, across = (_shares(image.shape[at - 2], size[at], image) for at in (0, 1))
    return down @ image @ across.mT


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """How much of each pixel is in each cell, [cells, length]; cells overlap where the length does not divide."""
    cell = torch.arange(cells, device=like.device)[:, None]
    pixel = torch.arange(length, device=like.device)[None]
    first, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    inside = ((pixel >= first) & (pixel < end)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


@torch.no_grad()
def expected_of(model: Segmenter, size: Size) -> list[tuple[Tensor, Tensor]]:
    """Random raw images of several sizes, and the model's logits for them."""
    tried = _TRIED if size is None else ((1, *size), (3, *size))
    images = [random_images(model, *shape) for shape in tried]
    return [(image, model.logits(image).float()) for image in images]


def largest_difference(run: Run, expected: Sequence[tuple[Tensor, Tensor]], precision: str, argmax: bool) -> float:
    """How far what a file gives is from the checkpoint: the largest difference of a logit; of labels, by how much the largest
    logit is above that of the class given.

    Args:
        expected: images and logits of the checkpoint.
        precision: how near it has to be: "fp32", "fp16"; "int8" is held to its shape alone.

    Raises:
        UserError: it is further away than rounding explains.
    """
    worst = 0.0
    for image, logits in expected:
        given = run(image)
        shape = (len(image), *image.shape[-2:]) if argmax else tuple(logits.shape)
        off = float("inf")
        if tuple(given.shape) == shape:
            if argmax:
                chosen = logits.gather(1, given.long()[:, None])[:, 0]
                off = float((logits.amax(dim=1) - chosen).max())
            else:
                off = float((logits - given.float()).abs().max())
        allowed = _CLOSE.get(precision, float("inf")) * max(1.0, float(logits.abs().max()))
        if not off <= allowed or off == float("inf"):
            raise UserError(
                f"output: the exported network gives other logits for {image.shape[-2]}x{image.shape[-1]} (by {off:.1e}); "
                "it was not kept"
            )
        worst = max(worst, off)
    return worst


def random_images(model: Segmenter, batch: int, height: int, width: int) -> Tensor:
    """Raw images [B, C, H, W] within the model's range, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    low, high = model.intensity
    values = low + (high - low) * torch.rand((batch, model.channels, height, width), generator=generator)
    return values.round().to(torch.uint8) if model.intensity == (0.0, 255.0) else values
