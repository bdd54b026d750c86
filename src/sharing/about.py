"""What goes with an exported file: the classes, and what a caller has to know of the images that it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from src.config.settings import Trained
from src.data import trained_on
from src.models.base import Segmenter


def about(model: Segmenter, trained: Trained, size: Sequence[int] | None, argmax: bool) -> dict[str, str]:
    """Texts by key, each JSON: `names`, `colors`, `input`, `output`, `inference` (how the checkpoint predicts whole images),
    `label_set`, `intensity`, `images` (how files were read), and `temperature` of a calibrated checkpoint."""
    labels = model.label_set
    low, high = model.intensity
    told: dict[str, object] = {
        "names": list(labels.names),
        "colors": [list(color) for color in labels.colors],
        "input": {
            "name": "image", "layout": "NCHW", "dtype": "uint8" if (low, high) == (0.0, 255.0) else "float32",
            "channels": model.channels, "range": [low, high], "size": None if size is None else list(size),
        },
        "output": {"name": "labels", "layout": "NHW", "dtype": "uint8"} if argmax else
                  {"name": "logits", "layout": "NCHW", "dtype": "float32"},
        "inference": asdict(model.inference),
        "label_set": labels.to_dict(),
        "intensity": [low, high],
        "images": trained_on.how_read(model.images, trained.dataset.node),
    }  # fmt: skip
    if model.temperature != 1:
        told["temperature"] = model.temperature
    return {key: json.dumps(value) for key, value in told.items()}
