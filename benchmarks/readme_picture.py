"""Makes the README's picture: what a run predicts on the embedded data's test split.

python benchmarks/readme_picture.py --run logs/train/runs/<date>_<time> --output docs/shapes_predictions.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from src.data.formats.shapes import Shapes
from src.inference.drawing import as_picture, colored, errors, legend
from src.storage import checkpoints
from src.training.build import model_from_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="run folder of a run on the embedded data")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    model, _ = model_from_checkpoint(checkpoints.find(arguments.run))
    source, labels = Shapes("test"), model.label_set
    rows = []
    for index in range(3):
        image, mask = source.read(index)
        with torch.inference_mode():
            prediction = model.logits(image[None]).argmax(dim=1)[0].numpy()
        truth = mask.numpy()
        parts = [as_picture(image.numpy(), source.intensity), colored(truth, labels), colored(prediction, labels)]
        rows.append(np.concatenate([*parts, errors(prediction, truth, labels)], axis=1))
    picture = np.kron(np.concatenate(rows), np.ones((2, 2, 1), np.uint8))
    Image.fromarray(np.concatenate([picture, legend(labels, picture.shape[1])])).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
