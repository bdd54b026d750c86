"""How long a network takes, and how much memory: the same images through each way of running it, in turns."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from src.models.base import Segmenter
from src.sharing import formats, graph, quantization
from src.sharing.graph import Run

Way = Literal["eager", "compiled", "onnx", "int8"]


@dataclass
class Row:
    """One way of running a network, for images of one size and number.

    Attributes:
        device: where it ran.
        milliseconds: the median of a batch's wall times; None where it could not run.
        slowest: of the rounds.
        images_per_second: batch over median.
        memory: MiB that a pass takes at its peak beside the weights; None where this machine does not tell.
        failed: why it could not run.
    """

    way: Way
    device: str
    height: int
    width: int
    batch: int
    milliseconds: float | None = None
    slowest: float | None = None
    images_per_second: float | None = None
    memory: float | None = None
    failed: str | None = None
    times: list[float] = field(default_factory=list, repr=False)


class Runners:
    """The ways to run a segmenter's network on raw images.

    Args:
        size: exported graphs are made for; None for any.
        threads: of ONNX Runtime.
    """

    def __init__(self, model: Segmenter, device: torch.device, size: Sequence[int] | None, threads: int) -> None:
        self._model, self.device, self._size, self._threads = model, device, size, threads
        self._onnx: object = None

    def make(self, way: Way) -> Run:
        """A function of raw images on `device_of(way)`.

        Raises:
            Exception: whatever hinders it.
        """
        if way in ("eager", "compiled"):
            model = self._model.to(self.device)
            network = model.network
            if way == "compiled":
                compiled = torch.compile(network)
                assert isinstance(compiled, torch.nn.Module)
                network = compiled
            return lambda image: model.outputs_of(network, image)["logits"]
        from src.optional_packages import needs

        for package in ("onnx", "onnxscript", "onnxruntime"):
            needs(package, "onnx")
        if self._onnx is None:
            on_cpu = copy.deepcopy(self._model).cpu()
            program = graph.traced(on_cpu, self._size, own_pooling=self._size is None)
            self._onnx = formats.as_onnx(program)
        graphs = self._onnx
        if way == "int8":
            size = self._size or (128, 128)  # the time does not depend on what the ranges were taken of
            graphs = quantization.quantized(graphs, [graph.random_images(self._model, 1, *size).numpy()])
        with tempfile.TemporaryDirectory() as folder:
            return formats.write_onnx(graphs, Path(folder) / "model.onnx", {}, self._threads, self._providers)

    def device_of(self, way: Way) -> torch.device:
        """Where a way takes its images: what ONNX Runtime is given lies in the memory of the host."""
        return self.device if way in ("eager", "compiled") else torch.device("cpu")

    def name_of(self, way: Way) -> str:
        """Where a way computes, in words."""
        return str(self.device) if way in ("eager", "compiled") or "CUDA" in self._providers[0] else "cpu"

    @property
    def _providers(self) -> list[str]:
        found: list[str] = []
        if self.device.type == "cuda":
            with contextlib.suppress(ImportError):
                import onnxruntime

                found = [one for one in onnxruntime.get_available_providers() if one == "CUDAExecutionProvider"]
        return [*found, "CPUExecutionProvider"]


def measured(
    runners: Runners, ways: Sequence[Way], model: Segmenter, sizes: Sequence[Sequence[int]], batches: Sequence[int],
    rounds: int, tell: Callable[[str], None],
) -> list[Row]:  # fmt: skip
    """Times every way for every size and batch; what one cannot do is a row that says why, and the others go on.

    Args:
        tell: is given a line for each way that cannot be run.
    """
    rows: list[Row] = []
    runs: dict[Way, Run] = {}
    hindered: dict[Way, str] = {}
    for way in ways:
        try:
            runs[way] = runners.make(way)
        except Exception as error:  # of a compiler, an exporter, a package that is not there
            hindered[way] = reason_of(error)
            tell(f"{way}: {hindered[way]}")
    for size in sizes:
        for batch in batches:
            image = graph.random_images(model, batch, *size)
            here = [Row(way, runners.name_of(way), size[0], size[1], batch, failed=hindered.get(way)) for way in ways]
            _fill([row for row in here if row.failed is None], runs, image, runners, rounds, tell)
            rows += here
    return rows


def _fill(
    rows: Sequence[Row], runs: dict[Way, Run], image: Tensor, runners: Runners, rounds: int, tell: Callable[[str], None]
) -> None:
    images = {row.way: image.to(runners.device_of(row.way)) for row in rows}
    with torch.inference_mode():
        for row in rows:
            try:
                if row.way == "compiled":  # whose first call compiles
                    runs[row.way](images[row.way])
                with peak(torch.device(row.device)) as used:
                    runs[row.way](images[row.way])
                told = torch.device(row.device).type == images[row.way].device.type  # not of ONNX Runtime on a GPU
                row.memory = used() if told else None
            except Exception as error:
                row.failed = reason_of(error)
                tell(f"{row.way}, {row.height}x{row.width}, batch {row.batch}: {row.failed}")
        for _ in range(rounds):
            for row in rows:
                if row.failed is None:
                    row.times.append(_seconds(runs[row.way], images[row.way]))
    for row in rows:
        if row.failed is None:
            median = statistics.median(row.times)
            row.milliseconds, row.slowest = 1000 * median, 1000 * max(row.times)
            row.images_per_second = row.batch / median


def _seconds(run: Run, image: Tensor) -> float:
    _wait(image.device)
    begun = time.perf_counter()
    run(image)
    _wait(image.device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def reason_of(error: Exception) -> str:
    """What hindered something, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines[0] += f" {lines[1]}"  # a compiler's first line says only that there is a second
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


@contextlib.contextmanager
def peak(device: torch.device) -> Iterator[Callable[[], float | None]]:
    """Gives a function that says, after the block, by how many MiB memory grew within it at its peak: of a CUDA device what
    PyTorch took, of a CPU the resident memory of this process as Linux counts it; None elsewhere."""
    found: list[float | None] = [None]
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: found[0]
        found[0] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
        return
    resident = _resident_from_now() if device.type == "cpu" else None
    yield lambda: found[0]
    if resident is not None:
        found[0] = max(0.0, (_status("VmHWM") - resident) / 1024)


def _resident_from_now() -> int | None:
    """Resident KiB, once what was freed is given back, from which the peak is counted anew; None where Linux is not."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except (OSError, ValueError):
        return None


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1])
