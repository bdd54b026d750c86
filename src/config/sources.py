"""Finds where a dotted name is defined, in source files alone: nothing is imported."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

DEEPEST = 5  # imports that are followed to find a name


def find(target: str, depth: int) -> tuple[ast.Module, ast.FunctionDef | ast.ClassDef, str] | None:
    """A function's or class's module and source, and the dotted path where these are, imports followed."""
    parts = target.split(".")
    if len(parts) < 2 or not all(p.isidentifier() for p in parts):
        raise LookupError(f"'{target}' is no dotted path of a class or function")
    try:
        spec = importlib.util.find_spec(parts[0])  # of a top-level name: imports nothing
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise LookupError(
            f"there is no package '{parts[0]}' (if it is yours: start in the folder that it lies in, or with "
            "PYTHONPATH=FOLDER, or pip install it)"
        )
    if spec.submodule_search_locations is None:
        return None
    places = [Path(p) for p in spec.submodule_search_locations]
    file, rest = module_file(places, parts[1:])
    if file is None:
        raise LookupError(f"there is no module '{'.'.join(parts[:-1])}'")
    if len(rest) != 1:
        if rest and parts[0] == "src":
            raise LookupError(f"there is no module '{'.'.join(parts[:-1])}'")
        return None
    tree = parse(file)
    for item in tree.body:
        if isinstance(item, ast.FunctionDef | ast.ClassDef) and item.name == rest[0]:
            return tree, item, target
    if depth < DEEPEST:
        package = parts[: -1 if file.name == "__init__.py" else -2]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for name in node.names:
                    if (name.asname or name.name) == rest[0]:
                        head = package[: len(package) - node.level + 1] if node.level else []
                        return find(".".join([*head, *filter(None, [node.module]), name.name]), depth + 1)
    if parts[0] == "src":
        raise LookupError(f"'{rest[0]}' is not in {file.name}")
    return None


@functools.cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def module_file(places: Sequence[Path], parts: Sequence[str]) -> tuple[Path | None, list[str]]:
    for place in places:
        folder = place
        for i, part in enumerate(parts):
            if (folder / f"{part}.py").is_file():
                return folder / f"{part}.py", list(parts[i + 1 :])
            if (folder / part).is_dir():
                folder = folder / part
                continue
            if (folder / "__init__.py").is_file():
                return folder / "__init__.py", list(parts[i:])
            break
    return None, []
