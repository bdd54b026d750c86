"""What a run says of the fold that it did not learn from: a confusion matrix of each of its images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict

import lightning as L

from src.callbacks.observing import Observing
from src.config.settings import Settings
from src.data.datamodule import SegmentationDataModule
from src.evaluation import matrices
from src.evaluation.observation import Observation
from src.models.base import Segmenter
from src.models.learner import Learner
from src.storage import run_folder
from src.storage.run_folder import BEST, EVALUATION


@contextlib.contextmanager
def kept(settings: Settings, trainer: L.Trainer, model: Learner, datamodule: SegmentationDataModule) -> Iterator[None]:
    """Looks on at the test of a run with folds, and writes `evaluation/test/images.npz` of it, as `src.evaluate` does.

    Raises:
        UserError: the run folder has a link there.
        OSError: it cannot be written.
    """
    if not datamodule.folds.active or not isinstance(model, Segmenter):
        yield
        return
    run_dir, labels = settings.run_dir, model.label_set
    watching, callbacks = Observing(0), trainer.callbacks  # type: ignore[attr-defined]
    model.observer = Observation(labels, datamodule.source("test"), None, None)
    callbacks.append(watching)
    try:
        yield
    finally:
        model.observer = None
        callbacks.remove(watching)
    best = run_dir / BEST
    if not trainer.is_global_zero or not best.is_file():  # without one nobody could predict so again
        return
    seen = watching.observed
    about = {
        "checkpoint": matrices.sha256(best), "inference": asdict(model.inference),
        "precision": str(settings.trainer.precision), "as_trained": True,
    }  # fmt: skip
    images = matrices.of_cells(seen.ids, seen.wholes, labels.names, "test", seen.matrices, about)
    run_folder.check_own(run_dir, (EVALUATION,))
    folder = run_dir / EVALUATION / "test"
    folder.mkdir(parents=True, exist_ok=True)
    matrices.write(folder / matrices.FILE, images, seen.matrices)
