"""What people write on the command line, as a config has it: mask values, `{0: background, 255: crack}`, and
`callbacks.swa=true`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from src.files.untrusted import read_yaml
from src.which_src import CONFIG_DIR

_VALUES = re.compile(r"(\+{0,2}data\.dataset\.)(values|names)=\{(.*)\}", re.DOTALL)
_PART = re.compile(r"\+{0,2}(callbacks|logger)\.([a-z_]+)=true")
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


def parts_by_name(overrides: Sequence[str]) -> list[str]:
    """Overrides with `callbacks.swa=true` as the node that the group's option of this name has, before all that is said of its
    keys; the others as they are."""
    found: list[str] = []
    for override in overrides:
        named = _PART.fullmatch(override)
        node = None if named is None else _node_of(named[1], named[2])
        if named is None or node is None:
            found.append(override)
        else:
            key = f"{named[1]}.{named[2]}"
            at = next((i for i, one in enumerate(found) if one.lstrip("+").startswith(f"{key}.")), len(found))
            found.insert(at, f"++{key}={_written(node)}")
    return found


def _node_of(group: str, name: str) -> object:
    file = CONFIG_DIR / group / f"{name}.yaml"
    content = read_yaml(file) if file.is_file() else None
    return content.get(name) if isinstance(content, dict) else None


def _written(value: object) -> str:
    """A plain value in the grammar of overrides, interpolations alive."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}: {_written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"'{value}'" if isinstance(value, str) else str(value)
