"""The protocol: sizes, scales, mirror images, and strips of what is too large for one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.config.inference import Inference
from src.inference import protocol
from src.inference.protocol import joined, of_scene, predicted, seen_size
from src.inference.windows import InMemory, Outputs
from tests.inference.test_windows import CPU, picture

torch.manual_seed(0)
CONVOLUTION = nn.Conv2d(3, 5, 3, padding=1)
SIZES: list[tuple[int, int]] = []


def network(raw: Tensor) -> Outputs:
    SIZES.append((raw.shape[-2], raw.shape[-1]))
    with torch.no_grad():
        values: Tensor = CONVOLUTION(raw.float() / 255)
    return {"logits": values, "depth": values[:, :1]}


def by(image: Tensor, size: tuple[int, int] | None = None, **keys: object) -> Outputs:
    return joined(predicted(network, image, Inference(**keys), CPU, size))  # type: ignore[arg-type]


def test_by_default_the_network_alone() -> None:
    image = picture(40, 50, batch=2)
    assert torch.equal(by(image)["logits"], network(image)["logits"])
    resized = F.interpolate(network(image)["logits"], (80, 90), mode="bilinear", align_corners=False)
    assert torch.equal(by(image, (80, 90))["logits"], resized)


@pytest.mark.parametrize("mode", ["whole", "window"])
def test_scales_and_mirror_images_are_the_mean_of_their_passes(mode: str) -> None:
    image = picture(48, 64)
    windows: dict[str, Any] = {"mode": mode, "window": [32, 32], "stride": [20, 20]}
    passes = []
    for scale in (0.5, 1.0, 1.75):
        size = (int(48 * scale), int(64 * scale))
        scaled = image
        if scale != 1:
            scaled = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
        for mirrored in (False, True):
            outputs = by(scaled.flip(-1) if mirrored else scaled, **windows)
            back = {name: values.flip(-1) if mirrored else values for name, values in outputs.items()}
            passes.append(
                {n: F.interpolate(v, (48, 64), mode="bilinear", align_corners=False) for n, v in back.items()}
            )
    got = by(image, scales=[0.5, 1.0, 1.75], flip=True, **windows)
    mean = torch.stack([one["logits"].softmax(dim=1) for one in passes]).mean(dim=0)
    torch.testing.assert_close(got["logits"].exp(), mean)
    torch.testing.assert_close(got["logits"].softmax(dim=1), mean)
    torch.testing.assert_close(got["depth"], torch.stack([one["depth"] for one in passes]).mean(dim=0))


def test_a_mirrored_image_is_predicted_mirrored() -> None:
    image = picture(40, 51)
    torch.testing.assert_close(by(image, flip=True)["logits"], by(image.flip(-1), flip=True)["logits"].flip(-1))


@pytest.mark.parametrize(
    ("height", "width", "keys", "expected"),
    [
        (683, 1024, {"short_side": 512}, (512, 768)),
        (512, 2049, {"short_side": 512, "long_side": 2048}, (512, 2048)),
        (256, 2048, {"short_side": 512, "long_side": 2048}, (256, 2048)),
        (100, 60, {"short_side": 30}, (50, 30)),
        (100, 60, {"short_side": 0}, (100, 60)),
        (100, 60, {"resize": [48, 64]}, (48, 64)),
        (100, 60, {"resize": []}, (100, 60)),
    ],
)
def test_the_size_that_is_seen(height: int, width: int, keys: dict[str, Any], expected: tuple[int, int]) -> None:
    """As mmsegmentation's `Resize(scale=(2048, 512), keep_ratio=True)`; scores are of the truth's own pixels."""
    assert seen_size(height, width, Inference(**keys)) == expected
    SIZES.clear()
    outputs = by(picture(height, width), (height, width), **keys)
    assert [expected] == SIZES
    assert outputs["logits"].shape[-2:] == (height, width)


@pytest.mark.parametrize("size", [(90, 70), (45, 70), (133, 101), (20, 15)])
def test_strips_are_what_one_piece_is(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    image = picture(90, 70)
    keys: dict[str, Any] = {
        "mode": "window",
        "window": [32, 32],
        "stride": [16, 20],
        "scales": [0.75, 1.0, 1.5],
        "flip": True,
    }
    for chosen in (keys, {**keys, "scales": [1.0], "flip": False}):
        whole = by(image, size, **chosen)
        monkeypatch.setattr(protocol, "_AT_ONCE", 6 * 7 * size[1])  # 7 rows of 6 maps
        strips = list(predicted(network, image, Inference(**chosen), CPU, size))
        monkeypatch.undo()
        assert len(strips) == -(-size[0] // 7)
        assert [top for top, _ in strips] == list(range(0, size[0], 7))
        for name, values in joined(iter(strips)).items():
            torch.testing.assert_close(values, whole[name], atol=1e-5, rtol=1e-5)


def test_a_scene_is_predicted_as_an_image_in_memory() -> None:
    image = picture(100, 90)
    for flip in (False, True):
        how = Inference(mode="window", window=[32, 48], stride=[20, 30], blend="gaussian", flip=flip, batch=3)
        views = InMemory(image, CPU), InMemory(image, CPU, mirrored=True)
        outputs = joined(of_scene(network, *views, how))
        torch.testing.assert_close(outputs["logits"], joined(predicted(network, image, how, CPU))["logits"])
