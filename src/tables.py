"""Scores as tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from src.data.labels import LabelSet

_OVERALL = {
    "miou": "mIoU",
    "dice": "Dice",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "fw_iou": "frequency-weighted IoU",
    "loss": "loss",
}


def score_table(scores: Mapping[str, float], labels: LabelSet, title: str) -> str:
    """IoU of each class, then the scores over all of them; classes that did not occur show a dash."""
    table = Table(title=title, title_justify="left", show_footer=False)
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name in labels.names:
        value = scores.get(f"iou/{name}")
        table.add_row(name, "–" if value is None else f"{value:.4f}")
    table.add_section()
    for key, text in _OVERALL.items():
        if key in scores:
            table.add_row(text, f"{scores[key]:.4f}")
    further = [key for key in scores if key not in _OVERALL and not key.startswith("iou/")]
    for key in further:  # of tasks beside the classes
        table.add_row(key.replace("_", " "), f"{scores[key]:.4f}")
    console = Console(file=io.StringIO(), width=72)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text).rstrip()
