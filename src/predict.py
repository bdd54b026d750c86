"""Segments images, rasters and volumes with nothing but a checkpoint:
`python -m src.predict ckpt=… input=FILE|DIR|GLOB output=DIR [recursive=true]`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.cli.imports import importing_torch
from src.cli.user_errors import end_with
from src.config.asked import Asked
from src.config.check import check_inference, check_keys, check_node
from src.config.evaluation import Checkpoints
from src.config.parts import Accelerator, Config, Devices, Node, Precision, Share, Trainer, filled, types_of
from src.config.rules import check_precision
from src.data.windows import SIDE
from src.errors import UserError
from src.files.untrusted import shown

_log = logging.getLogger(__name__)
_LINE = 1000  # characters of a message
_PRECISIONS = ("32-true", "32", "bf16-mixed", "16-mixed")
Vectors = Literal["geojson", "coco", "coco_rle", "labelme", "gpkg"]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Keys of `trainer` that bear on a prediction."""

    accelerator: Accelerator | None = None
    precision: Precision | None = None
    devices: Devices | None = 1


@dataclass(frozen=True, kw_only=True)
class Prediction(Asked):
    """What a prediction is told.

    Attributes:
        ckpt: a checkpoint, or a run folder; of a list the mean of their probabilities.
        trust: packages that the checkpoint's config may name.
        input: a file, a folder or a pattern.
        opacity: of the colours in overlays.
        window: side in pixels; None takes photos whole.
        overlap: pixels that windows share.
        overlays: write colour overlays.
        probabilities: write the probability of each class.
        vectors: forms of outlines to write.
        video_masks: write the mask of each frame of a video.
        overwrite: do again what is there.
        batch_size: photos of one size, or frames, that go through the network together.
        ids: what masks have: the numbers of the classes, or what the data set's own files have for them.
        inference: what is changed of how the model predicts; a key that is None is as it was trained.
        device: in torch's words; "auto" where `trainer` says it, or the machine.
    """

    ckpt: Checkpoints
    input: str
    output: str
    opacity: Share
    device: str
    overlays: bool
    uncertainty: bool
    probabilities: bool
    vectors: list[Vectors]
    video_masks: bool
    overwrite: bool
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    ids: Literal["train", "dataset"]
    recursive: bool
    window: Annotated[int, Field(ge=64, multiple_of=32)] | None
    overlap: Annotated[int, Field(ge=0, multiple_of=32)]
    trainer: Node
    inference: Node
    trust: list[str] | None = None

    def check(self) -> None:
        window = self.window or SIDE
        if self.overlap * 2 > window:
            raise UserError(f"overlap: {self.overlap} is more than half of window={window}; take less")
        check_inference(self.inference, partly=True)
        if "_target_" in self.trainer:
            check_node("trainer", self.trainer)
        else:
            check_keys(self.trainer, types_of(Where), "trainer")
        _check_where(Trainer.of(self.trainer), self.where, self.device)

    def bearing(self) -> dict[str, object]:
        """The keys that what is written depends on, but for the protocol's."""
        keys = ("opacity", "ids", "window", "overlap")
        return {key: getattr(self, key) for key in keys} | {"precision": self.where.precision or "32-true"}

    @property
    def where(self) -> Where:
        """What an option of the group `trainer`, or a key of it, says."""
        return filled(Where, self.trainer)


def _check_where(trainer: Trainer, where: Where, device: str) -> None:
    """Checks what is said of a prediction's device and precision: one device, in a precision that is known here."""
    devices, strategy = where.devices or 1, trainer.strategy
    one = devices in (1, "auto") or (isinstance(devices, list) and len(devices) == 1)
    if not one or strategy != "auto" or trainer.num_nodes != 1:
        raise UserError(
            f"trainer: {strategy if strategy != 'auto' else f'devices={devices}'} is for several devices, and predicting takes "
            "one; take trainer=gpu or trainer=cpu, and start a command with an input of its own for each further device"
        )
    accelerator, precision = where.accelerator, str(where.precision or "32-true")
    if accelerator is not None and device != "auto":
        raise UserError(f"device: {shown(device)} and trainer.accelerator={accelerator} both say where; give one")
    if precision not in _PRECISIONS:
        raise UserError(
            f"trainer.precision: predicting in {precision} is not possible; take 32-true, bf16-mixed, 16-mixed"
        )
    check_precision(precision, has_gpu="cpu" not in (accelerator, device))


def predict(settings: Config | Prediction) -> list[str]:
    """Writes the mask and a colour overlay of each input, and what else is asked for: of a photo as palette PNG, of a GeoTIFF
    and whatever is no photo as GeoTIFF, of a volume as NIfTI, of a video as video. What a model with further tasks says of a
    photo (its depth, boundary probabilities) is written beside them as TIFF, float32. Every file is written whole or not at
    all, and inputs whose files are all there are left as they are. `src.inference.inputs` says which inputs there are and how
    their outputs are named.

    Returns:
        What went wrong with inputs, a line each; the others are done all the same.

    Raises:
        UserError: no input, a bad checkpoint or device, the output cannot be written or holds other predictions.
        OSError: the output's folder cannot be made.
        Interrupted: Ctrl-C, or SIGTERM where `_task` turned it into that.
    """
    asked = settings if isinstance(settings, Prediction) else Prediction.of(settings)
    with importing_torch():
        from src.inference.inputs import find
        from src.training.ensembles import digest, files_of, said_of, segmenter_of

    output = Path(os.path.expanduser(asked.output))  # noqa: PTH111 (a Path's raises for no user)
    inputs = find(asked.input, output, asked.recursive)
    if inputs.skipped:
        _log.info("skipped: %s", inputs.told())
    from rich.progress import Progress

    from src.inference.devices import autocast, usable_device
    from src.inference.job import Job
    from src.inference.photos import Cut
    from src.inference.same_predictions import same_predictions
    from src.inference.writing import Writing

    files = files_of(asked.ckpt)
    model, trained = segmenter_of(files, asked.trust or ())
    model.predict_by(asked.inference)
    if model.inference.windows and asked.window is not None:
        raise UserError(
            "window: cuts images for a model that takes them whole, and this one predicts in windows; give "
            f"inference.window=[{asked.window},{asked.window}], or inference.mode=whole"
        )
    device = usable_device(_place(asked))
    check_precision(asked.where.precision, has_gpu=device.type != "cpu", here=True)
    # a checkpoint that does not know its ids is told of before anything is written
    ids = model.label_set.own_ids() if asked.ids == "dataset" else None
    writing = Writing(
        folder=output, opacity=asked.opacity if asked.overlays else None, uncertainty=asked.uncertainty,
        probabilities=asked.probabilities, vectors=tuple(dict.fromkeys(asked.vectors)), ids=ids, video_masks=asked.video_masks,
    )  # fmt: skip
    for folder in writing.folders():
        folder.mkdir(parents=True, exist_ok=True)
    bearing = {**asked.bearing(), "inference": said_of(files, model)["inference"]}
    same_predictions(output, digest(files), bearing, asked.overwrite)
    job = Job(
        model.to(device),
        device,
        trained.dataset,
        writing,
        Cut(asked.window, asked.overlap),
        asked.batch_size,
        asked.overwrite,
    )
    with Progress(disable=not sys.stdout.isatty()) as progress, autocast(device, asked.where.precision):
        task = progress.add_task("predicting", total=len(inputs.files))
        failed = job.run(inputs.files, lambda: progress.advance(task))
    failed = [shown(line, _LINE) for line in inputs.failed] + failed
    left_out = f", {inputs.skipped.total()} skipped" if inputs.skipped else ""
    kept = f", {job.kept} there already (overwrite=true does them anew)" if job.kept else ""
    wrong = f", {len(failed)} failed" if failed else ""
    _log.info("%d done%s%s%s: see %s", job.done, kept, left_out, wrong, shown(str(output)))
    return failed


def _place(asked: Prediction) -> str:
    """The device's name in torch's words, of `device=` or of what Lightning calls an accelerator."""
    accelerator, devices = asked.where.accelerator, asked.where.devices
    if accelerator is None:
        return asked.device
    name = "cuda" if accelerator == "gpu" else str(accelerator)
    return f"{name}:{devices[0]}" if name == "cuda" and isinstance(devices, list) else name


def _stop(number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _task(asked: Prediction, _: DictConfig) -> None:
    signal.signal(signal.SIGTERM, _stop)  # what is half-written goes, as on Ctrl-C
    end_with(predict(asked))


if __name__ == "__main__":
    start("predict", _task, Prediction.of)
