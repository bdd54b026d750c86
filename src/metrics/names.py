"""What scores are called: key, title, direction, and which task has them. No torch: checks, tables and reports read it here.

A run's scores are those over its classes (`SCORES`, `iou/<class>`), those of its tasks (`TASK_SCORES`) and those of the metrics
that a user adds (`metrics.<name>`). In metrics.json they stand below `val` and `test`; in TensorBoard, as `monitor` and as
`optimized_metric` their keys begin with `val/` and `test/`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

DICE_FOREGROUND = "dice_foreground"
TRAIN_LOSS = "train/loss"  # the one score of training that a sweep may be told
_IOU = "iou/"
_BACKGROUND = ("background", "_background_", "bg")  # what a class is called that stands for everything else


@dataclass(frozen=True)
class Score:
    """One number about a split.

    Args:
        key: as in metrics.json.
        title: how tables call it.
        higher_is_better: its direction.
        task: the task that has it; None for the classes.
    """

    key: str
    title: str
    higher_is_better: bool = True
    task: str | None = None


SCORES = {
    score.key: score
    for score in (
        Score("miou", "mIoU"),
        Score("dice", "Dice (all classes)"),
        Score(DICE_FOREGROUND, "Dice (foreground)"),
        Score("pixel_accuracy", "pixel accuracy"),
        Score("mean_accuracy", "mean accuracy"),
        Score("fw_iou", "frequency-weighted IoU"),
        Score("loss", "loss", higher_is_better=False),
    )
}
# Of a task, each score that its metric computes, after the task's name.
TASK_SCORES = {
    score.key: score
    for score in (
        Score("depth_abs_rel", "depth: mean |error| / distance", higher_is_better=False, task="depth"),
        Score("depth_rmse", "depth: root mean squared error", higher_is_better=False, task="depth"),
        Score("depth_delta1", "depth: within 25 %", task="depth"),
        Score("boundary_f1", "boundary F1", task="boundary"),
        Score("boundary_iou", "boundary IoU", task="boundary"),
        Score("label_accuracy", "label accuracy", task="label"),
    )
}


def find(key: str, own: Iterable[str] = ()) -> Score | None:
    """The score of this key; None where no score is called so.

    Args:
        own: names of the metrics that a user added, and, of a user's own task, its name and `_*`.
    """
    if (score := SCORES.get(key) or TASK_SCORES.get(key)) is not None:
        return score
    if key.startswith(_IOU) and key != _IOU:
        return Score(key, f"IoU of {key.removeprefix(_IOU)}")
    is_own = any(fnmatchcase(key.partition("/")[0], name) for name in own)
    return Score(key, key) if is_own else None


def of_run(tasks: Collection[str], own: Iterable[str] = ()) -> list[str]:
    """Keys that a run with these tasks and these metrics of a user's own has, `iou/<class>` for those of the classes."""
    return [*SCORES, f"{_IOU}<class>", *(key for key, score in TASK_SCORES.items() if score.task in tasks), *own]


def is_of_classes(key: str) -> bool:
    """Whether a key is that of a score of every run, `iou/<class>` included."""
    score = find(key)
    return score is not None and score.task is None


def falls(key: str, own_mode: str | None = None) -> bool:
    """Whether a score is better the smaller it is.

    Args:
        key: without its stage.
        own_mode: "min" or "max" as a user said it; counts where the key is none that is known here.
    """
    score = find(key)
    return own_mode == "min" if score is None else not score.higher_is_better


def direction(monitor: str, mode: Literal["min", "max"] | None = None) -> Literal["min", "max"]:
    """Which value of a metric of validation, "val/miou" say, is the best: as said, or else as the metric says."""
    return mode or ("min" if falls(monitor.removeprefix("val/")) else "max")


def better(score: float, best: float | None, mode: Literal["min", "max"]) -> bool:
    """Whether a score beats the best so far, None where there is none."""
    return best is None or (score > best if mode == "max" else score < best)


def background(names: Sequence[str]) -> int | None:
    """The class that stands for everything else: the one called background (or _background_, bg), in any case of letters;
    None where there is none, as in street scenes, whose classes are all foreground."""
    return next((k for k, name in enumerate(names) if name.lower() in _BACKGROUND), None)


def title(key: str, names: Sequence[str] | None = None) -> str:
    """How a table calls a score; with `names`, the classes, Dice says whether a background is one of them."""
    if key == "dice" and names is not None and background(names) is not None:
        return "Dice (with background)"
    score = find(key)
    return key.replace("_", " ") if score is None else score.title


def cannot_be(key: str, names: Sequence[str]) -> str | None:
    """Why data with these classes never have a score, e.g. "iou/car"."""
    kind, _, name = key.partition("/")
    if kind == "iou" and name not in names:
        return f"no class is called {name!r}; classes: {', '.join(names)}"
    if key == DICE_FOREGROUND and background(names) is None:
        return f"no class is called background, so that all are foreground; take dice; classes: {', '.join(names)}"
    return None
