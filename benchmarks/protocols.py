"""What a protocol (`inference.*`) gains and costs: one checkpoint scored by several, mIoU and CPU seconds an image.

python benchmarks/protocols.py RUN_DIR --split val [--json FILE]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder, or a checkpoint")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    score(given.run, given.split, PROTOCOLS["whole"])  # what is slow the first time only
    rows = {name: score(given.run, given.split, options) for name, options in PROTOCOLS.items()}
    base = rows["whole"][1]
    print(f"{'protocol':32} {'mIoU':>7} {'CPU time / whole':>17}")
    for name, (miou, seconds) in rows.items():
        print(f"{name:32} {miou:7.4f} {seconds / base:17.2f}")
    if given.json is not None:
        figures = {name: {"miou": miou, "cpu_seconds": seconds} for name, (miou, seconds) in rows.items()}
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
