"""The protocol by which an image is predicted (`inference.*`): its size, its windows, its scales and mirror images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from src.config.inference import Inference, enlarged_by
from src.inference.sizes import sized
from src.inference.windows import InMemory, Outputs, Readable, Run, Strip, windowed

_AT_ONCE = (
    2**28
)  # values of a strip (1 GiB); where windows are used, an image with more of them comes in several strips


def predicted(
    run: Run, image: Tensor, protocol: Inference, device: torch.device, size: Sequence[int] | None = None
) -> Iterator[Strip]:
    """What a network says of images, strip by strip from the top. One strip is all of it, but where windows are used and the
    result has more than 2**28 values.

    Logits of windows are averaged. Where there are several passes (scales, mirror images), probabilities are averaged, and
    "logits" is their logarithm; other maps are averaged as they are.

    Args:
        run: one pass over raw images.
        image: raw [B, C, H, W], on any device.
        protocol: how.
        device: the network's.
        size: height and width of the result; None takes the image's.
    """
    wanted = (image.shape[-2], image.shape[-1]) if size is None else (size[0], size[1])
    passes = [
        _sized_strips(_strips(run, view, protocol), (view.height, view.width), wanted, whole=not protocol.windows)
        for view in _views(image, protocol, device)
    ]
    yield from _together(passes)


def of_scene(run: Run, scene: Readable, mirrored: Readable, protocol: Inference) -> Iterator[Strip]:
    """As `predicted`, in windows, of a scene that is read piece by piece and keeps its size.

    Args:
        scene: the scene.
        mirrored: the same, left for right; read only where the protocol flips.
    """
    yield from _together([_strips(run, view, protocol) for view in ((scene, mirrored) if protocol.flip else (scene,))])


def joined(strips: Iterator[Strip]) -> Outputs:
    """Maps [B, C, H, W] of all strips of an image."""
    parts = [outputs for _, outputs in strips]
    return parts[0] if len(parts) == 1 else {name: torch.cat([p[name] for p in parts], dim=-2) for name in parts[0]}


def seen_size(height: int, width: int, protocol: Inference, scale: float = 1.0) -> tuple[int, int]:
    """The size at which the network sees an image of height x width."""
    down, across = enlarged_by(height, width, protocol)
    return max(1, math.floor(height * (down * scale) + 0.5)), max(1, math.floor(width * (across * scale) + 0.5))


def _views(image: Tensor, protocol: Inference, device: torch.device) -> Iterator[InMemory]:
    """The images at each size, as they are and mirrored."""
    for scale in protocol.scales:
        size = seen_size(image.shape[-2], image.shape[-1], protocol, scale)
        resized = image
        if size != image.shape[-2:]:
            resized = F.interpolate(
                image.float(), size, mode="bilinear", align_corners=False, antialias=protocol.antialias
            )
        for mirrored in (False, True) if protocol.flip else (False,):
            yield InMemory(resized, device, mirrored)


def _strips(run: Run, view: Readable, protocol: Inference) -> Iterator[Strip]:
    """What one pass says of a view, turned back where that is mirrored."""
    if protocol.windows:
        window = (protocol.window[0], protocol.window[1])
        strips = windowed(run, view, window, protocol.steps, protocol.blend, protocol.batch)
    else:
        strips = iter([(0, run(view.read(0, 0, view.height, view.width)))])
    for top, outputs in strips:
        yield top, {name: values.flip(-1) for name, values in outputs.items()} if view.mirrored else outputs


def _together(passes: Sequence[Iterator[Strip]]) -> Iterator[Strip]:
    """Strips of several passes, which begin at the same rows, as one."""
    for strips in zip(*passes, strict=True):
        top, outputs = strips[0]
        yield top, outputs if len(strips) == 1 else _averaged([outputs for _, outputs in strips])


def _averaged(passes: Sequence[Outputs]) -> Outputs:
    means: Outputs = {}
    for name in passes[0]:
        total: Tensor | None = None
        for outputs in passes:
            values = outputs[name].float()
            values = values.softmax(dim=1) if name == "logits" else values
            total = values if total is None else total + values
        assert total is not None
        mean = total / len(passes)
        means[name] = mean.clamp_min(torch.finfo(torch.float32).tiny).log() if name == "logits" else mean
    return means


def _sized_strips(
    strips: Iterator[Strip], given: tuple[int, int], size: tuple[int, int], whole: bool
) -> Iterator[Strip]:
    """Strips of an image of the size `given` as strips of one of `size`, whose boundaries depend on that size alone."""
    held: Outputs = {}
    first = 0  # the row of the given image that `held` begins with
    ends: list[tuple[int, int]] | None = None
    for _, outputs in strips:
        held = {name: torch.cat([held[name], new], dim=-2) if held else new for name, new in outputs.items()}
        if ends is None:
            channels = sum(values.shape[0] * values.shape[1] for values in held.values())
            rows = size[0] if whole else max(1, min(size[0], _AT_ONCE // (channels * size[1])))
            ends = [(begin, min(begin + rows, size[0])) for begin in range(0, size[0], rows)]
        known = first + next(iter(held.values())).shape[-2]
        while ends and _rows_under(*ends[0], size[0], given[0])[1] <= known:
            begin, end = ends.pop(0)
            yield begin, {name: _rows(values, first, begin, end, given, size) for name, values in held.items()}
            kept = min(_rows_under(*ends[0], size[0], given[0])[0], known) if ends else known
            held, first = {name: values[..., kept - first :, :] for name, values in held.items()}, kept


def _rows_under(begin: int, end: int, height: int, given: int) -> tuple[int, int]:
    """First row and end of the rows of an image of `given` rows that rows `begin` to `end` of `height` are resampled from."""
    if height == given:
        return begin, end
    if (begin, end) == (0, height):
        return 0, given
    at = [(row + 0.5) * given / height - 0.5 for row in (begin, end - 1)]
    return max(math.floor(at[0]), 0), min(math.floor(at[1]) + 2, given)


def _rows(values: Tensor, first: int, begin: int, end: int, given: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Rows `begin` to `end` of maps [B, C, *given] at the resolution of `size`; `values` has those from row `first` on."""
    low, high = _rows_under(begin, end, size[0], given[0])
    under = values[..., low - first : high - first, :]
    if (begin, end) == (0, size[0]) or size[0] == given[0]:
        return sized(under, (end - begin, size[1]))
    at = ((torch.arange(begin, end, dtype=torch.float64) + 0.5) * given[0] / size[0] - 0.5).clamp(0, given[0] - 1)
    above = at.floor().long()
    below = (above + 1).clamp_max(given[0] - 1)
    share = (at - above).float().to(under.device)[:, None]
    wide = sized(under, (high - low, size[1]))
    upper, lower = (wide.index_select(-2, (rows - low).to(under.device)) for rows in (above, below))
    return upper + (lower - upper) * share
