"""Segments images, rasters and volumes with nothing but a checkpoint:
`python -m src.predict ckpt=… input=FILE|DIR|GLOB output=DIR [recursive=true]`."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.check import check_inference, check_keys, check_node
from src.config.parts import Accelerator, Config, Dataset, Devices, Node, Precision, Share, Trainer, filled, types_of
from src.config.rules import check_precision
from src.data.windows import SIDE
from src.errors import Interrupted, UserError, memory_ran_out, of_a_file
from src.files.untrusted import shown

if TYPE_CHECKING:  # a config error must not wait for torch
    import torch

    from src.models.base import Segmenter

_log = logging.getLogger(__name__)
_LINE = 1000  # characters of a message
_MIXED = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
# What writing says where the name is at fault (too long, taken by a folder, not allowed on this disk), not the disk.
_OF_THE_NAME = (
    errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EILSEQ, errno.EINVAL,
)  # fmt: skip


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
        ckpt: a checkpoint, or a run folder.
        trust: packages that the checkpoint's config may name.
        input: a file, a folder or a pattern.
        opacity: of the colours in overlays.
        window: side in pixels; None takes photos whole.
        overlap: pixels that windows share.
        ids: what masks have: the numbers of the classes, or what the data set's own files have for them.
        inference: what is changed of how the model predicts; a key that is None is as it was trained.
        device: in torch's words; "auto" where `trainer` says it, or the machine.
    """

    ckpt: str
    input: str
    output: str
    opacity: Share
    device: str
    uncertainty: bool
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
    if precision not in ("32-true", "32", *_MIXED):
        raise UserError(
            f"trainer.precision: predicting in {precision} is not possible; take 32-true, {', '.join(_MIXED)}"
        )
    check_precision(precision, has_gpu="cpu" not in (accelerator, device))


def predict(settings: Config | Prediction) -> list[str]:
    """Writes the mask and a colour overlay of each input, and its uncertainty maps if asked for: of a photo as palette PNG,
    of a GeoTIFF and whatever is no photo as GeoTIFF, of a volume as NIfTI. What a model with further tasks says of a photo
    (its depth, boundary probabilities) is written beside them as TIFF, float32. Every file is written whole or not
    at all. `src.inference.inputs` says which inputs there are and how their outputs are named.

    Returns:
        What went wrong with inputs, a line each; the others are done all the same.

    Raises:
        UserError: no input, a bad checkpoint or device, or the output cannot be written.
        OSError: the output's folder cannot be made.
        Interrupted: Ctrl-C, or SIGTERM where `_task` turned it into that.
    """
    asked = settings if isinstance(settings, Prediction) else Prediction.of(settings)
    from src.inference.inputs import OUTPUTS, find

    output = Path(os.path.expanduser(asked.output))  # noqa: PTH111 (a Path's raises for no user)
    inputs = find(asked.input, output, asked.recursive)
    if inputs.skipped:
        _log.info("skipped: %s", inputs.told())
    import torch
    from rich.progress import track

    from src.storage import checkpoints
    from src.training import build

    model, trained = build.model_from_checkpoint(checkpoints.find(asked.ckpt), asked.trust or ())
    model.inference = model.inference.with_keys(asked.inference)
    if model.inference.windows and asked.window is not None:
        raise UserError(
            "window: cuts images for a model that takes them whole, and this one predicts in windows; give "
            f"inference.window=[{asked.window},{asked.window}], or inference.mode=whole"
        )
    device = _device(_place(asked))
    check_precision(asked.where.precision, has_gpu=device.type != "cpu", here=True)
    precision = _MIXED.get(str(asked.where.precision))
    computing = torch.autocast(device.type, getattr(torch, precision or "bfloat16"), enabled=precision is not None)
    model.to(device)
    if asked.ids == "dataset":
        model.label_set.own_ids()  # a checkpoint that does not know them is told of before anything is written
    for folder in OUTPUTS[: 3 if asked.uncertainty else 2]:
        (output / folder).mkdir(parents=True, exist_ok=True)
    failed = [shown(line, _LINE) for line in inputs.failed]
    done = 0
    try:
        for name, file in track(inputs.files.items(), "predicting", disable=not sys.stdout.isatty()):
            try:
                with computing:
                    _segment(model, device, file, output, name, trained.dataset, asked)
                done += 1
            except Exception as error:
                _log.debug("%s", shown(str(file)), exc_info=True)
                failed.append(shown(_fault(error, file, output).replace("\n", "\\n"), _LINE))
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"{stop or 'Ctrl-C'}: {done} of {len(inputs.files)} are done, in {shown(str(output))}"
        ) from None
    left_out = f", {inputs.skipped.total()} skipped" if inputs.skipped else ""
    wrong = f", {len(failed)} failed" if failed else ""
    _log.info("%d done%s%s: masks and overlays are in %s", done, left_out, wrong, shown(str(output)))
    return failed


def _segment(
    model: Segmenter, device: torch.device, file: Path, output: Path, name: str, dataset: Dataset, asked: Prediction
) -> None:
    """Segments a photo, a raster or a volume, whichever the file is to this model."""
    from src.data.formats.nifti import SUFFIXES
    from src.inference.photos import segment_photo
    from src.inference.scenes import TRAINED_ON, is_georeferenced, segment_raster
    from src.inference.volumes import segment_volume

    opacity, uncertainty = asked.opacity, asked.uncertainty
    ids = model.label_set.own_ids() if asked.ids == "dataset" else None
    takes_photos = (model.channels, model.intensity) == (3, (0.0, 255.0)) and dataset.target != TRAINED_ON
    side, overlap = asked.window, asked.overlap
    if file.is_dir() or file.name.lower().endswith(SUFFIXES):
        segment_volume(model, device, file, output, name, dataset, opacity=opacity, uncertainty=uncertainty, ids=ids)
    elif takes_photos and not is_georeferenced(file):
        segment_photo(
            model,
            device,
            file,
            output,
            name,
            side=side,
            overlap=overlap,
            opacity=opacity,
            uncertainty=uncertainty,
            ids=ids,
        )
    else:
        segment_raster(
            model, device, file, output, name, dataset, side=side or SIDE, overlap=overlap, opacity=opacity,
            uncertainty=uncertainty, ids=ids,
        )  # fmt: skip


def _fault(error: Exception, file: Path, output: Path) -> str:
    """What to tell of an input that could not be done.

    Raises:
        UserError: the output is at fault: the next input would fare no better.
    """
    if isinstance(error, UserError):
        return str(error)
    if memory_ran_out(error):
        return (
            f"{file}: memory ran out; take a smaller window (window=512; where inference.mode is window, "
            "inference.window=[256,256]), or device=cpu if it was the GPU's"
        )
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        if error.errno in _OF_THE_NAME:
            return f"{file}: its output cannot be written below {output} ({reason}); rename the input"
        at = error.filename if isinstance(error.filename, str | os.PathLike) else None
        if at is not None and Path(at).is_relative_to(file):
            return f"{file}: cannot be read ({reason}); replace or remove it"
        if error.errno is not None:
            error.filename = error.filename or str(output)
            raise of_a_file(error) or UserError(
                f"output: {shown(str(output))} cannot be written to ({reason}); take another folder"
            )
    what = " ".join(str(error).split())[:160]
    return f"{file}: could not be segmented ({type(error).__name__}: {what}); replace or remove it (hydra.verbose=true: more)"


def _place(asked: Prediction) -> str:
    """The device's name in torch's words, of `device=` or of what Lightning calls an accelerator."""
    accelerator, devices = asked.where.accelerator, asked.where.devices
    if accelerator is None:
        return asked.device
    name = "cuda" if accelerator == "gpu" else str(accelerator)
    return f"{name}:{devices[0]}" if name == "cuda" and isinstance(devices, list) else name


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.ones(1, device=name).cpu().device and torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device: {name!r} cannot be used ({str(error).splitlines()[0][:120]}); take device=cpu or trainer=cpu"
        ) from error


def _stop(number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _task(asked: Prediction, _: DictConfig) -> None:
    signal.signal(signal.SIGTERM, _stop)  # what is half-written goes, as on Ctrl-C
    failed = predict(asked)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    start("predict", _task, Prediction.of)
