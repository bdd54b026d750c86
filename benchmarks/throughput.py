"""Training throughput and memory of recipes for Cityscapes, on synthetic images of its true size (2048 x 1024); for a GPU,
under ten minutes. A folder of random pictures in Cityscapes' layout is written once, and each recipe trains so many steps on it
from random weights; images a second are counted after the first steps, by the run itself.

    python benchmarks/throughput.py --steps 60                                  # all recipes that are named below, in bf16
    python benchmarks/throughput.py --recipes cityscapes_segformer_b0 --steps 20 --precision 32-true
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("cityscapes_*.yaml"))
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # labelIds of the 19 classes


def write_city(root: Path, images: int, height: int, width: int) -> None:
    """Pictures of soft noise, since plain noise takes a decoder longer than a photo does, with masks of large blocks."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(images if split == "train" else 2):
            stem = f"aachen_{number:06d}_000019"
            blocks = rng.integers(0, len(_IDS), (height // 64, width // 64))
            mask = np.array(_IDS, np.uint8)[blocks].repeat(64, axis=0).repeat(64, axis=1)
            small = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
            for folder, suffix, picture in (
                ("leftImg8bit", "leftImg8bit", small.resize((width, height), Image.Resampling.BICUBIC)),
                ("gtFine", "gtFine_labelIds", Image.fromarray(mask)),
            ):
                file = root / folder / split / "aachen" / f"{stem}_{suffix}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(file, compress_level=1)


def measured(recipe: str, root: Path, folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """metrics.json of a short run, or why there is none."""
    run_dir = (folder / recipe).resolve()
    command = [
        sys.executable, "-m", "src.train", f"experiment={recipe}", f"data.root={root}", f"hydra.run.dir={run_dir}",
        f"trainer.max_steps={given.steps}", "trainer.max_epochs=null", "trainer.check_val_every_n_epoch=1000", "test=false",
        f"trainer.precision={given.precision}", "network.encoder_weights=null",
        "scheduler.warmup_steps=0", f"data.num_workers={given.workers}",
        "callbacks.pictures=null", "trainer.limit_val_batches=0", *given.overrides,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {
            "error": next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "?")
        }
    content: dict[str, object] = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--images", type=int, default=32, help="training images that are written")
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 2048], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("logs/throughput"))
    parser.add_argument("overrides", nargs="*", help="behind --: for every run, e.g. data.batch_size=4")
    given = parser.parse_args()
    city = (given.output / "city").resolve()
    if not (city / "gtFine").is_dir():
        write_city(city, given.images, *given.size)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, torch {torch.__version__}, {given.precision}, {given.steps} steps, images {given.size}")
    print(f"{'recipe':34} {'images/s':>9} {'GPU GiB':>8} {'parameters':>11}")
    found: dict[str, object] = {}
    for recipe in given.recipes:
        content = measured(recipe, city, given.output, given)
        found[recipe] = content
        if "error" in content:
            print(f"{recipe:34} {content['error']}")
            continue
        train, memory = content["train"], content["memory"]
        assert isinstance(train, dict) and isinstance(memory, dict)
        speed = train["images_per_second"]
        print(
            f"{recipe:34} {'-' if speed is None else format(speed, '9.2f'):>9} {memory.get('gpu_gib', float('nan')):8.2f} "
            f"{content['parameters']:11,}"
        )
    (given.output / "throughput.json").write_text(
        json.dumps({"device": device, **found}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
