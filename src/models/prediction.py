"""What a segmenter says of images: one pass of its network, and predictions by the protocol `inference`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import lightning as L
import torch
from torch import Tensor, nn

from src.config.inference import Inference
from src.config.parts import Node
from src.inference import protocol
from src.inference.windows import Outputs, Readable, Strip
from src.optimization.averaging import MovingAverage
from src.tasks.multi_task import MultiTask


class Predicting(L.LightningModule):
    """The half of a segmenter that predicts.

    Attributes:
        network: gives `{"logits": [B, K, H, W], …}` for normalised images.
        normalization: raw images to what the network expects.
        ema: the average of the network's weights, which is evaluated in their place; None where there is none.
        memory_format: of the network's input.
        inference: how images are predicted.
        temperature: that logits are divided by before they become probabilities, which says how sure the network may be of
            itself (Guo et al. 2017); it moves no class. 1 where none was fitted.
    """

    network: nn.Module
    normalization: nn.Module
    ema: MovingAverage | None
    memory_format: torch.memory_format
    inference: Inference
    temperature: float = 1.0

    @property
    def tasks(self) -> MultiTask | None:
        """What is learnt beside the classes, if anything."""
        tasks = getattr(self.network, "tasks", None)
        assert tasks is None or isinstance(tasks, MultiTask)
        return tasks

    @property
    def takes_batches(self) -> bool:
        """Whether what is predicted for an image does not depend on those that are predicted with it."""
        return True

    @property
    def protocols(self) -> list[Inference]:
        """How it predicts; of several segmenters that are one, how each does."""
        return [self.inference]

    def predict_by(self, keys: Node) -> None:
        """Changes keys of the protocol; those that are None stay."""
        self.inference = self.inference.with_keys(keys)

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """All of the network's outputs for raw images [B, C, H, W]; evaluation takes the averaged weights if there are any."""
        return self.outputs_of(self.ema.module if self.ema is not None and not self.training else self.network, image)

    def outputs_of(self, network: nn.Module, image: Tensor) -> dict[str, Tensor]:
        """All outputs of this network or one of the same build, for raw images [B, C, H, W]."""
        seen = self.inputs(network, self.normalization(image))
        result: dict[str, Tensor] = network(seen.contiguous(memory_format=self.memory_format))
        return result if self.tasks is None else self.tasks.split(result)

    def inputs(self, network: nn.Module, image: Tensor) -> Tensor:
        """What the network is given for normalised images [B, C, H, W]."""
        return image

    def logits(self, image: Tensor) -> Tensor:
        """Logits float [B, K, H, W] of raw images [B, C, H, W]."""
        return self.outputs(image)["logits"]

    def forward(self, image: Tensor) -> Tensor:
        return self.logits(image)

    def probabilities(self, image: Tensor) -> Tensor:
        """Softmax over classes, float32 [B, K, H, W], of raw images [B, C, H, W]."""
        return self.shares(self.logits(image))

    def shares(self, logits: Tensor) -> Tensor:
        """What logits [B, K, ...] say as probabilities, at the model's temperature: float32 [B, K, ...]."""
        logits = logits.float()
        return (logits if self.temperature == 1 else logits / self.temperature).softmax(dim=1)

    def evaluated(self, image: Tensor) -> Outputs:
        """One pass in evaluation, of raw images [B, C, H, W]: "logits", what `tasks` learn, and what `uncertainty` needs."""
        return self.outputs(image)

    def predicted(self, image: Tensor, size: Sequence[int] | None = None) -> Iterator[Strip]:
        """What is predicted for raw images [B, C, H, W] by the protocol `inference`, strip by strip; `protocol.predicted`.

        Args:
            image: on any device.
            size: height and width of the result; None takes the image's.
        """
        return protocol.predicted(self.evaluated, image, self.inference, self.device, size)

    def predicted_scene(self, scene: Readable, mirrored: Readable) -> Iterator[Strip]:
        """As `predicted`, of a scene that is read window by window; `protocol.of_scene`."""
        return protocol.of_scene(self.evaluated, scene, mirrored, self.inference)

    def uncertainty(self, outputs: Outputs) -> dict[str, Tensor]:
        """Maps float32 [B, H, W] in 0…1 of what was predicted: "entropy", of the probabilities over its maximum log K."""
        return {"entropy": entropy(self.shares(outputs["logits"]))}

    def maps(self, image: Tensor, outputs: Outputs) -> dict[str, Tensor]:
        """What is shown beside a prediction, by title: float [B, H, W] in 0…1 for raw images [B, C, H, W]."""
        return {
            f"{name} / largest" if name == "depth" else name: values
            / values.amax(dim=(1, 2), keepdim=True).clamp_min(1)
            for name, values in self.task_maps(outputs).items()
        }

    def task_maps(self, outputs: Outputs) -> dict[str, Tensor]:
        """The tasks' predictions that are maps, by name: float32 [B, H, W] of what was predicted."""
        return {} if self.tasks is None else self.tasks.maps(outputs)


def entropy(probability: Tensor) -> Tensor:
    """Entropy over its maximum log K, in 0…1: float [B, H, W] of probabilities [B, K, H, W]."""
    nats: Tensor = torch.special.entr(probability).sum(dim=1)
    return nats / math.log(probability.shape[1])
