"""A file that cannot be written or read ends every command in a line with the cause, and nothing half-written is left."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from src import inspect, optimize, report
from src import train as command
from src.cli.command import compose
from src.cli.request import named
from src.cli.user_errors import USER_ERROR_STATUS, report_user_errors
from src.errors import UserError, absent_package, of_a_file
from src.export import export
from src.storage.trust import OWN
from src.train import train
from tests.conftest import settings
from tests.test_disk_full import files_of_at_most

LONG = "a" * 300
WANDB = "lightning.pytorch.loggers.WandbLogger"
DATA = ["data.dataset.train_length=5", "data.dataset.val_length=2", "data.dataset.test_length=2"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(settings(folder, "trainer.max_epochs=1", "~logger", "debug=fast"))
    return folder


def said(capsys: pytest.CaptureFixture[str], action: Callable[[], None]) -> str:
    """What a command that runs `action` says in the end: one line, with the status of a user's mistake."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        report_user_errors(action)
    assert end.value.code == USER_ERROR_STATUS
    line = capsys.readouterr().err
    assert line.startswith("error: ") and len(line.splitlines()) == 1, line
    return line


def writers(run_dir: Path) -> dict[str, Callable[[str], None]]:
    """The commands that write, with what is small in place of what is large."""

    def of(name: str, function: Callable[[Mapping[str, Any]], object], *overrides: str) -> Callable[[str], None]:
        def write(output: str) -> None:
            function(compose(name, [*overrides, f"output={output}"]))

        return write

    return {
        "export": of("export", export, f"ckpt={run_dir}", "format=pt2"),
        "report": of("report", report.report, f"dir={run_dir}"),
        "inspect": of("inspect", inspect.inspect, *DATA),
        "optimize": of("optimize", optimize.optimize, *DATA, "splits=[val]"),
    }


@pytest.mark.parametrize("name", ["export", "report", "inspect", "optimize"])
def test_what_cannot_be_written(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    if name == "optimize":
        pytest.importorskip("litdata")
    write = writers(run_dir)[name]
    (tmp_path / "file").write_text("a file")
    assert "File name too long); give a shorter name" in said(capsys, lambda: write(f"{tmp_path}/{LONG}/x.png"))
    below = said(capsys, lambda: write(f"{tmp_path}/file/x.png"))
    assert "a file stands where a folder should be" in below and f"{tmp_path}/file" in below
    with files_of_at_most(1):
        full = said(capsys, lambda: write(f"{tmp_path}/x.png"))
    assert "(File too large); the disk or quota is full" in full
    assert "cannot be exported" not in full
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == ["file"]


def test_an_export_into_a_folder(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"output: .* is a folder; name a file in it"):
        writers(run_dir)["export"](str(tmp_path))


@pytest.mark.parametrize("key", ["resume", "like", "sweep.resume"])
def test_names_that_are_too_long(key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["train", f"{key}={LONG}"])
    with pytest.raises(SystemExit):
        command.main()
    line = capsys.readouterr().err
    assert line.startswith("error: ") and "File name too long); give a shorter name" in line
    assert len(line) < 300


def test_a_report_of_a_name_that_is_too_long() -> None:
    (argument,) = named([LONG])
    assert argument.startswith("dir=") and LONG in argument
    assert named([f"sort={LONG}"]) == [f"sort={LONG}"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/data/out.png"), "/data/out.png: cannot be read or written"),
        (OSError(errno.EROFS, "Read-only file system", "/data"), "take a folder that you may write to"),
        (OSError(errno.ENOSPC, "No space left on device"), "a file cannot be written (No space left on device)"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x"), "x: cannot be read or written (Disk quota exceeded)"),
        (OSError(errno.ECONNREFUSED, "Connection refused"), None),
        (ValueError("a mistake of the program's"), None),
    ],
)  # fmt: skip
def test_which_errors_are_of_a_file(error: Exception, words: str | None) -> None:
    told = of_a_file(error)
    assert told is None if words is None else words in str(told)


def test_an_error_on_the_way_is_none_of_a_file_unless_the_disk_is_full() -> None:
    mistake = KeyError("a mistake of the program's")
    mistake.__context__ = FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
    assert of_a_file(mistake) is None
    mistake.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert of_a_file(mistake) is not None


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError(
            "Requirement 'wandb>=0.12.10' not met. HINT: Try running `pip install -U 'wandb>=0.12.10'`"
        ),
        ModuleNotFoundError("Module not found: 'wandb'. HINT: Try running `pip install -U 'wandb'`"),
        ModuleNotFoundError("No module named 'wandb.sdk'", name="wandb.sdk"),
    ],
)
def test_a_package_that_is_not_there(error: Exception) -> None:
    told = absent_package(error)
    assert str(told) == "the package wandb is needed for this and is not installed; pip install wandb"
    assert absent_package(ModuleNotFoundError("No module named 'src.x'", name="src.x")) is None


def test_a_logger_whose_package_is_not_there(tmp_path: Path) -> None:
    absent = pytest.MonkeyPatch()
    absent.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", Absent())
    try:
        with pytest.raises(UserError, match="the package wandb is needed for this and is not installed"):
            train(settings(tmp_path, "~logger", f"+logger.wandb._target_={WANDB}"), trust=OWN)
    finally:
        absent.undo()


class Absent:
    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "Requirement 'wandb>=0.12.10' not met."
