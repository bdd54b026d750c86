"""Windows: where they lie, and what becomes of what they give."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from src.inference.windows import InMemory, Outputs, blend_weights, starts, windowed

CPU = torch.device("cpu")


def network(raw: Tensor) -> Outputs:
    """A network whose answer depends on where a window lies, as real ones' do: on its mean, and on each pixel's place."""
    values = raw.float()
    place = torch.arange(values.shape[-1], dtype=torch.float32).expand(values.shape[-2:])
    return {"logits": torch.cat([values, values.mean((2, 3), keepdim=True).expand_as(values) + place], dim=1)}


def picture(height: int, width: int, seed: int = 0, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def together(image: Tensor, *how: object) -> Tensor:
    strips = list(windowed(network, InMemory(image, CPU), *how))  # type: ignore[arg-type]
    tops = [top for top, _ in strips]
    heights = [outputs["logits"].shape[-2] for _, outputs in strips]
    assert tops == [sum(heights[:i]) for i in range(len(heights))]
    return torch.cat([outputs["logits"] for _, outputs in strips], dim=-2)


@pytest.mark.parametrize(
    ("length", "side", "step", "expected"),
    [
        (100, 40, 30, [0, 30, 60]),
        (101, 40, 30, [0, 30, 60, 61]),
        (40, 40, 30, [0]),
        (30, 40, 30, [0]),
        (41, 40, 40, [0, 1]),
    ],
)
def test_starts_are_mmsegmentations(length: int, side: int, step: int, expected: list[int]) -> None:
    """Its `slide_inference`: max(length - side + step - 1, 0) // step + 1 windows, the last one moved back."""
    assert starts(length, min(side, length), step) == expected
    grids = max(length - side + step - 1, 0) // step + 1
    theirs = []
    for index in range(grids):
        end = min(index * step + side, length)
        theirs.append(max(end - side, 0))
    assert starts(length, min(side, length), step) == theirs


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(("height", "width"), [(70, 93), (32, 93), (20, 20), (64, 64)])
def test_the_mean_of_counts_exactly(height: int, width: int, batch: int) -> None:
    image = picture(height, width, batch=2)
    sums, counts = torch.zeros(2, 6, height, width), torch.zeros(height, width)
    high, wide = min(32, height), min(40, width)
    for top in starts(height, high, 21):
        for left in starts(width, wide, 26):
            sums[..., top : top + high, left : left + wide] += network(
                image[..., top : top + high, left : left + wide]
            )["logits"]
            counts[top : top + high, left : left + wide] += 1
    assert (counts >= 1).all()
    assert torch.equal(together(image, (32, 40), (21, 26), "mean", batch), sums / counts)


@pytest.mark.parametrize("blend", ["mean", "gaussian"])
def test_one_window_is_the_whole_image(blend: str) -> None:
    image = picture(50, 60)
    assert torch.equal(together(image, (50, 60), (30, 30), blend, 1), network(image)["logits"])
    assert torch.equal(together(image, (512, 512), (341, 341), blend, 4), network(image)["logits"])


def test_the_middle_counts_more() -> None:
    """A Gaussian of an eighth of the side, and never nothing."""
    weights = blend_weights(64, 33, "gaussian")
    assert weights.shape == (64, 33)
    assert weights[32, 16] == weights.max() > 0.99
    assert weights[40, 16] == pytest.approx(math.exp(-(8.5**2) / (2 * 8**2)), rel=1e-5)
    assert weights.min() >= 1e-3 * 0.99
    torch.testing.assert_close(weights, weights.flip(0).flip(1))
    image = picture(64, 96)
    plain, blended = (together(image, (64, 64), (64, 32), blend, 1) for blend in ("mean", "gaussian"))
    assert not torch.equal(plain, blended)
    first, second = (network(image[..., left : left + 64])["logits"] for left in (0, 32))
    w = blend_weights(64, 64, "gaussian")
    at = (first[..., 40] * w[:, 40] + second[..., 8] * w[:, 8]) / (w[:, 40] + w[:, 8])
    torch.testing.assert_close(blended[..., 40], at)


def test_what_agrees_is_left_as_it_is() -> None:
    """Averages of equal values are these values, whatever the weights."""
    image = picture(100, 90)
    strips = windowed(lambda raw: {"logits": raw.float()}, InMemory(image, CPU), (32, 48), (11, 17), "gaussian", 3)
    torch.testing.assert_close(torch.cat([o["logits"] for _, o in strips], dim=-2), image.float())


def test_a_mirrored_view_reads_from_the_right() -> None:
    image = picture(20, 31)
    view = InMemory(image, CPU, mirrored=True)
    assert torch.equal(view.read(3, 4, 10, 12), image.flip(-1)[..., 3:13, 4:16])


def test_memory_holds_one_row_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows of windows there are."""
    made: list[int] = []
    zeros = torch.zeros

    def counted(*shape: object, **more: object) -> Tensor:
        result: Tensor = zeros(*shape, **more)  # type: ignore[call-overload]
        made.append(result.numel())
        return result

    class Tall:
        height, width, mirrored = 32 * 64, 64, False

        def read(self, top: int, left: int, height: int, width: int) -> Tensor:
            return torch.ones(1, 1, height, width, dtype=torch.uint8)

    monkeypatch.setattr(torch, "zeros", counted)
    strips = windowed(lambda raw: {"logits": raw.float()}, Tall(), (32, 32), (16, 32), "mean", 1)
    assert sum(outputs["logits"].shape[-2] for _, outputs in strips) == 32 * 64
    assert made == [32 * 64, 32 * 64]  # what is counted, and what is summed
