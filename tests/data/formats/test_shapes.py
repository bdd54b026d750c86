"""The embedded data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from src.data.formats.shapes import Shapes
from src.metrics.confusion import ConfusionMatrix, scores

NAMES = Shapes.label_set.names


def sample_bytes(split: Any, index: int, **own: Any) -> bytes:
    image, mask = Shapes(split, **own).read(index)
    return image.numpy().tobytes() + mask.numpy().tobytes()


@pytest.fixture(scope="module")
def masks() -> torch.Tensor:
    source = Shapes("train", train_length=150)
    return torch.stack([source.read(i)[1] for i in range(len(source))])


def test_a_sample_is_a_function_of_seed_split_and_index() -> None:
    assert sample_bytes("train", 3) == sample_bytes("train", 3)
    assert sample_bytes("train", 3, train_length=10) == sample_bytes("train", 3, train_length=2000)
    several = [
        sample_bytes("train", 3),
        sample_bytes("train", 4),
        sample_bytes("val", 3),
        sample_bytes("train", 3, seed=1),
    ]
    assert len(set(several)) == 4


def test_dtypes_and_sizes() -> None:
    source = Shapes("test", test_length=2, height=40, width=56)
    image, mask = source.read(1)
    assert image.dtype == mask.dtype == torch.uint8
    assert (image.shape, mask.shape) == ((3, 40, 56), (40, 56))
    assert len(source) == 2
    with pytest.raises(IndexError):
        source.read(2)


def test_every_class_occurs_one_is_rare_and_some_pixels_are_void(masks: torch.Tensor) -> None:
    shares = torch.bincount(masks.flatten(), minlength=256) / masks.numel()
    assert (shares[: len(NAMES)] > 0).all()
    assert shares[NAMES.index("cross")] < 0.02
    assert 0.01 < shares[255] < 0.12
    assert shares[len(NAMES) : 255].sum() == 0


def test_lines_are_thin(masks: torch.Tensor) -> None:
    """Hardly a pixel of a line has a line's pixels on all four sides."""
    line = masks == NAMES.index("line")
    inner = line[:, 1:-1, 1:-1] & line[:, :-2, 1:-1] & line[:, 2:, 1:-1] & line[:, 1:-1, :-2] & line[:, 1:-1, 2:]
    assert int(inner.sum()) < 0.35 * int(line.sum())


def test_colour_does_not_tell_the_class() -> None:
    """A classifier that sees a pixel's colour alone, and may learn any function of it, stays far below 0.5 mIoU."""

    def pixels(split: Any, count: int) -> tuple[Any, Any]:
        source = Shapes(split, train_length=count, val_length=count)
        images, targets = zip(*(source.read(i) for i in range(count)), strict=True)
        colors = torch.stack(images).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
        return colors, torch.stack(targets).flatten().numpy()

    colors, target = pixels("train", 120)
    known = target != 255
    tree = DecisionTreeClassifier(min_samples_leaf=50, class_weight="balanced").fit(colors[known], target[known])
    matrix = ConfusionMatrix(len(NAMES))
    colors, target = pixels("val", 40)
    matrix.update(torch.from_numpy(tree.predict(colors).astype(np.int64)), torch.from_numpy(target))
    assert scores(matrix.compute(), NAMES)["miou"] < 0.3
