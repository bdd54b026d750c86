"""Texts of strangers in files that spreadsheets open."""

from __future__ import annotations

import math

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # a text that begins so is taken for one


def cell(value: object) -> object:
    """A value for a cell of a CSV file. A text that a spreadsheet takes for a formula, and that is no finite number, stands
    behind an apostrophe."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
