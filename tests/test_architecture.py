"""The rooms of the house: imports run down only, nothing goes in a circle, and what must start fast needs no torch."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

# From the ground up. A room imports its own modules and those of the rooms below it; modules that lie loose in `src/` and are
# no commands are the ground. `sweep` starts runs as processes, so it lies below `training`, which asks it for its trial.
ROOMS = [
    "", "files", "metrics", "config", "distributed", "losses", "data", "tasks", "networks", "optimization", "inference",
    "models", "storage", "provenance", "evaluation", "loggers", "callbacks", "cli", "sweep", "reporting", "training", "sharing",
    "commands",
]  # fmt: skip
COMMANDS = {
    "train", "plan", "evaluate", "compare", "predict", "export", "report", "inspect", "optimize", "verify", "pack", "audit",
    "select", "benchmark", "publish", "demo",
}  # fmt: skip
DOORS = {"api"}  # what `src/__init__.py` opens to Python programs; it stands where the commands do
GROUND = {"errors", "optional_packages", "seeding", "which_src"}


def imports(file: Path, modules: set[str]) -> set[str]:
    """The modules of `src` that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "src":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("src.")}
    return found


def graph() -> dict[str, set[str]]:
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for file in (ROOT / "src").rglob("*.py") if file.name != "__init__.py"
    }  # fmt: skip
    return {module: imports(file, set(files)) & set(files) for module, file in files.items()}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else "commands" if parts[1] in COMMANDS | DOORS else ""


def test_imports_run_down() -> None:
    modules = graph()
    assert len(modules) > 100
    up = [
        f"{module} imports {other}"
        for module, others in modules.items() for other in others
        if room(other) != room(module) and ROOMS.index(room(other)) > ROOMS.index(room(module))
    ]  # fmt: skip
    assert up == []


def test_nothing_goes_in_a_circle() -> None:
    graphlib.TopologicalSorter(graph()).prepare()  # raises CycleError, which names the circle


def test_nobody_imports_a_command() -> None:
    assert [m for m, others in graph().items() for other in others if room(other) == "commands"] == []


def test_what_lies_loose() -> None:
    assert {file.stem for file in (ROOT / "src").glob("*.py")} - {"__init__"} == COMMANDS | DOORS | GROUND


def test_every_room_is_on_the_map() -> None:
    folders = {f.name for f in (ROOT / "src").iterdir() if f.is_dir() and f.name != "__pycache__"}
    assert folders == set(ROOMS) - {"", "commands"}


@pytest.mark.parametrize("modules", [
    [f"src.{name}" for name in sorted(COMMANDS)],
    [m for m in graph() if room(m) in ("", "config", "cli", "reporting")] + ["src.metrics.names", "src.storage.run_folder",
     "src.evaluation.matrices", "src.evaluation.scores", "src.evaluation.paired", "src.storage.run_config",
     "src.storage.trust", "src.sweep.plugins", "src.provenance.code", "src.provenance.differences",
     "src.provenance.surroundings"],
], ids=["commands", "rooms"])  # fmt: skip
def test_what_starts_fast_needs_no_torch(modules: list[str]) -> None:
    code = f"import sys; [__import__(m) for m in {modules}]; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT).returncode == 0
