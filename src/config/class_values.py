"""Mask values on the command line: `{0: background, 255: crack}` is what people write; a config's keys are text."""

from __future__ import annotations

import re

_VALUES = re.compile(r"(\+{0,2}data\.dataset\.)(values|names)=\{(.*)\}", re.DOTALL)
_ENTRY = re.compile(r"\s*(\d{1,5})\s*:\s*(.+?)\s*", re.DOTALL)


def classes_by_name(override: str) -> str:
    """`data.dataset.values={0: background, 255: crack}` as `{background: 0, crack: 255}`, and `names={0: a, 1: b}` as the list
    `[a,b]`, or as values where the numbers are not 0, 1, 2 …; any other override as it is."""
    found = _VALUES.fullmatch(override)
    entries = [_ENTRY.fullmatch(part) for part in found[3].split(",")] if found else []
    if found is None or not entries or any(entry is None for entry in entries):
        return override
    by_name: dict[str, list[str]] = {}
    for entry in entries:
        assert entry is not None
        if entry[2].isdecimal():  # a class that is called by a number: {5: 7} can be read both ways
            return override
        by_name.setdefault(entry[2], []).append(str(int(entry[1])))
    prefix, key = found[1], found[2]
    if key == "names" and list(by_name.values()) == [[str(k)] for k in range(len(by_name))]:
        return f"{prefix}names=[{','.join(by_name)}]"
    return f"{prefix}values={{{','.join(f'{name}: {_one_or_list(values)}' for name, values in by_name.items())}}}"


def _one_or_list(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"[{','.join(values)}]"
