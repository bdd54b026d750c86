"""CPU seconds of `src.predict` over those of the bare network on the same photos, which a loop has decoded already.

    python benchmarks/predict_throughput.py RUN_DIR [--photos 24] [--size 512 768] [--batch 4]

Both are told in CPU seconds of this process (user and system, all threads), in turns, so that other programs' load counts for
neither; medians over the repetitions. What a start takes (the checkpoint, the first batch) is measured by itself and taken off.
"""

from __future__ import annotations

import argparse
import statistics
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
        for kind in ("one_batch", "all"):
            (Path(folder) / kind).mkdir()
        for at in range(asked.photos + asked.batch):
            coarse = rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)
            photo = Image.fromarray(coarse).resize(asked.size[::-1], Image.Resampling.BICUBIC)
            photo.save(Path(folder) / f"all/{at:03d}.jpg", quality=90)
            if at < asked.batch:
                photo.save(Path(folder) / f"one_batch/{at:03d}.jpg", quality=90)
            else:
                photos.append(torch.from_numpy(np.array(photo)).permute(2, 0, 1))

        def bare() -> None:
            with torch.inference_mode():
                for first in range(0, len(photos), asked.batch):
                    model(torch.stack(photos[first : first + asked.batch]))

        def predicted(kind: str) -> None:
            given = [f"ckpt={asked.run_dir}", f"input={folder}/{kind}", f"output={folder}/out", "device=cpu",
                     "overwrite=true", f"batch_size={asked.batch}", *asked.overrides]  # fmt: skip
            assert predict(compose("predict", given)) == []

        seconds: dict[str, list[float]] = {"bare": [], "one_batch": [], "all": []}
        for turn in range(asked.repeat + 1):
            for kind, times in seconds.items():
                begin = time.process_time()
                bare() if kind == "bare" else predicted(kind)
                if turn:  # the first one warms up
                    times.append(time.process_time() - begin)
    network, start, whole = (statistics.median(times) for times in seconds.values())
    print(
        f"bare {network:.2f} s of CPU, predict {whole - start:.2f} s for the same {asked.photos} photos after its first batch: "
        f"{network / (whole - start):.2f} of the bare network's throughput; its start and first batch take {start:.2f} s"
    )


if __name__ == "__main__":
    main()
