"""What a comparison needs of checkpoints: their scores on each image, and their predictions of a few."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from src.config.evaluation import Evaluation
from src.config.parts import Paths
from src.data.labels import LabelSet
from src.evaluation.matrices import PerImage
from src.evaluation.observation import indices_of
from src.evaluation.samples import predicted_sample
from src.inference.drawing import Picture, colored, errors, legend
from src.models.evaluation import Stage
from src.reporting import per_image
from src.storage import run_folder
from src.training.scoring import open_checkpoint, score

_log = logging.getLogger(__name__)


def evaluation_of(folder: Path, split: Stage, given: Mapping[str, Any]) -> Evaluation:
    """The evaluation of a run as it was trained, which leaves the file of its per-image matrices.

    Args:
        given: `data`, `trainer` and `trust` as `src.evaluate` takes them.
    """
    asked = Evaluation(
        ckpt=str(folder), splits=[split], inference={},
        metrics={"of": ["classes"]}, bootstrap={"samples": 0, "group": None, "seed": 0}, calibrate=False, output=str(folder),
        paths=Paths(output_dir=str(folder / run_folder.EVALUATION)), **given,
    )  # fmt: skip
    asked.check()
    return asked


def images_of(folder: Path, split: Stage, given: Mapping[str, Any]) -> PerImage:
    """What was counted of a run's images; a run that has no such file, or one of earlier weights, is evaluated first.

    Raises:
        UserError: it cannot be evaluated.
    """
    found, why = per_image.of_folder(folder, split)
    if found is None:
        _log.info("%s %s: evaluating it on %s", folder, why, split)
        score(evaluation_of(folder, split, given), prints=False)
        found, why = per_image.of_folder(folder, split)
    assert found is not None, why
    return found


def pictures_of(
    folder: Path, split: Stage, names: Sequence[str], given: Mapping[str, Any]
) -> tuple[LabelSet, list[tuple[Picture, npt.NDArray[np.integer], npt.NDArray[np.integer]]]]:
    """The classes, and of each image with such a name its picture, its truth and what a run's checkpoint says of it.

    Raises:
        UserError: the checkpoint or an image is not there any more.
    """
    asked = evaluation_of(folder, split, given)
    opened = open_checkpoint(asked)
    device = torch.device("cpu")
    if opened.on.accelerator != "cpu":
        device = torch.accelerator.current_accelerator(check_available=True) or device
    model, source = opened.model.to(device), opened.datamodule.source(split)
    return model.label_set, [predicted_sample(model, device, source, index) for index in indices_of(source, names)]


def side_by_side(
    picture: Picture, truth: npt.NDArray[np.integer], a: npt.NDArray[np.integer], b: npt.NDArray[np.integer],
    labels: LabelSet, height: int = 200,
) -> Image.Image:  # fmt: skip
    """One row: the picture, the truth, what a and what b say of it, and where each is wrong; above the classes' names."""
    parts = [picture, colored(truth, labels), colored(a, labels), colored(b, labels), errors(a, truth, labels),
             errors(b, truth, labels)]  # fmt: skip
    width = max(1, round(height * picture.shape[1] / picture.shape[0]))
    small = [np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.NEAREST)) for part in parts]
    gap = np.full((height, 4, 3), 255, np.uint8)
    row = np.concatenate([part for one in small for part in (one, gap)][:-1], axis=1)
    return Image.fromarray(np.concatenate([row, legend(labels, row.shape[1])], axis=0))
