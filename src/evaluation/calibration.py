"""Whether a probability of 0.8 is right in 8 of 10 pixels: reliability, its error, and the temperature that mends it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

_SAMPLE = 1 << 25  # logits that a temperature is fitted on (128 MiB), over all images
_STEPS = 1000  # of probability, in the histograms of two classes
_COLDEST, _HOTTEST = 0.01, 100.0  # temperatures that a fit may give


@dataclass(frozen=True)
class Reliability:
    """Pixels by the probability of the class that was predicted, in bins of equal width.

    Attributes:
        pixels, right: int64 [bins].
        confidence: the sum of those probabilities, float64 [bins].
    """

    pixels: Tensor
    right: Tensor
    confidence: Tensor

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al. 2015; Guo et al. 2017): mean |accuracy - confidence| by pixels."""
        gap = (self.right.double() - self.confidence).abs().sum()
        return float(gap / self.pixels.sum().clamp_min(1))

    def rows(self) -> list[dict[str, float]]:
        """`from`, `to`, `pixels`, `accuracy` and `confidence` of each bin that has any."""
        count, rows = len(self.pixels), []
        for at, pixels in enumerate(self.pixels.tolist()):
            if pixels:
                accuracy, confidence = float(self.right[at]) / pixels, float(self.confidence[at]) / pixels
                rows.append({"from": at / count, "to": (at + 1) / count, "pixels": pixels, "accuracy": accuracy,
                             "confidence": confidence})  # fmt: skip
        return rows


class Calibration:
    """Adds up pixels strip by strip. Histograms are exact on any number of devices but for the order in which probabilities
    add up; the sample that a temperature is fitted on is drawn by each image's name, so it is the same there too.

    Args:
        num_classes, ignore_index: the data's.
        images: of the split, over all devices; they share the sample evenly.
        bins: of the reliability diagram.
        temperature: that the checkpoint has; a second diagram is with it, where it is not 1.
        fits: whether logits are sampled.
    """

    def __init__(
        self, num_classes: int, ignore_index: int, images: int, bins: int, temperature: float = 1.0, fits: bool = True
    ) -> None:
        self.num_classes, self.ignore_index, self.bins = num_classes, ignore_index, bins
        self.temperatures = (1.0,) if temperature == 1 else (1.0, temperature)
        self.of_image = max(1, _SAMPLE // (num_classes * max(images, 1))) if fits else 0
        self._sums = torch.zeros(len(self.temperatures), 3, bins, dtype=torch.float64)
        self._nll = torch.zeros(len(self.temperatures), dtype=torch.float64)
        self._binary = torch.zeros(2, _STEPS, dtype=torch.int64)
        self._sampled: list[tuple[str, int, Tensor, Tensor]] = []

    def add(self, name: str, top: int, logits: Tensor, mask: Tensor, rows: int) -> None:
        """Adds a strip of one image: logits float [K, h, W], true classes [h, W], its first row, and the rows of the image."""
        known = mask != self.ignore_index
        truth = mask[known].long()
        if not len(truth):
            return
        chosen = logits.float().flatten(1)[:, known.flatten()].T  # [P, K]
        for at, temperature in enumerate(self.temperatures):
            likelihood = (chosen / temperature).log_softmax(dim=1)
            self._nll[at] -= float(likelihood.gather(1, truth[:, None]).double().sum())
            top_probability, predicted = likelihood.exp().max(dim=1)
            self._sums[at] += _histogram(top_probability, predicted == truth, self.bins)
        if self.num_classes == 2:
            probability = chosen.softmax(dim=1)[:, 1]
            step = (probability * _STEPS).long().clamp(0, _STEPS - 1)
            counts = torch.bincount(truth * _STEPS + step, minlength=2 * _STEPS)
            self._binary += counts.view(2, _STEPS).cpu()
        if self.of_image:
            wanted = max(1, round(self.of_image * mask.shape[0] / rows))
            keep = _drawn(name, top, len(truth), wanted).to(truth.device)
            self._sampled.append((name, top, chosen[keep].cpu(), truth[keep].cpu()))

    def finish(self) -> Calibrated:
        """Over all devices, each of which has to call it."""
        parts = [(self._sums, self._nll, self._binary, self._sampled)]
        if dist.is_initialized() and dist.get_world_size() > 1:
            parts = [parts[0]] * dist.get_world_size()
            dist.all_gather_object(parts, (self._sums, self._nll, self._binary, self._sampled))
        sums, nll, binary = (torch.stack([part[i] for part in parts]).sum(0) for i in range(3))  # type: ignore[misc]
        sampled = sorted((one for part in parts for one in part[3]), key=lambda one: one[:2])
        logits = torch.cat([one[2] for one in sampled]) if sampled else torch.empty(0, self.num_classes)
        truth = torch.cat([one[3] for one in sampled]) if sampled else torch.empty(0, dtype=torch.int64)
        diagrams = [Reliability(part[0].long(), part[1].long(), part[2]) for part in sums]
        pixels = diagrams[0].pixels.sum().clamp_min(1)
        return Calibrated(self.temperatures, diagrams, (nll / pixels).tolist(), binary, logits, truth)


@dataclass(frozen=True)
class Calibrated:
    """What was added up.

    Attributes:
        temperatures: 1, and that of the checkpoint where it has another.
        diagrams, nll: with each; mean negative log-likelihood in nats.
        binary: pixels by truth and by the probability of class 1, int64 [2, 1000]; zeros where there are not two classes.
        logits, truth: the sample, float32 [P, K] and int64 [P].
    """

    temperatures: Sequence[float]
    diagrams: Sequence[Reliability]
    nll: Sequence[float]
    binary: Tensor
    logits: Tensor
    truth: Tensor


def fitted(logits: Tensor, truth: Tensor) -> float:
    """The temperature that makes the truth most likely (Guo et al. 2017), within 0.01 to 100.

    The likelihood is concave in 1 / temperature, so the zero of its derivative is found by halving.

    Args:
        logits: float [P, K]. truth: int64 [P].
    """
    values, of_truth = logits.double(), logits.double().gather(1, truth[:, None])[:, 0]
    low, high = 1 / _HOTTEST, 1 / _COLDEST
    for _ in range(60):
        middle = math.sqrt(low * high)
        expected = (values * (values * middle).softmax(dim=1)).sum(dim=1)
        if float((of_truth - expected).mean()) > 0:
            low = middle
        else:
            high = middle
    return float(1 / math.sqrt(low * high))


def reliability(logits: Tensor, truth: Tensor, bins: int) -> Reliability:
    """The diagram of a sample, logits float [P, K]."""
    top_probability, predicted = logits.float().softmax(dim=1).max(dim=1)
    sums = _histogram(top_probability, predicted == truth, bins)
    return Reliability(sums[0].long(), sums[1].long(), sums[2])


def nll(logits: Tensor, truth: Tensor) -> float:
    """Mean negative log-likelihood in nats of a sample, logits float [P, K]."""
    return float(torch.nn.functional.cross_entropy(logits.double(), truth)) if len(truth) else 0.0


def curves(binary: Tensor) -> list[dict[str, float]]:
    """Of two classes, what taking class 1 from each threshold on gives: `threshold`, `precision`, `recall`, `iou` and `dice`.

    Args:
        binary: int64 [2, S], pixels by truth and by the probability of class 1.
    """
    steps = binary.shape[1]
    above = binary.flip(1).cumsum(1).flip(1).double()  # of each threshold the pixels at or above it
    wrong, right = above
    true = binary[1].sum().double()
    precision = torch.where(right + wrong > 0, right / (right + wrong).clamp_min(1), 1.0)
    recall, iou = right / true.clamp_min(1), right / (true + wrong).clamp_min(1)
    dice = 2 * right / (true + right + wrong).clamp_min(1)
    columns = {"precision": precision, "recall": recall, "iou": iou, "dice": dice}
    return [
        {"threshold": at / steps, **{name: float(values[at]) for name, values in columns.items()}}
        for at in range(steps)
    ]


def average_precision(binary: Tensor) -> float:
    """The area below the steps of the precision-recall curve: the mean precision over the true pixels of class 1, as
    scikit-learn has it, to a thousandth of probability."""
    wrong, right = binary.flip(1).cumsum(1).double()
    precision = right / (right + wrong).clamp_min(1)
    recall = right / binary[1].sum().double().clamp_min(1)
    return float((recall.diff(prepend=torch.zeros(1, dtype=torch.float64)) * precision).sum())


def _histogram(probability: Tensor, is_right: Tensor, bins: int) -> Tensor:
    """Pixels, right ones and the sum of probabilities by bin, float64 [3, bins] on the CPU; a bin ends with its upper bound."""
    at = (probability.double() * bins).ceil().long().sub(1).clamp(0, bins - 1)
    pixels, right = (torch.bincount(part, minlength=bins).cpu() for part in (at, at[is_right]))
    # added up on the CPU, in order: on a GPU weighted counts are not deterministic
    total = torch.bincount(at.cpu(), probability.double().cpu(), minlength=bins)
    return torch.stack([pixels.double(), right.double(), total])


def _drawn(name: str, top: int, count: int, wanted: int) -> Tensor:
    """Which of an image's pixels are kept, rising: all where there are no more than wanted."""
    if count <= wanted:
        return torch.arange(count)
    seed = int.from_bytes(hashlib.sha256(f"{top} {name}".encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(count, (wanted,), generator=generator).sort().values
