"""What scores are called, in metrics.json, in TensorBoard, as `monitor` and in tables. No torch: config checks read it."""

from __future__ import annotations

import re
from collections.abc import Sequence

DICE_FOREGROUND = "dice_foreground"
# Keys over all classes, and how tables call them.
SCORES = {
    "miou": "mIoU",
    "dice": "Dice (all classes)",
    DICE_FOREGROUND: "Dice (foreground)",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "fw_iou": "frequency-weighted IoU",
    "loss": "loss",
}
_BACKGROUND = ("background", "_background_", "bg")  # what a class is called that stands for everything else


def is_score(key: str) -> bool:
    """Whether a key is that of a score of every run, `iou/<class>` included."""
    return key in SCORES or re.fullmatch(r"iou/.+", key) is not None


def background(names: Sequence[str]) -> int | None:
    """The class that stands for everything else: the one called background (or _background_, bg), in any case of letters;
    None where there is none, as in street scenes, whose classes are all foreground."""
    return next((k for k, name in enumerate(names) if name.lower() in _BACKGROUND), None)


def title(key: str, names: Sequence[str] | None = None) -> str:
    """How a table calls a score; with `names`, the classes, Dice says whether a background is one of them."""
    if key == "dice" and names is not None and background(names) is not None:
        return "Dice (with background)"
    return SCORES.get(key, key.replace("_", " "))


def cannot_be(key: str, names: Sequence[str]) -> str | None:
    """Why data with these classes never have a score, e.g. "iou/car"."""
    kind, _, name = key.partition("/")
    if kind == "iou" and name not in names:
        return f"no class is called {name!r}; classes: {', '.join(names)}"
    if key == DICE_FOREGROUND and background(names) is None:
        return f"no class is called background, so that all are foreground; take dice; classes: {', '.join(names)}"
    return None
