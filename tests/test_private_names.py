"""Private names of libraries are used in the two modules that are made for it, and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

MADE_FOR_IT = {Path("src/distributed/library_internals.py"), Path("src/config/hydra_internals.py")}
# documented, for all its underscore; and an attribute of ours that a model lends to its encoder
PUBLIC = {"_exit", "_noise_shift"}
_PRIVATE = re.compile(r"_[A-Za-z]\w*")
_SAME = ("self", "cls", "super()")


def defined(tree: ast.AST) -> set[str]:
    """The names that a module gives itself: functions, classes, variables, attributes of its own objects."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in _SAME:
            found.add(node.attr)
    return found


def private_uses(tree: ast.AST, everywhere: set[str]) -> Iterator[tuple[int, str]]:
    """Private names that are no module's own: imported ones, attributes of others, and those that a parent class has.

    Args:
        everywhere: the names that all modules give themselves, of which an object's own class may be any.
    """
    here = defined(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _PRIVATE.fullmatch(node.attr) and node.attr not in PUBLIC:
            if node.attr not in (everywhere if ast.unparse(node.value) in _SAME else here):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = (getattr(node, "module", None) or "").split(".")
            names = [part for alias in node.names for part in alias.name.split(".")]
            if any(map(_PRIVATE.fullmatch, [*module, *names])):
                yield node.lineno, ast.unparse(node)


def test_private_names_stay_in_their_modules() -> None:
    trees = {
        file.relative_to(ROOT): ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "src").rglob("*.py")
    }
    assert set(trees) >= MADE_FOR_IT
    everywhere = {name for tree in trees.values() for name in defined(tree)}
    assert [
        f"{file}:{line}: {what}"
        for file, tree in trees.items() if file not in MADE_FOR_IT for line, what in private_uses(tree, everywhere)
    ] == []  # fmt: skip


@pytest.mark.parametrize("code", [
    "trainer.strategy._timeout = 3", "from hydra._internal import x", "from a import _b", "import torch._dynamo",
    "class A(B):\n    def f(self): return self._layer_sync",
])  # fmt: skip
def test_the_scan_finds(code: str) -> None:
    assert list(private_uses(ast.parse(code), {"_own"})) != []


@pytest.mark.parametrize("module", sorted(MADE_FOR_IT))
def test_each_function_names_a_test_that_is_there(module: Path) -> None:
    tests = ROOT / "tests" / module.relative_to("src").with_name(f"test_{module.name}")
    known = defined(ast.parse(tests.read_text(encoding="utf-8")))
    for node in ast.parse((ROOT / module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            named = re.findall(r"`(test_\w+)`", ast.get_docstring(node) or "")
            assert named and set(named) <= known, node.name
