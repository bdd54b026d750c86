"""CPU seconds of `src.predict` over those of the bare network on the same photos, which a loop has decoded already.

    python benchmarks/predict_throughput.py RUN_DIR [--photos 24] [--size 512 768] [--batch 4]

Both are told in CPU seconds of this process (user and system, all threads), in turns, so that other programs' load counts for
neither; the ratio is the least of each over the repetitions.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image

from src.cli.command import compose
from src.predict import predict
from src.storage import checkpoints
from src.training.build import model_from_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 768))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="of predict, e.g. overlays=false")
    asked = parser.parse_args()
    model, _ = model_from_checkpoint(checkpoints.find(asked.run_dir))
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        photos = []
        (Path(folder) / "in").mkdir()
        for at in range(asked.photos):
            coarse = rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)
            photo = Image.fromarray(coarse).resize(asked.size[::-1], Image.Resampling.BICUBIC)
            photo.save(Path(folder) / f"in/{at:03d}.jpg", quality=90)
            photos.append(torch.from_numpy(np.array(photo)).permute(2, 0, 1))
        seconds: dict[str, list[float]] = {"bare": [], "predict": []}
        for turn in range(asked.repeat + 1):
            begin = time.process_time()
            with torch.inference_mode():
                for first in range(0, len(photos), asked.batch):
                    model(torch.stack(photos[first : first + asked.batch]))
            middle = time.process_time()
            given = [
                f"ckpt={asked.run_dir}",
                f"input={folder}/in",
                f"output={folder}/out",
                "device=cpu",
                "overwrite=true",
            ]
            assert predict(compose("predict", [*given, f"batch_size={asked.batch}", *asked.overrides])) == []
            end = time.process_time()
            if turn:  # the first one warms up
                seconds["bare"].append(middle - begin)
                seconds["predict"].append(end - middle)
    bare, whole = (min(seconds[kind]) for kind in ("bare", "predict"))
    print(f"bare {bare:.2f} s, predict {whole:.2f} s of CPU: {bare / whole:.2f} of the bare network's throughput")


if __name__ == "__main__":
    main()
