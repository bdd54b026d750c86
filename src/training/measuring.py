"""What an evaluation measures beside the scores of metrics.json, and the files that it leaves."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.callbacks.observing import Observing
from src.config.evaluation import Evaluation
from src.data.datamodule import SegmentationDataModule
from src.data.sources import whole_of
from src.errors import UserError, of_a_file
from src.evaluation import calibration, cases, figures, matrices, results
from src.evaluation.boundary import Boundaries
from src.evaluation.calibration import Calibration
from src.evaluation.matrices import of_cells
from src.evaluation.observation import Observation, places
from src.evaluation.scores import groups_of
from src.files.pictures import save_picture
from src.inference.drawing import comparison
from src.models.base import Segmenter
from src.models.evaluation import Stage
from src.optional_packages import needs
from src.storage import checkpoints
from src.storage.run_folder import METRICS, write_text

_log = logging.getLogger(__name__)
_PICTURES = "images"  # their folder


class Measuring:
    """Measures one split after another.

    Args:
        asked: what is measured.
        files: the checkpoint, or those of an ensemble.
        folder: where each split gets a folder.
        calibrated: the checkpoint that is written where a temperature is to be kept.
        about: what the files of per-image matrices say of the checkpoint and the protocol.

    Attributes:
        callback: of the trainer.

    Raises:
        UserError: the folder cannot be written to, or names of samples do not serve.
    """

    def __init__(
        self, model: Segmenter, datamodule: SegmentationDataModule, asked: Evaluation, files: Sequence[Path],
        folder: Path, calibrated: Path, about: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.model, self.datamodule, self.asked, self.files = model, datamodule, asked, files
        self.folder, self.calibrated, self.about = folder, calibrated, about
        self.words = set(asked.measured.of)
        self.temperature, self.fitted_on = model.temperature, "the checkpoint"
        self.callback = Observing(asked.measured.pictures if "images" in self.words else 0)
        if "cases" in self.words:
            needs("scipy.ndimage", "medical")
        for split in asked.splits:  # before the minutes that predicting takes
            _writable(folder / split)
            source = datamodule.source(split)
            names = list(places(source))
            if asked.resampling.samples:
                wholes = [whole_of(source, index) or name for index, name in enumerate(names)]
                groups_of(names, wholes, asked.resampling.group)

    def begin(self, split: Stage) -> None:
        """Makes the model's observer for a split."""
        labels, measured = self.model.label_set, self.asked.measured
        source = self.datamodule.source(split)
        boundaries = Boundaries(labels.num_classes, labels.ignore_index, measured.boundary_ratio, measured.widths)
        probabilities = Calibration(
            labels.num_classes, labels.ignore_index, len(source), measured.bins, self.temperature, fits=split == "val"
        )
        self.model.observer = Observation(
            labels, source,
            boundaries if "boundary" in self.words else None,
            probabilities if "calibration" in self.words else None,
            cases="cases" in self.words,
        )  # fmt: skip

    def end(self, split: Stage, writes: bool) -> str:
        """Computes and writes what was measured of a split.

        Args:
            writes: whether this is the process that writes.

        Returns:
            The tables.
        """
        seen, labels, given_by = self.callback.observed, self.model.label_set, self.fitted_on
        measured, boot = self.asked.measured, self.asked.resampling
        self.model.observer = None
        fitted = None
        if seen.calibrated is not None and len(seen.calibrated.truth):
            fitted = calibration.fitted(seen.calibrated.logits, seen.calibrated.truth)
            if self.asked.calibrate or self.model.temperature == 1:
                self.temperature, self.fitted_on = fitted, split  # test's diagrams are drawn with it too
        if not writes:
            return ""
        images = of_cells(seen.ids, seen.wholes, labels.names, split, seen.matrices, self.about)
        said: dict[str, Any] = {
            "split": split, **self.about, "checkpoint_sha256": self.about["checkpoint"],
            "checkpoint": ", ".join(map(str, self.files)), **results.of_images(images, boot.samples, boot.group, boot.seed),
        }  # fmt: skip
        if seen.boundaries is not None:
            said["boundary"] = results.of_boundaries(
                seen.boundaries, labels.names, measured.boundary_ratio, measured.widths
            )
        if seen.calibrated is not None:
            said["calibration"] = results.of_probabilities(seen.calibrated, measured.bins, fitted, given_by)
        said["by_image"] = results.summary(images)
        folder = self.folder / split
        found = None if seen.slices is None else list(cases.cases_of(seen.slices, labels, measured.tolerance))
        if found is not None:
            said["cases"] = cases.summary(found, measured.tolerance)
        try:
            if found is not None:
                write_text(folder / cases.FILE, cases.as_csv(found))
            matrices.write(folder / matrices.FILE, images, seen.matrices)
            write_text(folder / METRICS, json.dumps(said, indent=2, ensure_ascii=False) + "\n")
            figures.write(said, folder)
            self._write_pictures(folder / _PICTURES)
            if self.asked.calibrate and split == "val" and fitted is not None:
                checkpoints.write_calibrated(self.files[0], fitted, self.calibrated)
                _log.info(
                    "temperature %.4g: %s gives the same classes, and probabilities by it", fitted, self.calibrated
                )
        except OSError as error:
            if told := of_a_file(error):
                raise UserError(f"output: {told}") from None
            raise
        _log.info("%s: %s, %s and what is drawn of them are in %s", split, matrices.FILE, METRICS, folder)
        return results.tables(said, split)

    def _write_pictures(self, folder: Path) -> None:
        if "images" not in self.words:
            return
        wanted = set()
        for one in self.callback.shown:
            name = re.sub(r"[^\w.-]+", "_", one.name)[-80:]
            file = folder / f"{one.why}_{one.place:02}_{name}.png"
            wanted.add(file.name)
            picture = comparison(one.picture, one.truth, one.prediction, self.model.label_set)
            save_picture(Image.fromarray(np.ascontiguousarray(picture)), file)
        for file in folder.glob("*.png"):  # an earlier evaluation's, of other images
            if re.match(r"(worst|typical)_\d\d", file.name) and file.name not in wanted:
                file.unlink()


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output: {of_a_file(error) or f'{folder} cannot be made ({error.strerror})'}; say output=FOLDER"
        ) from None
