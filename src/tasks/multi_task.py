"""What a network learns beside the classes of pixels: further tasks, in one network with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torchmetrics import Metric

from src.data.labels import LabelSet
from src.data.samples import Batch
from src.errors import UserError
from src.tasks.boundary import Boundary
from src.tasks.depth import Depth
from src.tasks.label import Label


class Task(Protocol):
    """One further thing to learn, from output channels of its own.

    Attributes:
        channels: outputs that it takes.
    """

    channels: int

    def target(self, batch: Batch) -> Tensor:
        """What should come out for a batch."""
        ...

    def predicted(self, output: Tensor) -> Tensor:
        """What comes out, of outputs [B, channels, H, W], in the target's terms."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Scalar, a mean over the batch of all devices."""
        ...

    def metric(self) -> Metric:
        """Computes scores by name; sums over devices."""
        ...

    def update(self, metric: Metric, output: Tensor, target: Tensor) -> None:
        """Adds a batch to the metric."""
        ...


class MultiTask(nn.Module):
    """Further tasks that share the segmentation network up to its last layer, which gets output channels for each.

    Args:
        label_set: the classes.
        depth: weight of the depth loss; 0 for no depth. Needs data with depth.
        boundary: weight of the boundary loss.
        label: weight of the loss of image labels.
        boundary_width: pixels to each side of an outline that belong to it.
        weighting: "fixed", or "uncertainty" (Kendall et al. 2018): each loss L, the segmentation's too, counts as
            exp(-s) L + s / 2 with an s that is learnt, on top of its weight.

    Attributes:
        by_name: the tasks that have a weight: "depth", "boundary", "label", in this order.

    Raises:
        UserError: no task has a weight.
    """

    def __init__(
        self,
        label_set: LabelSet,
        depth: NonNegativeFloat = 0.0,
        boundary: NonNegativeFloat = 0.0,
        label: NonNegativeFloat = 0.0,
        boundary_width: PositiveInt = 1,
        weighting: Literal["fixed", "uncertainty"] = "fixed",
    ) -> None:
        super().__init__()
        known: dict[str, tuple[float, Task]] = {
            "depth": (depth, Depth()),
            "boundary": (boundary, Boundary(boundary_width)),
            "label": (label, Label(label_set.num_classes)),
        }
        self.classes = label_set.num_classes
        self.by_name = {name: task for name, (weight, task) in known.items() if weight > 0}
        self.weights = {name: known[name][0] for name in self.by_name}
        if not self.by_name:
            raise UserError("tasks: all weights are 0; give one, e.g. tasks.boundary=1, or leave tasks out")
        learnt = torch.zeros(len(self.by_name) + 1) if weighting == "uncertainty" else None
        self.log_variance = nn.Parameter(learnt) if learnt is not None else None

    @property
    def channels(self) -> int:
        """Outputs of all tasks together."""
        return sum(task.channels for task in self.by_name.values())

    def split(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A network's outputs, classes and tasks in one, as "logits" (and "aux") of the classes and each task's own."""
        result = {name: value[:, : self.classes] for name, value in outputs.items()}
        sizes = [self.classes, *(task.channels for task in self.by_name.values())]
        _, *own = torch.split(outputs["logits"], sizes, dim=1)
        return result | dict(zip(self.by_name, own, strict=True))

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Each task's loss, unweighted."""
        return {name: task.loss(outputs[name], task.target(batch)) for name, task in self.by_name.items()}

    def total(self, segmentation: Tensor, losses: Mapping[str, Tensor]) -> Tensor:
        """The segmentation loss and the tasks' as one."""
        all_losses = torch.stack([segmentation, *(self.weights[name] * loss for name, loss in losses.items())])
        if self.log_variance is None:
            return all_losses.sum()
        return ((-self.log_variance).exp() * all_losses + self.log_variance / 2).sum()

    def metrics(self) -> dict[str, Metric]:
        """A new metric of each task."""
        return {name: task.metric() for name, task in self.by_name.items()}

    def maps(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predictions that are maps, float32 [B, H, W]."""
        return {name: self.by_name[name].predicted(outputs[name]) for name in self.by_name if name != "label"}
