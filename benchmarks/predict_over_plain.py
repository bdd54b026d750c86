"""CPU seconds of `src.predict` over those of a plain loop on the same photos; a row of `table.py`.

The plain loop decodes each photo with Pillow, runs the network on it, and writes the classes as a PNG. Both are told in CPU
seconds of this process, all threads, in turns; what a start of `src.predict` takes, the checkpoint among it, is in its time.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image

from benchmarks.pairs import Pairs, in_turns
from src.cli.command import compose
from src.config.settings import Settings
from src.models.base import Segmenter
from src.predict import predict
from src.storage import checkpoints, run_folder
from src.storage.trust import OWN
from src.train import train
from src.training.build import model_from_checkpoint

SIZE = (512, 768)  # height, width


def short_run(folder: Path, seed: int) -> Path:
    """A run folder of the default network after two steps: what it predicts does not matter here."""
    given = [
        f"seed={seed}", "trainer=cpu", "trainer.max_steps=2", "trainer.max_epochs=null", "test=false",
        "callbacks.pictures=null", "data.dataset.train_length=16", "data.dataset.val_length=1", f"paths.output_dir={folder}",
    ]  # fmt: skip
    config = compose("train", given)
    train(Settings.of(config), trust=OWN)
    assert (folder / run_folder.BEST).is_file() or (folder / run_folder.LAST).is_file()
    return folder


def write_photos(folder: Path, count: int) -> list[Path]:
    """JPEGs of soft noise, which decode as photos do."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    files = [folder / f"{at:03d}.jpg" for at in range(count)]
    for file in files:
        coarse = rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC).save(file, quality=90)
    return files


def predict_over_plain(run_dir: Path, pairs: int, photos: int = 24, batch: int = 4) -> Pairs:
    """Seconds of `src.predict` and of a plain loop over the same photos."""
    model, _ = model_from_checkpoint(checkpoints.find(str(run_dir)))
    with tempfile.TemporaryDirectory() as folder:
        files = write_photos(Path(folder) / "in", photos)
        given = [f"ckpt={run_dir}", f"input={folder}/in", f"output={folder}/out", "device=cpu", "overwrite=true"]
        plain = Path(folder) / "plain"
        plain.mkdir()

        def ours() -> None:
            assert predict(compose("predict", [*given, f"batch_size={batch}"])) == []

        def rival() -> None:
            with torch.inference_mode():
                for first in range(0, len(files), batch):
                    some = files[first : first + batch]
                    images = [_read(file) for file in some]
                    classes = model(torch.stack(images)).argmax(dim=1).byte()
                    for file, one in zip(some, classes, strict=True):
                        _save(one, model, plain / f"{file.stem}.png")

        return in_turns(("src.predict", "a plain loop"), ours, rival, pairs)


def _read(file: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)


def _save(classes: torch.Tensor, model: Segmenter, file: Path) -> None:
    picture = Image.fromarray(classes.numpy())
    picture.putpalette([value for color in model.label_set.colors for value in color])
    picture.save(file)
