"""What is said of a key: the comment behind it in its YAML file, its annotation in words, its line in a docstring."""

from __future__ import annotations

import ast
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf

ROOT = Path(__file__).resolve().parent.parent
_COMMENT = re.compile(r"(?:^|\s)#\s?(.*)$")
_KEY = re.compile(r"^(\s*)([\w.]+):(.*)$")


def heading(text: str) -> str:
    """The comment that a file begins with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def comments(text: str) -> dict[str, str]:
    """What stands behind each key, by the key's path; a comment may go on in the next lines."""
    found: dict[str, str] = {}
    open_keys: list[tuple[int, str]] = []
    last = ""
    for line in text.splitlines():
        match = _KEY.match(line)
        comment = _COMMENT.search(re.sub(r'"[^"]*"', lambda quoted: "_" * len(quoted[0]), line))
        said = line[comment.start(1) :].strip() if comment else ""
        if match:
            indent = len(match[1])
            open_keys = [(i, key) for i, key in open_keys if i < indent] + [(indent, match[2])]
            last = ".".join(key for _, key in open_keys)
            found[last] = said
        elif said and last and line.startswith(" "):
            found[last] = f"{found[last]} {said}".strip()
    return found


def flat(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key below a node, by its path, with its plain value, or with the name of the class that it makes."""
    for key, value in node.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value:
            if "_target_" in value:
                yield where, value["_target_"]
            yield from flat(value, where)
        else:
            yield where, value


def read(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    assert isinstance(content, dict)
    return content


def shown(value: Any) -> str:
    """A value as it is said on the command line."""
    if value == "???":
        return "*must be given*"
    text = (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("\n...\n").strip()
    )
    return f"`{text}`"


def words(kind: Any) -> str:
    """What values an annotation takes; "" where it says nothing."""
    if kind in (None, type(None)):
        return "null"
    simple = {bool: "true or false", int: "integer", float: "number", str: "text", dict: "keys and values"}
    if kind in simple:
        return simple[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    name = getattr(origin, "__name__", "")
    if origin is typing.Annotated:
        return ranged(words(arguments[0]), arguments[1:])
    if origin is typing.Literal:
        return ", ".join(dict.fromkeys(f"`{value}`" for value in arguments))
    if origin in (typing.Union, types.UnionType):
        parts = [words(a) for a in arguments if getattr(a, "__name__", "") not in ("_NeverGiven", "_Unknown")]
        # `int | str` and `str | int` are one type to Python, which gives either's order: the page keeps one of its own
        return " or ".join(sorted({part for part in parts if part}, key=lambda part: (part == "null", part)))
    if origin in (list, tuple) or name in ("Sequence", "Iterable"):
        inner = words(arguments[0]) if arguments else ""
        return f"list ({inner})" if inner else "list"
    if origin is dict or name == "Mapping":
        inner = words(arguments[-1])
        return f"keys with values ({inner})" if inner else "keys and values"
    return ""


def ranged(base: str, limits: tuple[Any, ...]) -> str:
    """A type with the range that its metadata give."""
    known = [part for limit in limits for part in (getattr(limit, "metadata", None) or [limit])]
    low = next((f"{p.ge}" if isinstance(p, Ge) else f"above {p.gt}" for p in known if isinstance(p, Ge | Gt)), "")
    high = next((f"{p.le}" if isinstance(p, Le) else f"below {p.lt}" for p in known if isinstance(p, Le | Lt)), "")
    if low and high:
        base = f"{base}, {low} to {high}"
    elif low:
        base = f"{base} {low}" if low.startswith("above") else f"{base}, {low} or more"
    elif high:
        base = f"{base} {high}" if high.startswith("below") else f"{base}, at most {high}"
    steps = next((f", a multiple of {p.multiple_of}" for p in known if isinstance(p, MultipleOf)), "")
    least = next((p.min_length for p in known if isinstance(p, MinLen)), None)
    most = next((p.max_length for p in known if isinstance(p, MaxLen)), None)
    if least is not None or most is not None:
        count = str(least) if least == most else f"{least or 0} to {most}" if most is not None else f"at least {least}"
        base = base.replace("list", f"list of {count}", 1)
    return base + steps


def definition(target: str) -> ast.ClassDef | ast.FunctionDef | None:
    """The source of one of the program's own parts; None for a library's."""
    module, _, name = target.rpartition(".")
    file = ROOT / f"{module.replace('.', '/')}.py"
    if not target.startswith("src.") or not file.is_file():
        return None
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    return next((n for n in nodes if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name), None)


def described(target: str) -> dict[str, str]:
    """What a part's docstring says of its arguments, and under "" its first sentence."""
    node = definition(target)
    text = (ast.get_docstring(node) or "") if node else ""
    found = {"": " ".join(text.split("\n\n")[0].split())}
    match = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, flags=re.MULTILINE)
    names: list[str] = []
    for line in match[1].splitlines() if match else ():
        if begins := re.match(r"    ([\w, ]+): (.*)", line):
            names = begins[1].split(", ")
            found |= dict.fromkeys(names, begins[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
