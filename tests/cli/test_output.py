"""What cannot be printed ends nothing: a reader that has gone, a full disk, an output that was closed from the start."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TextIO

import pytest
import yaml

from src.cli.command import CONFIG_DIR
from src.cli.output import Steady, steady
from src.cli.user_errors import report_user_errors
from src.errors import UserError
from tests.conftest import environment

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")


@contextmanager
def closed_pipe() -> Iterator[TextIO]:
    """A stream whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        yield stream


@contextmanager
def full_disk() -> Iterator[TextIO]:
    with FULL.open("w") as stream:
        yield stream


KINDS = [pytest.param(closed_pipe, errno.EPIPE), pytest.param(full_disk, errno.ENOSPC, marks=needs_full)]


@pytest.mark.parametrize(("kind", "number"), KINDS)
def test_a_stream_that_breaks_is_left(kind: Callable[[], AbstractContextManager[TextIO]], number: int) -> None:
    with kind() as broken:
        out = Steady(broken)
        for _ in range(3):
            print("x" * 100_000, file=out, flush=True)
        assert isinstance(out.lost, OSError) and out.lost.errno == number
        assert not out.isatty()
        broken.write("also from elsewhere")  # and the interpreter's own flush at its end
        broken.flush()


def test_a_stream_without_the_letters_for_it(tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    with file.open("w", encoding="ascii") as stream:
        print("mIoU – 0.5", file=Steady(stream))
    assert file.read_text() == "mIoU \\u2013 0.5\n"


def test_streams_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with steady() as (out, _):
        print("into nothing")
        assert sys.stdout is out and not sys.stdout.isatty()
    assert sys.stdout is None
    print("afterwards", file=out)  # a log's handler may still hold it


def broken_output(monkeypatch: pytest.MonkeyPatch, stream: TextIO, action: Callable[[], None], prints: bool) -> int:
    monkeypatch.setattr(sys, "stdout", stream)
    try:
        report_user_errors(action, only_prints=prints)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def fails() -> None:
    print("something")
    raise UserError("data.root: there is no such folder")


@pytest.mark.parametrize("prints", [True, False])
def test_a_reader_that_has_gone_has_seen_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prints: bool
) -> None:
    with closed_pipe() as pipe:
        assert broken_output(monkeypatch, pipe, lambda: print("x"), prints) == 0
    with closed_pipe() as pipe:
        assert broken_output(monkeypatch, pipe, fails, prints) == 2
    assert capsys.readouterr().err == "error: data.root: there is no such folder\n"


@needs_full
@pytest.mark.parametrize(("prints", "status", "word"), [(True, 1, "error"), (False, 0, "warning")])
def test_another_cause_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prints: bool, status: int, word: str
) -> None:
    def helps() -> None:
        print("x")
        sys.exit(0)

    for action in (lambda: print("x"), helps):
        with full_disk() as stream:
            assert broken_output(monkeypatch, stream, action, prints) == status
        said = capsys.readouterr().err
        assert said.startswith(f"{word}: what was printed is lost, since standard output cannot be written (No space")
        assert len(said.splitlines()) == 1
    with full_disk() as stream:
        assert broken_output(monkeypatch, stream, fails, prints) == 2
    assert capsys.readouterr().err == "error: data.root: there is no such folder\n"


def test_every_command_has_words_of_its_own_for_help() -> None:
    commands = sorted(file.stem for file in CONFIG_DIR.glob("*.yaml"))
    assert "train" in commands
    for command in commands:
        assert f"override hydra/help: {command}" in (CONFIG_DIR / f"{command}.yaml").read_text()
        header = yaml.safe_load((CONFIG_DIR / f"hydra/help/{command}.yaml").read_text())["header"]
        assert "Hydra" not in header
        assert header.count(f".{command} ") >= 2  # examples


@pytest.mark.slow
@pytest.mark.parametrize("command", ["src.train", "src.report"])
def test_help_begins_with_them_and_its_reader_may_go(command: str, tmp_path: Path) -> None:

    line = f"{sys.executable} -m {command} --help | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment(), text=True, capture_output=True, timeout=100
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(("Trains a model", "Compares the runs"))
