"""Several segmenters that predict as one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from src.config.inference import Inference
from src.config.parts import Node
from src.inference.ensembles import ENTROPY, Shares, averaged
from src.inference.windows import Outputs, Readable, Strip
from src.models.base import Segmenter
from src.tasks.multi_task import MultiTask


class Ensemble(Segmenter):
    """The mean of several segmenters' probabilities (Lakshminarayanan et al. 2017, deep ensembles). Each predicts by its own
    protocol (`inference`), with its own normalisation and at its own temperature. It predicts classes, none of the tasks
    beside them. Its loss is the first one's, of the logarithm of the mean.

    Args:
        members: of the same classes and kind of image, in evaluation mode.

    Attributes:
        inference: what of the members' protocols decides how images come: whole where one takes them whole.
    """

    def __init__(self, members: Sequence[Segmenter]) -> None:
        first = members[0]
        super().__init__(
            first.network, first.loss, first.label_set, first.channels, first.intensity, seed=first.seed,
            metrics=first.own_metrics, channels_last=first.memory_format is torch.channels_last,
        )  # fmt: skip
        self.members = nn.ModuleList(members)
        self.images, self.config = first.images, first.config
        self.inference = self._together()
        self.eval()

    @property
    def segmenters(self) -> list[Segmenter]:
        return [member for member in self.members if isinstance(member, Segmenter)]

    @property
    def tasks(self) -> MultiTask | None:
        return None

    @property
    def takes_batches(self) -> bool:
        return all(member.takes_batches for member in self.segmenters)

    @property
    def protocols(self) -> list[Inference]:
        return [member.inference for member in self.segmenters]

    def predict_by(self, keys: Node) -> None:
        for member in self.segmenters:
            member.predict_by(keys)
        self.inference = self._together()

    def predicted(self, image: Tensor, size: Sequence[int] | None = None) -> Iterator[Strip]:
        height = image.shape[-2] if size is None else size[0]
        yield from averaged([_shares(one, one.predicted(image, size), height) for one in self.segmenters])

    def predicted_scene(self, scene: Readable, mirrored: Readable) -> Iterator[Strip]:
        yield from averaged([
            _shares(one, one.predicted_scene(scene, mirrored), scene.height) for one in self.segmenters
        ])  # fmt: skip

    def logits(self, image: Tensor) -> Tensor:
        """The logarithm of the mean of one pass of each."""
        probability = torch.stack([one.probabilities(image) for one in self.segmenters]).mean(dim=0)
        return probability.clamp_min(torch.finfo(torch.float32).tiny).log()

    def uncertainty(self, outputs: Outputs) -> dict[str, Tensor]:
        """Beside "entropy" of the mean also "mutual_information", what of it is the members' disagreement: the entropy of the
        mean less the mean of their entropies, both over log K."""
        shown = super().uncertainty(outputs)
        of_members = outputs[ENTROPY][:, 0] / math.log(self.label_set.num_classes)
        return shown | {"mutual_information": (shown["entropy"] - of_members).clamp_min(0)}

    def _together(self) -> Inference:
        """The protocol that images are read by: a scene comes window by window only where all members take it so."""
        protocols = self.protocols
        whole = (one for one in protocols if not one.windows)
        resized = (one for one in protocols if one.resizes)
        return next(whole, None) or next(resized, None) or protocols[0]


def _shares(member: Segmenter, strips: Iterator[Strip], height: int) -> Shares:
    """A member's probabilities. What made the last strip is let go of before that is handed on, so that members do not hold
    theirs while others compute."""
    for top, outputs in strips:
        held = [member.shares(outputs.pop("logits"))]
        if top + held[0].shape[-2] == height:
            next(strips, None)
        yield top, held.pop()
