"""What a protocol (`inference.*`) gains and costs: checkpoints scored by several, mIoU and CPU seconds.

    python benchmarks/protocols.py RUN_DIR … --split val [--only whole "scale 0.75"] [--json FILE] [--plot FILE]

The time is that of an evaluation, reading the images included; the plot is mIoU against it, a line a run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from src.cli.command import compose
from src.evaluate import evaluate

PROTOCOLS = {
    "whole": ["inference=whole"],
    "scale 0.75": ["inference=whole", "inference.scales=[0.75]"],
    "scale 0.5": ["inference=whole", "inference.scales=[0.5]"],
    "whole, flip": ["inference=whole", "inference.flip=true"],
    "windows 256, stride 170": ["inference=window", "inference.window=[256,256]"],
    "windows 256, gaussian": ["inference=window", "inference.window=[256,256]", "inference.blend=gaussian"],
    "scales 0.75, 1, 1.25": ["inference=whole", "inference.scales=[0.75,1,1.25]"],
    "scales 0.75, 1, 1.25, flip": ["inference=whole", "inference.scales=[0.75,1,1.25]", "inference.flip=true"],
    "six scales, flip (multiscale)": ["inference=multiscale"],
}


def score(run: str, split: str, options: list[str]) -> tuple[float, float]:
    """mIoU, and CPU seconds of the evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        config = compose("evaluate", [f"ckpt={run}", f"splits=[{split}]", "data.num_workers=0", *options])
        config["paths"]["output_dir"] = folder
        begun = time.process_time()
        scores = evaluate(config)[split]
        return scores["miou"], time.process_time() - begun


Figures = dict[str, dict[str, tuple[float, float]]]  # mIoU and CPU seconds, by run and protocol


def table(figures: Figures) -> str:
    lines = [f"{'run':24} {'protocol':32} {'mIoU':>7} {'CPU time / the first':>21}"]
    base = next(seconds for rows in figures.values() for _, seconds in rows.values())
    for run, rows in figures.items():
        lines += [f"{run:24} {name:32} {miou:7.4f} {seconds / base:21.2f}" for name, (miou, seconds) in rows.items()]
    return "\n".join(lines)


def plot(figures: Figures, file: Path) -> None:
    """Writes a picture; the file's ending says the format."""
    from matplotlib.figure import Figure

    base = next(seconds for rows in figures.values() for _, seconds in rows.values())
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for run, rows in figures.items():
        points = sorted((seconds / base, miou, name) for name, (miou, seconds) in rows.items())
        axes.plot([across for across, _, _ in points], [up for _, up, _ in points], "o-", label=run)
        for across, up, name in points:
            axes.annotate(name, (across, up), xytext=(6, -10), textcoords="offset points", fontsize=8)
    axes.set_xlabel("CPU time of an evaluation, as a ratio to the first")
    axes.set_ylabel("mIoU")
    last = max(seconds / base for rows in figures.values() for _, seconds in rows.values())
    axes.set_xlim(0, 1.15 * last)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders, or checkpoints")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--only", nargs="+", choices=list(PROTOCOLS), default=list(PROTOCOLS), metavar="PROTOCOL")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--plot", type=Path, help="draw them there too, .svg or .png")
    given = parser.parse_args()
    score(given.runs[0], given.split, PROTOCOLS["whole"])  # what is slow the first time only
    figures = {
        Path(run).name: {name: score(run, given.split, PROTOCOLS[name]) for name in given.only} for run in given.runs
    }
    print(table(figures))
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if given.plot is not None:
        plot(figures, given.plot)


if __name__ == "__main__":
    main()
