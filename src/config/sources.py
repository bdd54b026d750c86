"""Finds where a dotted name is defined, in source files alone: nothing is imported."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

DEEPEST = 5  # imports that are followed to find a name
_OWN = Path(__file__).parents[1]


class Module:
    """One source file.

    Attributes:
        body: its statements.
        definitions: the functions and classes at its top, by name.
    """

    def __init__(self, file: Path) -> None:
        self.body = ast.parse(file.read_text(encoding="utf-8")).body
        self.definitions: dict[str, ast.FunctionDef | ast.ClassDef] = {}
        for item in self.body:
            if isinstance(item, ast.FunctionDef | ast.ClassDef):
                self.definitions.setdefault(item.name, item)

    @functools.cached_property
    def imports(self) -> dict[str, tuple[ast.ImportFrom, str]]:
        """By a name that is imported from another module, anywhere in this one: the statement, and the name there."""
        found: dict[str, tuple[ast.ImportFrom, str]] = {}
        for node in _statements(self.body):
            if isinstance(node, ast.ImportFrom):
                for name in node.names:
                    found.setdefault(name.asname or name.name, (node, name.name))
        return found

    @functools.cached_property
    def types(self) -> dict[str, list[ast.Subscript | tuple[Path, str]]]:
        """By a name that may be a type's, `Share = Annotated[…]` say: what the module's top makes of it in turn, its value or
        the file of the module of `src` that it is imported from, and its name there."""
        found: dict[str, list[ast.Subscript | tuple[Path, str]]] = {}
        for node in self.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        found.setdefault(target.id, []).append(node.value)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("src."):
                file, rest = module_file([_OWN], (node.module or "").split(".")[1:])
                if file is not None and not rest:
                    for name in node.names:
                        found.setdefault(name.asname or name.name, []).append((file, name.name))
        return found


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, those at the top first."""
    level = list(body)
    while level:
        yield from level
        blocks = [
            block for node in level for block in (node, *getattr(node, "handlers", ()), *getattr(node, "cases", ()))
        ]
        level = [
            inner for block in blocks for part in ("body", "orelse", "finalbody") for inner in getattr(block, part, ())
        ]


def find(target: str, depth: int) -> tuple[Module, ast.FunctionDef | ast.ClassDef, str] | None:
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
    module = parse(file)
    if rest[0] in module.definitions:
        return module, module.definitions[rest[0]], target
    if depth < DEEPEST and rest[0] in module.imports:
        node, name = module.imports[rest[0]]
        package = parts[: -1 if file.name == "__init__.py" else -2]
        head = package[: len(package) - node.level + 1] if node.level else []
        return find(".".join([*head, *filter(None, [node.module]), name]), depth + 1)
    if parts[0] == "src":
        raise LookupError(f"'{rest[0]}' is not in {file.name}")
    return None


@functools.cache
def parse(file: Path) -> Module:
    return Module(file)


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
