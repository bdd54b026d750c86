"""Scores as tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from src.data.labels import LabelSet
from src.metrics.names import SCORES, is_of_classes
from src.metrics.names import title as title_of


def score_table(scores: Mapping[str, float], labels: LabelSet, title: str) -> str:
    """IoU of each class, then the scores over all of them; classes that did not occur show a dash."""
    table = Table(title=title, title_justify="left", show_footer=False)
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name in labels.names:
        value = scores.get(f"iou/{name}")
        table.add_row(name, "–" if value is None else f"{value:.4f}")
    table.add_section()
    further = [key for key in scores if not is_of_classes(key)]  # of tasks beside the classes
    for key in (*SCORES, *further):
        if key in scores:
            table.add_row(title_of(key, labels.names), f"{scores[key]:.4f}")
    console = Console(file=io.StringIO(), width=72)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text).rstrip()
