"""Says what a network costs: `python -m src.benchmark ckpt=RUN` or `network=…`, with time and memory by size and batch."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.check import check_node
from src.config.parts import Config, Node
from src.errors import UserError, of_a_file

if TYPE_CHECKING:
    from src.models.base import Segmenter

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Benchmark(Asked):
    """What a benchmark is told.

    Attributes:
        ckpt, network: of what: a checkpoint or run folder, or an option of `network=`.
        classes, channels: of a network that no checkpoint describes.
        sizes, batches: of the images, each with each.
        ways: how it is run.
        threads: of the CPU; None takes PyTorch's.
        rounds: in which every way is timed once.
        output: the folder of what is written.
    """

    ckpt: str | None = None
    network: Node = field(default_factory=dict)
    classes: Annotated[int, Field(ge=2, le=254)]
    channels: PositiveInt
    sizes: Annotated[list[Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]], Field(min_length=1)]
    batches: Annotated[list[PositiveInt], Field(min_length=1)]
    ways: Annotated[list[Literal["eager", "compiled", "onnx", "int8"]], Field(min_length=1)]
    device: str
    threads: PositiveInt | None
    rounds: PositiveInt
    output: str
    trust: list[str] | None = None

    def check(self) -> None:
        if (self.ckpt is None) != bool(self.network):
            raise UserError("ckpt: give a checkpoint or run folder, or network=…, one of the two")
        if self.network:
            check_node("network", self.network)


def benchmark(settings: Config | Benchmark) -> dict[str, Any]:
    """Measures, prints a table, and writes benchmark.json, benchmark.md and benchmark.svg.

    Returns:
        What benchmark.json has.

    Raises:
        UserError: a bad checkpoint, a device that cannot be used, or one that predicts by drawing noise.
    """
    asked = settings if isinstance(settings, Benchmark) else Benchmark.of(settings)
    import torch

    from src.inference.devices import usable_device
    from src.provenance import surroundings
    from src.sharing import cost_table
    from src.sharing.cost import counted
    from src.sharing.timing import Runners, measured
    from src.storage.run_folder import write_text

    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    device = usable_device(asked.device)
    model, named = _model(asked)
    sizes = list(dict.fromkeys((height, width) for height, width in asked.sizes))
    counts = {size: counted(model.network, model.channels, size) for size in sizes}
    threads = torch.get_num_threads()
    runners = Runners(model, device, sizes[0] if len(sizes) == 1 else None, threads)
    ways = list(dict.fromkeys(asked.ways))
    batches = list(dict.fromkeys(asked.batches))
    rows = measured(runners, ways, model, sizes, batches, asked.rounds, lambda line: _log.warning("%s", line))
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else str(surroundings.hardware()["cpu"])
    about = {"hardware": name, "threads": threads, "torch": torch.__version__, "device": str(device)}
    found: dict[str, Any] = cost_table.plain(named, counts, rows, about)
    table = cost_table.markdown(named, counts, rows, about)
    output = Path(asked.output).expanduser()
    try:
        write_text(output / "benchmark.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        write_text(output / "benchmark.md", table)
        write_text(output / "benchmark.svg", cost_table.plot(named, rows).decode())
    except OSError as error:
        if told := of_a_file(error):
            raise UserError(f"output: {told}") from None
        raise
    print(table)
    print(f"written: {output}/benchmark.json, .md and .svg")
    return found


def _model(asked: Benchmark) -> tuple[Segmenter, str]:
    """The segmenter, its averaged weights in place and adapters merged, and what it is called."""
    from src.networks import lora
    from src.storage import checkpoints
    from src.storage.trust import OWN
    from src.training import build

    if asked.ckpt is not None:
        file = checkpoints.find(asked.ckpt)
        model, trained = build.model_from_checkpoint(file, asked.trust or ())
        named = f"{_last_word(trained.plain['network'])} of {file.parent.parent.name}/{file.name}"
    else:
        from src.data.labels import LabelSet

        labels = LabelSet(
            tuple(f"class {k}" for k in range(asked.classes)), tuple((k, k, k) for k in range(asked.classes))
        )
        settings = {"network": dict(asked.network), "model": {"_target_": "src.models.cnn.CNNSegmenter"}}
        model = build.build_model(settings, labels, asked.channels, (0.0, 255.0), trust=OWN)
        named = _last_word(asked.network)
    noise = getattr(model, "noise", None)
    if noise is not None and noise.active:
        raise UserError(f"ckpt: {asked.ckpt} predicts by drawing noise, each time as often as model.noise.draws says")
    if model.ema is not None:
        model.network, model.ema = model.ema.module, None
    lora.merge(model.network)
    return model.eval(), named


def _last_word(node: object) -> str:
    """What a person calls the network that a node builds."""
    target = node.get("_target_", "") if isinstance(node, Mapping) else ""
    return str(target).rpartition(".")[2]


def _task(asked: Benchmark, _: DictConfig) -> None:
    benchmark(asked)


if __name__ == "__main__":
    start("benchmark", _task, Benchmark.of)
