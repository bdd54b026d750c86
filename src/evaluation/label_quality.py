"""How likely the label of an image is wrong, by what a model says that did not learn from it (Lad and Mueller 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.data.labels import LabelSet
from src.optional_packages import needs

EXTRA = "audit"
_COUNTED = "int64"


@dataclass(frozen=True)
class Region:
    """Pixels that hang together (8 neighbours), are labelled as one class and look like another.

    Attributes:
        label, predicted: class numbers.
        pixels: how many.
        doubt: the sum over them of 1 less the probability of the label.
        box: top, left, bottom and right in pixels; the latter two are beyond it.
    """

    label: int
    predicted: int
    pixels: int
    doubt: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Quality:
    """What is thought of an image's label.

    Attributes:
        name, whole: of the image, and of what it is cut out of.
        score: 0…1, low where it is likely wrong: cleanlab's softmin over the labelled pixels.
        pixels: labelled ones.
        doubtful: of these, those whose label is improbable.
        regions: the most doubtful ones first.
    """

    name: str
    whole: str
    score: float
    pixels: int
    doubtful: int
    regions: Sequence[Region]


def quality(
    name: str, whole: str, own: npt.NDArray[np.floating], mask: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer], labels: LabelSet, threshold: float, smallest: int,
) -> Quality | None:  # fmt: skip
    """Scores an image's label.

    Args:
        own: the probability of each pixel's own label, 0…1, [H, W]; whatever where it is ignored.
        mask, predicted: classes [H, W].
        threshold: a label of less probability is doubtful.
        smallest: regions of fewer pixels are left out.

    Returns:
        None of an image without a labelled pixel.

    Raises:
        UserError: cleanlab or scikit-image is not installed.
    """
    known = mask != labels.ignore_index
    if not known.any():
        return None
    rank = needs("cleanlab.segmentation.rank", EXTRA)
    given = own[known][None, None, :]  # cleanlab takes images without ignored pixels: of those that are left, a row
    both = np.stack([given, 1 - given], axis=1)  # and looks at the probability of the label alone
    score, _ = rank.get_label_quality_scores(np.zeros_like(given, dtype=_COUNTED), both, verbose=False)
    doubtful = known & (own < threshold) & (predicted != mask)
    found = sorted(_regions(doubtful, own, mask, predicted, labels.num_classes, smallest), key=lambda r: -r.doubt)
    return Quality(name, whole, float(score[0]), int(known.sum()), int(doubtful.sum()), found)


def ranked(found: Sequence[Quality]) -> list[Quality]:
    """The most suspicious image first; where scores are equal, by name."""
    return sorted(found, key=lambda one: (one.score, one.name))


def _regions(
    doubtful: npt.NDArray[np.bool_], own: npt.NDArray[np.floating], mask: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer], classes: int, smallest: int,
) -> Iterator[Region]:  # fmt: skip
    measure = needs("skimage.measure", EXTRA)
    kind = np.where(doubtful, mask.astype(_COUNTED) * classes + predicted + 1, 0)
    for one in measure.regionprops(measure.label(kind, background=0, connectivity=2)):
        if one.num_pixels < smallest:
            continue
        rows, columns = one.coords.T
        top, left, bottom, right = map(int, one.bbox)
        at = rows[0], columns[0]
        doubt = float(1 - own[rows, columns].astype(np.float64).mean()) * int(one.num_pixels)
        yield Region(int(mask[at]), int(predicted[at]), int(one.num_pixels), doubt, (top, left, bottom, right))
