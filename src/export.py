"""Writes a checkpoint's network as one file for other programs: `python -m src.export ckpt=… output=FILE [format=onnx|pt2]`."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.parts import Config
from src.errors import UserError, of_a_file

if TYPE_CHECKING:  # a config error must not wait for torch
    import torch
    from torch.export import ExportedProgram

    from src.models.base import Segmenter

_log = logging.getLogger(__name__)
# Odd, so that the padding to the network's stride is part of the graph; then sizes of either kind to try it with.
_TRACED, _TRIED = (2, 70, 133), ((1, 96, 160), (3, 33, 101), (2, 70, 133))
_CLOSE = 1e-3  # of the largest logit


@dataclass(frozen=True, kw_only=True)
class Export(Asked):
    """What an export is told.

    Attributes:
        ckpt: a checkpoint, or a run folder.
        trust: packages that the checkpoint's config may name.
        size: height and width; None takes images of any size.
    """

    ckpt: str
    output: str
    format: Literal["onnx", "pt2"]
    size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None
    trust: list[str] | None = None


def export(settings: Config | Export) -> float:
    """Writes the file, which takes raw images `image` [B, C, H, W] as training did (uint8, or float32 of raw values where
    the data are not 8 bit; normalising is inside) and gives `logits` float32 [B, K, H, W]. The label set goes with it,
    and how images were read (`images`: dtype, bands, window, spacing …); of a calibrated checkpoint also the temperature by
    which logits are divided before they become probabilities.

    Returns:
        The largest difference of the file's logits from the checkpoint's, tried on random images.

    Raises:
        UserError: a bad checkpoint, a network that cannot be exported, or a file that gives something else.
    """
    asked = settings if isinstance(settings, Export) else Export.of(settings)
    from src.data import trained_on
    from src.files.atomic import replacing
    from src.networks import lora
    from src.optional_packages import needs
    from src.storage import checkpoints
    from src.training import build

    if asked.format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            needs(package, "onnx")
    file = checkpoints.find(asked.ckpt)
    model, trained = build.model_from_checkpoint(file, asked.trust or ())
    if model.ema is not None:
        model.network, model.ema = model.ema.module, None  # what is evaluated
    lora.merge(model.network)
    noise = getattr(model, "noise", None)
    if noise is not None and noise.active:
        raise UserError(
            f"ckpt: {file} predicts by drawing noise, which an exported graph cannot; train without model.noise"
        )
    about = {
        "label_set": json.dumps(model.label_set.to_dict()), "intensity": json.dumps(list(model.intensity)),
        "images": json.dumps(trained_on.how_read(model.images, trained.dataset.node)),
    }  # fmt: skip
    if model.temperature != 1:
        about["temperature"] = json.dumps(model.temperature)
    output = Path(asked.output).expanduser()
    if output.is_dir():
        raise UserError(f"output: {output} is a folder; name a file in it")
    with replacing(output) as partial:
        partial.touch()  # before the minutes that tracing takes
        program = _traced(model, asked.size)
        try:
            run = (_onnx if asked.format == "onnx" else _pt2)(program, partial, about)
            worst = _largest_difference(model, run, asked.size)
        except UserError:
            raise
        except Exception as error:  # of the exporter, or of the runtime that cannot run what it wrote
            if of_a_file(error) is not None:
                raise
            raise _not_exported(error, asked.size) from error
    sizes = "images of any size and number" if asked.size is None else f"images of {asked.size}"
    _log.info("%s: takes %s; its logits differ by at most %.1e", output, sizes, worst)
    return worst


def _traced(model: Segmenter, size: list[int] | None) -> ExportedProgram:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.model.logits(image)

    of_any = dict.fromkeys((0, 2, 3) if size is None else (0,), torch.export.Dim.DYNAMIC)
    batch, height, width = _TRACED if size is None else (2, *size)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _random(model, batch, height, width)
            return torch.export.export(Logits().eval(), (image,), dynamic_shapes=(of_any,), strict=False)
    except Exception as error:  # torch.export's errors have no class in common
        raise _not_exported(error, size) from error


def _not_exported(error: Exception, size: list[int] | None) -> UserError:
    reason = " ".join(str(error).split())[:160]
    mend = "" if size is not None else "; try it for one size, e.g. size=[512,512]"
    return UserError(f"ckpt: this network cannot be exported ({reason}){mend}")


def _onnx(program: ExportedProgram, file: Path, about: Mapping[str, str]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Writes ONNX with `about` as its metadata; returns a function that runs the file."""
    import onnxruntime
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=["image"], output_names=["logits"]
        )
    assert exported is not None
    exported.model.metadata_props.update(about)
    exported.save(str(file), external_data=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


def _pt2(program: ExportedProgram, file: Path, about: Mapping[str, str]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Writes torch.export's archive with `about` as extra files; returns a function that runs the file."""
    import torch

    archive = io.BytesIO()  # where the disk is full, torch's own writer takes the process with it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, archive, extra_files=dict(about))
    file.write_bytes(archive.getbuffer())
    with file.open("rb") as stream:
        # The guards tell the sizes apart by memory layout only; the graph serves them all.
        run: Callable[[torch.Tensor], torch.Tensor] = torch.export.load(stream).module(check_guards=False)
    return run


def _largest_difference(model: Segmenter, run: Callable[[torch.Tensor], torch.Tensor], size: list[int] | None) -> float:
    import torch

    worst = 0.0
    for batch, height, width in _TRIED if size is None else ((1, *size), (3, *size)):
        image = _random(model, batch, height, width)
        with torch.no_grad():
            expected, given = model.logits(image).float(), run(image).float()
        difference = float((expected - given).abs().max()) if expected.shape == given.shape else float("inf")
        if not difference <= _CLOSE * max(1.0, float(expected.abs().max())):
            raise UserError(
                f"output: the exported network gives other logits for {height}x{width} (by {difference:.1e}); "
                "it was not kept"
            )
        worst = max(worst, difference)
    return worst


def _random(model: Segmenter, batch: int, height: int, width: int) -> torch.Tensor:
    """Raw images within the model's range, always the same ones."""
    import torch

    generator = torch.Generator().manual_seed(0)
    low, high = model.intensity
    values = low + (high - low) * torch.rand((batch, model.channels, height, width), generator=generator)
    return values.round().to(torch.uint8) if model.intensity == (0.0, 255.0) else values


def _task(asked: Export, _: DictConfig) -> None:
    export(asked)


if __name__ == "__main__":
    start("export", _task, Export.of)
