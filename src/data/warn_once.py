"""`warn_once` warns of data that are read all the same."""

from __future__ import annotations

import logging
import os

_log = logging.getLogger(__name__)
_said: set[str] = set()


def warn_once(words: str, kind: str = "") -> None:
    """Warns, unless this process, the one that forked it or the first rank has said it.

    Args:
        kind: what stands for all words of its kind, so that the first are said only.
    """
    key = kind or words
    if key in _said or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    _said.add(key)
    _log.warning("%s", words)
