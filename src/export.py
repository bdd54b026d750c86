"""Writes a checkpoint's network as one file for other programs: `python -m src.export ckpt=… output=FILE [format=…]`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.check import check_keys
from src.config.evaluation import ChosenData
from src.config.parts import Config, Node, types_of
from src.errors import UserError, of_a_file

if TYPE_CHECKING:  # a config error must not wait for torch
    from src.config.settings import Trained
    from src.data.sources import Source
    from src.models.base import Segmenter
    from src.sharing.graph import Run
    from src.sharing.quantization import Cost

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Export(Asked):
    """What an export is told.

    Attributes:
        ckpt: a checkpoint, or a run folder.
        trust: packages that the checkpoint's config may name.
        size: height and width; None takes images of any size.
        argmax: the graph gives classes in place of logits.
        opset: of ONNX; None takes the exporter's own.
        calibration_images, data: of int8: so many of the run's val images, and where its data are.
    """

    ckpt: str
    output: str
    format: Literal["onnx", "pt2", "openvino"]
    size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None
    argmax: bool
    precision: Literal["fp32", "fp16", "int8"]
    opset: Annotated[int, Field(ge=18, le=25)] | None
    calibration_images: PositiveInt
    data: Node
    trust: list[str] | None = None

    def check(self) -> None:
        check_keys(self.data, types_of(ChosenData), "data")
        if self.format == "pt2" and self.opset is not None:
            raise UserError("opset: is ONNX's, and format=pt2 has none; leave it out")
        if self.format == "pt2" and self.precision == "int8":
            raise UserError("precision: int8 is made by ONNX Runtime; take format=onnx or openvino")
        if self.precision != "int8" and any(value is not None for value in self.data.values()):
            raise UserError("data: only precision=int8 reads images; leave it out")
        if self.format == "openvino" and not self.output.endswith(".xml"):
            raise UserError("output: OpenVINO writes NAME.xml, and NAME.bin beside it; end the name in .xml")


def export(settings: Config | Export) -> float:
    """Writes the file, which takes raw images `image` [B, C, H, W] as training did (uint8, or float32 of raw values where
    the data are not 8 bit; normalising is inside) and gives `logits` float32 [B, K, H, W], or `labels` uint8 [B, H, W]. What a
    caller has to know goes with it; see `src.sharing.about`. Of int8 also a file of scores, NAME.json, beside it.

    Returns:
        The largest difference of the file's logits from the checkpoint's, tried on random images; of labels, by how much the
        checkpoint's logit of such a label is below its largest.

    Raises:
        UserError: a bad checkpoint, a network that cannot be exported, or a file that gives something else.
    """
    asked = settings if isinstance(settings, Export) else Export.of(settings)
    from src.files.atomic import replacing
    from src.networks import lora
    from src.optional_packages import needs
    from src.sharing import graph
    from src.sharing.about import about
    from src.storage.run_folder import write_text

    for package in ("onnx", "onnxscript", "onnxruntime") if asked.format != "pt2" else ():
        needs(package, "onnx")
    if asked.format == "openvino":
        needs("openvino", "openvino")
    output = Path(asked.output).expanduser()
    if output.is_dir():
        raise UserError(f"output: {output} is a folder; name a file in it")
    model, trained, source = _opened(asked)
    if model.ema is not None:
        model.network, model.ema = model.ema.module, None  # what is evaluated
    lora.merge(model.network)
    expected = graph.expected_of(model, asked.size)
    told = about(model, trained, asked.size, asked.argmax)
    with replacing(output) as partial:
        partial.touch()  # before the minutes that tracing takes
        weights = partial.with_suffix(".bin")  # of OpenVINO
        try:
            run, cost = _written(asked, model, source, partial, told)
            worst = graph.largest_difference(run, expected, asked.precision, asked.argmax)
            if weights.is_file():
                with replacing(output.with_suffix(".bin")) as beside:
                    weights.replace(beside)
        except UserError:
            raise
        except Exception as error:  # of the exporter, or of the runtime that cannot run what it wrote
            if of_a_file(error) is not None:
                raise
            raise graph.not_exported(error, asked.size) from error
        finally:
            weights.unlink(missing_ok=True)
    sizes = "images of any size and number" if asked.size is None else f"images of {asked.size}"
    said = "its labels' logits are below the largest by" if asked.argmax else "its logits differ by"
    _log.info("%s: takes %s; %s at most %.1e, on noise", output, sizes, said, worst)
    if cost is not None:
        scores = output.with_name(f"{output.name}.json")
        write_text(scores, json.dumps(cost.plain(), indent=2, ensure_ascii=False) + "\n")
        _log.info("int8: %s; written to %s", cost.told, scores)
    return worst


def _opened(asked: Export) -> tuple[Segmenter, Trained, Source | None]:
    """The model, what it was trained with, and, for int8, its val images."""
    from src.storage import checkpoints
    from src.training import build

    file = checkpoints.find(asked.ckpt)
    if asked.precision != "int8":
        model, trained = build.model_from_checkpoint(file, asked.trust or ())
        source = None
    else:
        from src.sharing import quantization
        from src.training.comparing import evaluation_of
        from src.training.scoring import open_checkpoint

        where = {"accelerator": "cpu", "precision": None, "devices": 1, "strategy": "auto"}
        given = {"data": dict(asked.data), "trainer": where, "trust": asked.trust}
        opened = open_checkpoint(evaluation_of(file, "val", given))
        model, trained, source = opened.model, opened.trained, opened.datamodule.source("val")
        quantization.check_size(model, source, asked.calibration_images, asked.size)
    noise = getattr(model, "noise", None)
    if noise is not None and noise.active:
        raise UserError(
            f"ckpt: {file} predicts by drawing noise, which an exported graph cannot; train without model.noise"
        )
    return model, trained, source


def _written(
    asked: Export, model: Segmenter, source: Source | None, file: Path, told: Mapping[str, str]
) -> tuple[Run, Cost | None]:
    """Writes the file; gives what runs it, and what int8 costs."""
    from src.sharing import formats, graph

    half = asked.precision == "fp16"
    if asked.format == "pt2":
        program = graph.traced(model, asked.size, argmax=asked.argmax, half=half)
        return formats.write_pt2(program, file, told), None
    # OpenVINO makes its own of float32, weights in float16.
    program = graph.traced(model, asked.size, half=half and asked.format == "onnx", own_pooling=asked.size is None)
    made, cost = formats.as_onnx(program, asked.opset), None
    if source is not None:
        made, cost = _as_int8(made, model, source, asked.calibration_images, file)
    if asked.argmax:
        made = formats.with_labels(made)
    if asked.format == "openvino":
        return formats.write_openvino(made, file, told, half), cost
    return formats.write_onnx(made, file, told), cost


def _as_int8(made: object, model: Segmenter, source: Source, count: int, file: Path) -> tuple[object, Cost]:
    """An ONNX model with integers, and its scores on val beside those of the checkpoint."""
    from src.sharing import formats, quantization

    result = quantization.quantized(made, quantization.seen_by(model, source, count))
    before = quantization.scored(model, source)
    with quantization.standing_in(model, formats.write_onnx(result, file, {})):
        after = quantization.scored(model, source)
    return result, quantization.Cost(len(source), min(count, len(source)), before, after)


def _task(asked: Export, _: DictConfig) -> None:
    export(asked)


if __name__ == "__main__":
    start("export", _task, Export.of)
