"""Metrics that a user adds to a run: torchmetrics' own, or classes of the user's that inherit from `torchmetrics.Metric`."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchmetrics import Metric

from src.errors import UserError

_log = logging.getLogger(__name__)


class OwnMetrics(nn.Module):
    """Computes them over the images of a split. torchmetrics adds their states up over devices.

    Each gets the predicted classes and the true ones, both int64 [B, H, W], where ignored pixels have the data's ignore index:
    a metric whose constructor takes `ignore_index` (and `num_classes`) is given it. Its result is one number, or one for each
    of the K classes, whose mean over those that are finite stands beside them.

    Args:
        metrics: by name; each is copied, so that stages share no state.
        names: the K classes.
        stage: for messages.
    """

    def __init__(self, metrics: Mapping[str, Metric], names: Sequence[str], stage: str) -> None:
        super().__init__()
        self.names, self.stage = tuple(names), stage
        self.by_name = nn.ModuleDict({name: copy.deepcopy(metric) for name, metric in metrics.items()})

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Adds a batch: predicted classes and true ones of any integer dtype, [B, H, W].

        Raises:
            UserError: a metric does not take them.
        """
        for name, metric in self.metrics.items():
            try:
                metric.update(prediction.long(), mask.long())
            except (TypeError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"metrics.{name}: {type(metric).__name__} does not take predicted and true classes, int64 [B, H, W], "
                    f"ignored pixels among them ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
                ) from error

    def finish(self) -> dict[str, float]:
        """Computes all of them over all devices, each of which has to call it, and begins anew.

        Returns:
            `name`, and `name/<class>` where there is one for each class. What is not finite is left out.

        Raises:
            UserError: a metric computes something else.
        """
        results: dict[str, float] = {}
        for name, metric in self.metrics.items():
            value = metric.compute()
            metric.reset()
            results |= self._named(name, value)
        return results

    @property
    def metrics(self) -> dict[str, Metric]:
        return {name: metric for name, metric in self.by_name.items() if isinstance(metric, Metric)}

    def _named(self, name: str, value: object) -> dict[str, float]:
        if not isinstance(value, Tensor) or value.shape not in ((), (1,), (len(self.names),)):
            what = (
                f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            )
            raise UserError(
                f"metrics.{name}: computes {what}, neither one number nor one for each of the {len(self.names)} classes"
            )
        values = value.double().flatten().tolist()
        finite = {at: number for at, number in enumerate(values) if math.isfinite(number)}
        if not finite:
            _log.warning("metrics.%s: has no finite value over %s, and is left out there", name, self.stage)
            return {}
        if len(values) == 1:
            return {name: finite[0]}
        of_classes = {f"{name}/{self.names[at]}": number for at, number in finite.items()}
        return {name: sum(finite.values()) / len(finite), **of_classes}
