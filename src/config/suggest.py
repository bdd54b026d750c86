"""What a misspelt word may have been meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(word: str, choices: Iterable[str]) -> str:
    """ ", did you mean …?" of the closest choice, for the end of a message; empty where none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""
