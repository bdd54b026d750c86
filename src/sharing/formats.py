"""Graphs as files: ONNX, torch.export's archive, OpenVINO; each with what it is about, and a function that runs it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from src.sharing.graph import Run

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_OF_OPENVINO = "pixelwise"  # where in its runtime information the texts lie
_ON_CPU = "CPUExecutionProvider"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it the exporter and the quantizer, which log what they do and advise, say nothing but errors."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(before)


def as_onnx(program: ExportedProgram, opset: int | None = None) -> Any:
    """A graph as `onnx.ModelProto`, from `image` to `logits`.

    Args:
        opset: None takes the exporter's own.
    """
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program, (), dynamo=True, verbose=False, opset_version=opset, input_names=["image"], output_names=["logits"]
        )
    assert exported is not None
    return exported.model_proto


def with_labels(model: Any) -> Any:
    """The same with `labels`, the class of the largest logit, uint8 [B, H, W], in the place of logits. Changes the model."""
    import onnx

    graph = model.graph
    (logits,) = graph.output
    sides = logits.type.tensor_type.shape.dim
    graph.node.append(onnx.helper.make_node("ArgMax", [logits.name], ["class_of_pixel"], axis=1, keepdims=0))
    graph.node.append(onnx.helper.make_node("Cast", ["class_of_pixel"], ["labels"], to=onnx.TensorProto.UINT8))
    shape = [side.dim_param or side.dim_value for at, side in enumerate(sides) if at != 1]
    labels = onnx.helper.make_tensor_value_info("labels", onnx.TensorProto.UINT8, shape)
    graph.ClearField("output")
    graph.output.append(labels)
    return model


def write_onnx(
    model: Any, file: Path, about: Mapping[str, str], threads: int = 0, providers: Sequence[str] = (_ON_CPU,)
) -> Run:
    """Writes an `onnx.ModelProto` with `about` as its metadata.

    Args:
        threads: that run an operation of it; 0 takes all cores.
        providers: ONNX Runtime's names of where it runs.
    """
    import onnx
    import onnxruntime

    onnx.helper.set_model_props(model, dict(about))
    file.write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=list(providers))
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def write_pt2(program: ExportedProgram, file: Path, about: Mapping[str, str]) -> Run:
    """Writes torch.export's archive with `about` as extra files."""
    archive = io.BytesIO()  # where the disk is full, torch's own writer takes the process with it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, archive, extra_files=dict(about))
    file.write_bytes(archive.getbuffer())
    with file.open("rb") as stream:
        # The guards tell the sizes apart by memory layout only; the graph serves them all.
        run: Run = torch.export.load(stream).module(check_guards=False)
    return run


def write_openvino(model: Any, file: Path, about: Mapping[str, str], half: bool) -> Run:
    """Writes an `onnx.ModelProto` as OpenVINO's NAME.xml, and NAME.bin beside it, with `about` as runtime information below
    "pixelwise".

    Args:
        half: keep weights in float16.
    """
    import openvino

    core = openvino.Core()
    # Not openvino.convert_model, which reports its use to the maker.
    read = core.read_model(model.SerializeToString())
    for key, value in about.items():
        read.set_rt_info(value, [_OF_OPENVINO, key])
    openvino.save_model(read, file, compress_to_fp16=half)
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(compiled({"image": image.numpy()})[0])

    return run
