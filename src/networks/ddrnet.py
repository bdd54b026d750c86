"""DDRNet: a fine and a coarse branch that exchange what they see."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from src.networks.base import SegmentationNetwork
from src.networks.dual_resolution import DAPPM, Head, bottlenecks, initialize, projection, resized, stage, stem
from src.networks.published import load_published

SIZE_DIVISOR = 8  # the config check refuses training crops that are no multiple of it
POOLED_BATCH_NORM = ("ddrnet",)  # and one image a device: the pooling pyramid has a batch norm over one pixel an image

_CHANNELS = {"ddrnet23_slim": (32, 64), "ddrnet23": (64, 128)}  # of the stem, of the head


def ddrnet(
    num_classes: int,
    in_channels: int = 3,
    size: Literal["ddrnet23_slim", "ddrnet23"] = "ddrnet23_slim",
    encoder_weights: str | None = None,
    aux: bool = True,
) -> SegmentationNetwork:
    """DDRNet-23-slim and DDRNet-23 (Pan et al. 2023, https://arxiv.org/abs/2101.06085). Trains on 2 images or more.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        size: which of the two.
        encoder_weights: a local file of the authors' weights, e.g. DDRNet23s_imagenet.pth, or None.
        aux: a second head on the fine branch's third stage, trained with `model.aux_weight`.
    """
    width, head = _CHANNELS[size]
    backbone = _Backbone(in_channels, width)
    core = _Core(backbone, width, head, num_classes, aux)
    initialize(core)
    if encoder_weights is not None:
        branches = ("conv1.", "layer", "compression", "down")
        load_published(backbone, encoder_weights, in_channels, branches, "conv1.0.weight")
    return SegmentationNetwork(core, size_divisor=SIZE_DIVISOR, encoder="backbone")


class _Core(nn.Module):
    ONLY_TRAIN = ("seghead_extra",)  # heads; see `SegmentationNetwork.only_train`

    def __init__(self, backbone: _Backbone, width: int, head: int, num_classes: int, aux: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.final_layer = Head(4 * width, head, num_classes)
        self.seghead_extra = Head(2 * width, head, num_classes) if aux else None

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features, early = self.backbone(image)
        result = {"logits": self.final_layer(features)}
        if self.training and self.seghead_extra is not None:
            result["aux"] = self.seghead_extra(early)
        return result


class _Backbone(nn.Module):
    """A coarse branch down to stride 64, a fine one at 8. Layers have the authors' names; `_` is the fine one's."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        c, fine = width, 2 * width
        self.conv1 = stem(in_channels, c)
        self.layer1 = stage(c, c, 2)
        self.layer2 = stage(c, 2 * c, 2, stride=2)
        self.layer3 = stage(2 * c, 4 * c, 2, stride=2)
        self.layer4 = stage(4 * c, 8 * c, 2, stride=2)
        self.layer5 = bottlenecks(8 * c, 8 * c, 1, stride=2)
        self.layer3_ = stage(2 * c, fine, 2)
        self.layer4_ = stage(fine, fine, 2)
        self.layer5_ = bottlenecks(fine, fine, 1)

        self.compression3, self.compression4 = projection(4 * c, fine, 1), projection(8 * c, fine, 1)
        self.down3 = projection(fine, 4 * c, 3, stride=2)
        self.down4 = nn.Sequential(
            *projection(fine, 4 * c, 3, stride=2), nn.ReLU(inplace=True), *projection(4 * c, 8 * c, 3, stride=2)
        )
        self.spp = DAPPM(16 * c, 128, 4 * c)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features of stride 8 for the classes, and the fine branch's early ones for the head that only trains."""
        shared = F.relu(self.layer2(F.relu(self.layer1(self.conv1(image)))))
        coarse, fine = self.layer3(shared), self.layer3_(shared)
        given = resized(self.compression3(F.relu(coarse)), fine)
        coarse, early = coarse + self.down3(F.relu(fine)), fine + given

        coarse, fine = self.layer4(F.relu(coarse)), self.layer4_(F.relu(early))
        given = resized(self.compression4(F.relu(coarse)), fine)
        coarse, fine = coarse + self.down4(F.relu(fine)), fine + given

        fine = self.layer5_(F.relu(fine))
        return fine + resized(self.spp(self.layer5(F.relu(coarse))), fine), early
