"""Networks beside one another: parameters, multiplications, time of an image on one thread of this CPU, mIoU of runs.

python benchmarks/latency.py NETWORK … [--size 512 1024] [--runs NETWORK=RUN_DIR …] [--json FILE] [--plot FILE]

A NETWORK is the name of an option of `network=`, and what is changed of it: `pidnet`, "deeplabv3plus network.encoder=resnet18".
Weights are random. Rounds are interleaved, one image of each network in each, so that what slows the machine slows all; the
time is that of the CPU, and the ratio is the median of the rounds' ratios to the first network's. The plot is mIoU against
time where there are runs, and time against multiplications where there are none. What one network costs by
size, batch and runtime says `python -m src.benchmark`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import torch
from torch import nn

from src.cli.command import compose
from src.sharing.cost import counted
from src.training.build import make


@dataclass
class Cost:
    """Of one network.

    Attributes:
        parameters: those that predict, in millions.
        multiplications: of one image, in billions.
        milliseconds: the median of all rounds, CPU time.
        ratio: to the first network's time.
        miou: of the run that is given, on its validation images.
    """

    network: str
    parameters: float
    multiplications: float
    milliseconds: float = 0.0
    ratio: float = 0.0
    miou: float | None = None


def built(network: str, classes: int) -> nn.Module:
    node = compose("train", [f"network={network.split()[0]}", *network.split()[1:]])
    torch.manual_seed(0)
    module: nn.Module = make(node["network"], "network", num_classes=classes, in_channels=3)
    return module.eval().to(memory_format=torch.channels_last)


def measure(networks: list[str], classes: int, size: tuple[int, int], rounds: int) -> list[Cost]:
    torch.set_num_threads(1)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    modules = [built(network, classes) for network in networks]
    counts = [counted(module, 3, size) for module in modules]
    costs = [
        Cost(network, found.parameters / 1e6, found.multiplications / 1e9)
        for network, found in zip(networks, counts, strict=True)
    ]
    image = image.contiguous(memory_format=torch.channels_last)
    times: list[list[float]] = [[] for _ in modules]
    with torch.inference_mode():
        for number in range(rounds + 1):  # the first is slower, and does not count
            for module, own in zip(modules, times, strict=True):
                begun = time.process_time()
                module(image)
                if number:
                    own.append(1000 * (time.process_time() - begun))
    for cost, own in zip(costs, times, strict=True):
        cost.milliseconds = statistics.median(own)
        cost.ratio = statistics.median(a / b for a, b in zip(own, times[0], strict=True))
    return costs


def table(costs: list[Cost]) -> str:
    lines = [
        "| network | parameters, M | multiplications, G | CPU ms | ratio | mIoU |",
        "|---|---|---|---|---|---|",
    ]
    for cost in costs:
        miou = "" if cost.miou is None else f"{cost.miou:.4f}"
        figures = f"{cost.parameters:.1f} | {cost.multiplications:.1f} | {cost.milliseconds:.0f} | {cost.ratio:.2f}"
        lines.append(f"| {cost.network} | {figures} | {miou} |")
    return "\n".join(lines)


def plot(costs: list[Cost], file: Path) -> None:
    """Writes points with names; the file's ending says the format."""
    from matplotlib.figure import Figure

    scored = [(cost.milliseconds, cost.miou, cost.network) for cost in costs if cost.miou is not None]
    points = scored or [(cost.multiplications, cost.milliseconds, cost.network) for cost in costs]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for across, up, name in points:
        axes.plot(across, up, "o", color="teal")
        axes.annotate(name, (across, up), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("CPU ms an image" if scored else "billions of multiplications")
    axes.set_ylabel("mIoU" if scored else "CPU ms an image")
    axes.set_xlim(left=0, right=1.25 * max(across for across, _, _ in points))
    axes.grid(alpha=0.3)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="the first is what the others are compared with")
    parser.add_argument("--size", nargs=2, type=int, default=(512, 1024), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", nargs="*", default=[], metavar="NETWORK=RUN_DIR", help="where their mIoU is read")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--plot", type=Path, help="write a plot there too, .svg or .png")
    given = parser.parse_args()
    runs = dict(run.rsplit("=", 1) for run in given.runs)
    if unknown := runs.keys() - set(given.networks):
        parser.error(f"--runs: {', '.join(sorted(unknown))} is none of the networks")
    costs = measure(given.networks, given.classes, tuple(given.size), given.rounds)
    for cost in costs:
        if cost.network in runs:
            cost.miou = json.loads((Path(runs[cost.network]) / "metrics.json").read_text("utf-8"))["val"]["miou"]
    print(table(costs))
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n", encoding="utf-8")
    if given.plot is not None:
        plot(costs, given.plot)


if __name__ == "__main__":
    main()
