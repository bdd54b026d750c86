"""The reference says what this version takes: every group, every option, every key, with its type where one is known."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field, PositiveInt

from docs import generate, told
from tests.conftest import ROOT, environment

CONF = ROOT / "conf"


@functools.cache
def made() -> dict[str, str]:
    return generate.pages()


def test_it_is_current() -> None:
    committed = {file.name: file.read_text(encoding="utf-8") for file in generate.OUTPUT.glob("*.md")}
    assert committed == made(), "conf/ or a signature has changed: run python docs/generate.py"


def keys(node: Any, path: str) -> Iterator[str]:
    """Every key below a node, by another way than the generator's."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from keys(value, f"{path}.{key}")
        elif not key.startswith("_"):
            yield f"{path}.{key}"


def folders() -> list[str]:
    """Every folder of conf/ with options, but Hydra's own settings, what options have in common, and the texts of --help."""
    found = {file.parent.relative_to(CONF).as_posix() for file in CONF.rglob("*/*.yaml")}
    return sorted(found - {"hydra", "hydra/base", "hydra/help"})


def test_every_group_has_a_page_and_is_listed() -> None:
    assert sorted(generate.GROUPS) == folders(), "say in docs/generate.py what the group decides"
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for group in folders():
        page = f"{group.replace('/', '-')}.md"
        assert f"({page})" in made()["index.md"]
        assert f"reference/{page}" in nav


@pytest.mark.parametrize("group", folders())
def test_every_option_and_key_of_a_group_is_there(group: str) -> None:
    page = made()[f"{group.replace('/', '-')}.md"]
    options = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    sections = dict(zip(re.findall(r"^## .*=(\w+)$", page, flags=re.MULTILINE),
                        re.split(r"^## .*=\w+$", page, flags=re.MULTILINE)[1:], strict=True))  # fmt: skip
    assert sorted(sections) == options
    for option in options:
        text = (CONF / group / f"{option}.yaml").read_text(encoding="utf-8")
        node = yaml.safe_load(text) or {}
        node.pop("defaults", None)
        if group in generate.WHOLE:
            shown = re.search(r"```yaml\n(.*?)```", sections[option], flags=re.DOTALL)
            assert shown and yaml.safe_load(shown[1]) == (yaml.safe_load(text) or {})
            continue
        prefix = {"hydra/launcher": "launcher", "hydra/sweeper": "sweep"}.get(group, group)
        for key in keys(node, prefix):
            assert f"| `{key}` |" in page, f"{group}={option}: {key}"


def test_every_key_of_a_command_is_there() -> None:
    for file in CONF.glob("*.yaml"):
        (section,) = re.findall(rf"^## src\.{file.stem}\n(.*?)(?=^## |\Z)", made()["commands.md"], flags=re.M | re.S)
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
        node.pop("defaults")
        for key in keys(node, ""):
            assert f"| `{key.lstrip('.')}` |" in section, key


def test_what_our_own_parts_take_is_told() -> None:
    """A key without a type is one of a library's class that nobody has written down."""
    for name in (
        "network",
        "loss",
        "data",
        "model",
        "scheduler",
        "discriminator",
        "tasks",
        "optimizer",
        "hydra-launcher",
    ):
        for row in re.findall(r"^\| `.*$", made()[f"{name}.md"], flags=re.MULTILINE):
            _, key, default, takes, _ = re.split(r"(?<!\\)\|", row, maxsplit=4)
            assert default.strip() and takes.strip(), f"{key}: which values?"


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (PositiveInt, "integer above 0"),
        (Annotated[float, Field(ge=0, le=1)], "number, 0 to 1"),
        (Annotated[float, Field(gt=0, lt=1)] | None, "number, above 0 to below 1 or null"),
        (Annotated[list[PositiveInt], Field(min_length=2, max_length=2)], "list of 2 (integer above 0)"),
        (Annotated[int, Field(ge=64, multiple_of=32)], "integer, 64 or more, a multiple of 32"),
        (Literal["a", "b"] | bool, "`a`, `b` or true or false"),
        (dict[str, float], "keys with values (number)"),
        (Any, ""),
    ],
)
def test_types_in_words(annotation: Any, words: str) -> None:
    assert told.words(annotation) == words


def test_comments_are_found_behind_keys_and_in_the_lines_below() -> None:
    text = 'a: "#1" # first # still\nb:\n  c: 1 # one\n       # and more\n  d: 2\n'
    assert told.comments(text) == {"a": "first # still", "b": "", "b.c": "one and more", "b.d": ""}


@pytest.mark.slow
def test_it_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys; from docs import generate; generate.pages(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), timeout=100).returncode == 0
