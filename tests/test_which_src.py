"""A working directory with a `src/` of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.cli.command import compose
from src.config.check import check
from src.errors import UserError
from src.which_src import OWN, of_another
from tests.conftest import environment


def test_a_class_of_another_src_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = compose("train", ["network._target_=src.mine.Net"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is no module 'src\.mine'; check the spelling of 'src\.mine\.Net'$"):
        check(settings)
    (tmp_path / "src").mkdir()
    with pytest.raises(
        UserError, match=r"\(src is this program's, .*src, and not .*/src: give your package another name\)"
    ):
        check(settings)
    assert of_another("mine.Net") == ""
    monkeypatch.chdir(OWN.parent)
    assert of_another("src.mine.Net") == ""


def test_ours_runs_beside_another_and_so_do_its_processes(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/__init__.py").touch()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], text=True, capture_output=True, cwd=tmp_path, env=environment(), timeout=100
        )

    for first in ("cli.command", "train", "evaluate", "predict", "export", "report", "compare", "inspect", "optimize"):
        imported = re.findall(
            r"^(?:import|from) (src\b\S*)", (OWN / f"{first.replace('.', '/')}.py").read_text(), re.MULTILINE
        )
        assert imported[0] == "src.which_src"
    mixed = run("-c", f"import src; src.__path__.append({str(OWN)!r}); import src.report")
    assert mixed.returncode == 2 and len(mixed.stderr.splitlines()) == 1
    assert mixed.stderr.startswith(
        f"error: {tmp_path}/src is in the way of this program's own src ({OWN}); start it from"
    )
    ours = run("-P", "-m", "src.train", "x")
    assert (ours.returncode, ours.stderr) == (
        2,
        "error: x: an override is key=value, e.g. seed=1 (--help lists the keys)\n",
    )
    code = (
        "import os; from src.cli.user_errors import report_user_errors; "
        "report_user_errors(lambda: print(os.environ['PYTHONSAFEPATH']))"
    )
    assert run("-P", "-c", code).stdout == "1\n"
