"""The figures of a split as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.files.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write(said: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws what there is of `results`: trimap.png, reliability.png, curves.png.

    Returns:
        The files.

    Raises:
        OSError: they cannot be written.
    """
    files: list[Path] = []
    if (boundary := said.get("boundary")) is not None:
        files.append(_drawn(folder / "trimap.png", lambda axes: _trimap(axes[0], boundary["trimap"])))
    if (probabilities := said.get("calibration")) is not None:
        shown = [*probabilities["at"], *([probabilities["fitted"]] if "fitted" in probabilities else [])]
        files.append(_drawn(folder / "reliability.png", lambda axes: _reliability(axes, shown), len(shown)))
        if (curves := probabilities.get("curves")) is not None:
            files.append(_drawn(folder / "curves.png", lambda axes: _curves(axes, curves), 2))
    return files


def _drawn(file: Path, draw: Any, count: int = 1) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * count, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False)[0]
    draw(list(axes))
    encoded = io.BytesIO()  # in memory first: a full disk is then an error of ours
    figure.savefig(encoded, format="png", dpi=130)
    with replacing(file) as partial:
        partial.write_bytes(encoded.getbuffer())
    return file


def _trimap(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    known = [point for point in points if point["miou"] is not None]
    axes.plot([point["pixels"] for point in known], [point["miou"] for point in known], marker="o")
    axes.set(xlabel="pixels to each side of the truth's boundaries", ylabel="mIoU in that band", ylim=(0, 1))
    axes.grid(alpha=0.3)


def _reliability(axes: Sequence[Axes], shown: Sequence[Mapping[str, Any]]) -> None:
    for one, part in zip(axes, shown, strict=True):
        rows = part["reliability"]
        width = [row["to"] - row["from"] for row in rows]
        one.bar(
            [row["from"] for row in rows], [row["accuracy"] for row in rows], width, align="edge", edgecolor="white"
        )
        one.plot([row["confidence"] for row in rows], [row["accuracy"] for row in rows], "k.", markersize=4)
        one.plot([0, 1], [0, 1], "--", color="gray")
        one.set(xlabel="probability of the predicted class", ylabel="share of pixels that are right", xlim=(0, 1), ylim=(0, 1),
                title=f"temperature {part['temperature']:.3g} (of {part['of']})\nECE {part['ece']:.4f}")  # fmt: skip


def _curves(axes: Sequence[Axes], said: Mapping[str, Any]) -> None:
    points = said["points"]
    axes[0].plot([point["recall"] for point in points], [point["precision"] for point in points])
    axes[0].set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02),
                title=f"average precision {said['average_precision']:.4f}")  # fmt: skip
    for key in ("precision", "recall", "iou", "dice"):
        axes[1].plot([point["threshold"] for point in points], [point[key] for point in points], label=key)
    best = said["best_iou"]
    axes[1].axvline(best["threshold"], color="gray", linestyle="--")
    axes[1].set(xlabel="threshold", xlim=(0, 1), ylim=(0, 1.02),
                title=f"IoU is best at {best['threshold']:.3f}: {best['iou']:.4f}")  # fmt: skip
    axes[1].legend()
