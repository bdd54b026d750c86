"""How many pixels of a split get the same class from an exported ONNX file as from the checkpoint that it was written of?

    python -m src.export ckpt=RUN output=model.onnx "size=[360,480]"
    python benchmarks/exported_labels.py RUN model.onnx [--split val] [data.root=path/to/camvid]

Both see the same images, whole, one at a time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnxruntime
import torch

from src.storage import checkpoints
from src.training.comparing import evaluation_of
from src.training.scoring import open_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("file")
    parser.add_argument("--split", default="val")
    parser.add_argument("data", nargs="*", help="changes of the run's data, e.g. data.root=DIR")
    asked = parser.parse_args()
    data = dict(entry.removeprefix("data.").split("=", 1) for entry in asked.data)
    where = {"accelerator": "cpu", "precision": None, "devices": 1, "strategy": "auto"}
    opened = open_checkpoint(
        evaluation_of(checkpoints.find(asked.run), asked.split, {"data": data, "trainer": where, "trust": None})
    )
    model, source = opened.model.eval(), opened.datamodule.source(asked.split)
    session = onnxruntime.InferenceSession(asked.file, providers=["CPUExecutionProvider"])
    same = pixels = 0
    least = 1.0
    for index in range(len(source)):
        image = source.read(index)[0][None]
        with torch.inference_mode():
            expected = model.logits(image).argmax(1).numpy()
        given = session.run(None, {"image": image.numpy()})[0]
        given = given.argmax(1) if given.ndim == 4 else given
        agree = int(np.count_nonzero(given == expected))
        same, pixels, least = same + agree, pixels + expected.size, min(least, agree / expected.size)
    print(
        f"{asked.split}: {len(source)} images, {pixels} pixels, {pixels - same} differ: "
        f"{same / pixels:.6%} agree, {least:.4%} in the worst image"
    )


if __name__ == "__main__":
    main()
