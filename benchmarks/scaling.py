"""How long an epoch takes and what it costs on 1, 8 and 64 GPUs, and what holds it back first, from figures of one GPU.

    python benchmarks/scaling.py --step-ms 150 --images 8 --parameters 42e6 --loader 60 --cores 8
    python benchmarks/scaling.py --check                       # the model of it beside gloo, 2 to 4 ranks under added latency

The model, of data-parallel training whose ranks each take `--images` a step (weak scaling):

- computing takes `--step-ms`; two thirds of it is the backward pass, beside which DDP sends gradients bucket by bucket (25 MB);
- a ring all-reduce of n bytes among N ranks takes 2 (N - 1) times n / N / bandwidth + latency (Patarasuk and Yuan 2009).
  Within a node the bandwidth is that of its links, between nodes that of the network, which a ring crosses once a node;
- what is sent does not count as far as the backward pass hides it; the last bucket is sent when there is nothing left to hide;
- the loader gives `--loader` images a second and core; a step waits for it where it gives fewer than are trained.

Nothing is known of stragglers, of file systems, of batch norm's own messages, nor of whether so large a batch still learns.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

DATA_SETS = {"Cityscapes, 2,975 images": 2975, "COCO, 118,287": 118_287, "100 million": 100_000_000}
GPUS = (1, 8, 64)
_BUCKET = 25 << 20  # DDP's bytes a message
_BACKWARD = 2 / 3  # of the time of a step


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What is known of one GPU and of what joins several.

    Attributes:
        step: seconds that a step computes.
        images: of each GPU in a step.
        gradients: bytes.
        loader: images a second that the cores of one GPU read.
        per_node: GPUs.
        within, between: bytes a second within a node, and of a node's network.
        latency: seconds of a message.
        bucket: bytes of a message.
    """

    step: float
    images: int
    gradients: float
    loader: float = math.inf
    per_node: int = 8
    within: float = 200e9
    between: float = 25e9
    latency: float = 20e-6
    bucket: float = _BUCKET

    def all_reduce(self, size: float, ranks: int) -> float:
        """Seconds for that many bytes."""
        if ranks == 1:
            return 0.0
        bandwidth = self.within if ranks <= self.per_node else min(self.within, self.between)
        return 2 * (ranks - 1) * (size / ranks / bandwidth + self.latency)

    def exposed(self, ranks: int) -> float:
        """Seconds of a step in which a rank waits for gradients: buckets are ready one after the other, evenly over the
        backward pass, and sent one after the other."""
        count = max(1, math.ceil(self.gradients / self.bucket))
        each = self.all_reduce(self.gradients / count, ranks)
        backward = _BACKWARD * self.step
        sent = 0.0
        for bucket in range(1, count + 1):
            sent = max(sent, backward * bucket / count) + each
        return sent - backward if ranks > 1 else 0.0

    def seconds(self, ranks: int) -> tuple[float, str]:
        """Of a step, and what it is bound by."""
        waiting, reading = self.exposed(ranks), self.images / self.loader
        if reading > self.step + waiting:
            return reading, "the loader"
        return self.step + waiting, "gradients" if waiting > 0.1 * self.step else "computing"


def table(cluster: Cluster, price: float) -> str:
    """A line for each data set and number of GPUs."""
    lines = [
        "| data | GPUs | step, ms | an epoch | cost | each, of one alone | bound by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, images in DATA_SETS.items():
        for ranks in GPUS:
            seconds, bound = cluster.seconds(ranks)
            steps = math.ceil(images / (cluster.images * ranks))
            epoch = steps * seconds
            lines.append(
                f"| {name} | {ranks} | {1000 * seconds:.0f} | {_time(epoch)} | ${epoch / 3600 * ranks * price:,.2f} | "
                f"{cluster.seconds(1)[0] / seconds:.0%} | {bound} |"
            )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


class _Slow(torch.autograd.Function):
    """Takes a while and no core, so that several ranks on two cores do not take it from one another."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, forward: float, backward: float) -> Tensor:
        ctx.backward_seconds = backward
        time.sleep(forward)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        time.sleep(ctx.backward_seconds)
        return gradients[0], None, None


class _Layers(nn.Module):
    """Layers of one bucket each."""

    def __init__(self, layers: int, size: int, step: float) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(size)) for _ in range(layers)])
        self.forward_seconds, self.backward_seconds = step * (1 - _BACKWARD) / layers, step * _BACKWARD / layers

    def forward(self, value: Tensor) -> Tensor:
        for weight in self.weights:
            value = _Slow.apply(value + weight[0], self.forward_seconds, self.backward_seconds)
        return value


def _rank(rank: int, ranks: int, port: int, layers: int, size: int, step: float, latency: float, results: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    model: Any = nn.parallel.DistributedDataParallel(_Layers(layers, size, step), bucket_cap_mb=4 * size / 2**20)

    wire = ThreadPoolExecutor(1)  # messages pass one after the other, beside the backward pass

    def sent(bucket: Tensor, done: Any) -> None:
        time.sleep(2 * (ranks - 1) * latency)
        dist.all_reduce(bucket)
        done.set_result(bucket)

    def slowed(bucket: Any) -> Any:
        done: Any = torch.futures.Future()
        wire.submit(sent, bucket.buffer(), done)
        return done

    model.register_comm_hook(None, lambda _, bucket: slowed(bucket))
    times = []
    for _ in range(12):
        dist.barrier()
        begin = time.perf_counter()
        model(torch.zeros(1, requires_grad=True)).sum().backward()
        times.append(time.perf_counter() - begin)
    if rank == 0:
        results.put(statistics.median(times[2:]))
    dist.destroy_process_group()


def measured(ranks: int, layers: int, size: int, step: float, latency: float) -> float:
    """Seconds of a step of that many gloo ranks; layers of `size` float32 gradients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = multiprocessing.get_context("spawn").SimpleQueue()
    spawn(_rank, (ranks, port, layers, size, step, latency, results), nprocs=ranks)  # type: ignore[no-untyped-call]
    return float(results.get())


def check() -> str:
    """The model beside gloo. Its own bandwidth and latency are taken from runs that compute nothing."""
    lines = ["| ranks | latency, ms | measured, ms | the model's | ratio |", "|---|---|---|---|---|"]
    layers, size, step = 8, 250_000, 0.4
    for ranks in (2, 4):
        small, large = (measured(ranks, 1, n, 0.0, 0.0) for n in (1000, size))
        bandwidth = 2 * (ranks - 1) / ranks * 4 * (size - 1000) / max(large - small, 1e-6)
        own = small / (2 * (ranks - 1))
        for latency in (0.0, 0.005, 0.03):
            cluster = Cluster(
                step=step,
                images=1,
                gradients=4 * size * layers,
                within=bandwidth,
                latency=own + latency,
                bucket=4 * size,
            )
            expected, found = cluster.seconds(ranks)[0], measured(ranks, layers, size, step, latency)
            cells = (f"{1000 * latency:g}", f"{1000 * found:.0f}", f"{1000 * expected:.0f}", f"{found / expected:.2f}")
            lines.append(f"| {ranks} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, help="that a step computes on one GPU")
    parser.add_argument("--images", type=int, default=8, help="of one GPU in a step")
    parser.add_argument("--parameters", type=float, help="of the network")
    parser.add_argument("--bytes", type=float, default=4, help="of a gradient: 4, or 2 with a compressing hook")
    parser.add_argument("--loader", type=float, default=math.inf, help="images a second that a core reads")
    parser.add_argument("--cores", type=int, default=8, help="of a GPU")
    parser.add_argument("--within", type=float, default=200, help="GB/s between the GPUs of a node")
    parser.add_argument("--between", type=float, default=25, help="GB/s of a node's network")
    parser.add_argument("--latency-us", type=float, default=20)
    parser.add_argument("--price", type=float, default=3.0, help="dollars an hour and GPU")
    parser.add_argument("--check", action="store_true", help="compare the model with gloo")
    asked = parser.parse_args()
    if asked.check:
        print(check())
        return
    if asked.step_ms is None or asked.parameters is None:
        parser.error("give --step-ms and --parameters (of debug=profile and metrics.json), or --check")
    cluster = Cluster(
        step=asked.step_ms / 1000, images=asked.images, gradients=asked.bytes * asked.parameters,
        loader=asked.loader * asked.cores, within=asked.within * 1e9, between=asked.between * 1e9,
        latency=asked.latency_us * 1e-6,
    )  # fmt: skip
    print(table(cluster, asked.price))


if __name__ == "__main__":
    main()
