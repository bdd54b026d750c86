"""Are the images that `src.select` proposes worth more than others? On the embedded data, over several seeds.

    python benchmarks/next_labels.py --seeds 1 2 3

A run learns from 16 scenes of 2000. Of the others 400 are looked at, and 16 are chosen: at random, the most uncertain ones, and
uncertain ones that are unlike one another. A new run learns from the 32, by as many steps. Prints val and test mIoU.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

from PIL import Image

from benchmarks.few_labels import _ALL_RUNS, COLORS, ROOT, spread
from src.cli.command import compose
from src.data.sources import Source
from src.training.build import build_data

FIRST, LOOKED_AT, MORE = 16, 400, 16
WAYS = {"random": None, "uncertain": "diverse=false", "uncertain and unlike": "diverse=true"}


def train(run_dir: Path, names: list[str], seed: int) -> tuple[float, float]:
    """val and test mIoU of a run that learns from these scenes; of an earlier start of the benchmark if it completed."""
    if not (run_dir / "metrics.json").is_file():
        run_dir.mkdir(parents=True)
        listed = run_dir / "labeled.txt"
        listed.write_text("".join(f"{name}\n" for name in names))
        run("src.train", *_ALL_RUNS.split(), *COLORS.split(), "data.labeled_fraction=null", f"data.labeled_list={listed}",
            f"seed={seed}", f"hydra.run.dir={run_dir}")  # fmt: skip
    metrics = json.loads((run_dir / "metrics.json").read_text())
    return metrics["val"]["miou"], metrics["test"]["miou"]


def run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: exit status {done.returncode}\n{done.stderr[-2000:]}")


def proposed(source: Source, indices: list[int], first: Path, option: str, folder: Path) -> list[str]:
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    of_file = {}
    for index in indices:
        of_file[f"{index:05}"] = source.name(index)
        file = photos / f"{index:05}.png"
        if not file.is_file():
            Image.fromarray(source.read(index)[0].permute(1, 2, 0).numpy()).save(file)
    output = folder / option
    run("src.select", f"ckpt={first}", f"input={photos}", f"output={output}", f"n={MORE}", "device=cpu", option)
    return [of_file[name] for name in (output / "selected.txt").read_text().split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, default=ROOT / "logs" / "benchmarks" / "next_labels")
    arguments = parser.parse_args()
    source = build_data(compose("train", [])["data"], seed=0).source("train")
    found: dict[str, list[tuple[float, float]]] = {"the first 16": [], **{way: [] for way in WAYS}}
    for seed in arguments.seeds:
        drawn = random.Random(seed).sample(range(len(source)), FIRST + LOOKED_AT)
        names = [source.name(index) for index in drawn[:FIRST]]
        folder = arguments.output.resolve() / str(seed)
        found["the first 16"].append(train(folder / "first", names, seed))
        for way, option in WAYS.items():
            more = (
                [source.name(index) for index in drawn[FIRST : FIRST + MORE]]
                if option is None
                else proposed(source, drawn[FIRST:], folder / "first", option, folder)
            )
            found[way].append(train(folder / way.replace(" ", "_"), names + more, seed))
            print(seed, way, *(f"{score:.4f}" for score in found[way][-1]), flush=True)
    print(
        "| 32 scenes, chosen | val mIoU | test mIoU | to random, seed by seed (val / test) |",
        "|---|---|---|---|",
        sep="\n",
    )
    for way, scores in found.items():
        gains = [spread([a[i] - b[i] for a, b in zip(scores, found["random"], strict=True)]) for i in range(2)]
        print(
            f"| {way} | {spread([s[0] for s in scores])} | {spread([s[1] for s in scores])} | {gains[0]} / {gains[1]} |"
        )


if __name__ == "__main__":
    main()
