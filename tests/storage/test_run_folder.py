"""Files are there whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from src.errors import UserError
from src.files.atomic import write_atomically
from src.storage import run_folder
from tests.conftest import SMALL, environment

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    write_atomically(file, lambda stream: _put(stream, b"old"))

    def fail(stream: BinaryIO) -> None:
        stream.write(b"half of the n")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(file, fail)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_previous_file_outlives_its_replacement(tmp_path: Path) -> None:
    last, previous = tmp_path / "last", tmp_path / "previous"
    run_folder.keep_previous(last, previous)
    assert not previous.exists()
    for content in (b"1", b"2", b"3"):
        run_folder.keep_previous(last, previous)
        write_atomically(last, lambda stream, content=content: _put(stream, content))  # type: ignore[misc]
    assert (previous.read_bytes(), last.read_bytes()) == (b"2", b"3")


def test_metrics_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    assert run_folder.read_metrics(tmp_path) is None
    run_folder.write_metrics(tmp_path, {"status": "completed", "val": {"loss": float("nan"), "miou": 0.5}})
    assert json.loads((tmp_path / "metrics.json").read_text())["val"] == {"loss": None, "miou": 0.5}
    assert run_folder.read_metrics(tmp_path) == {"status": "completed", "val": {"loss": None, "miou": 0.5}}


def test_folders_made_at_once_are_each_ones_own(tmp_path: Path) -> None:
    made = [run_folder.make(tmp_path / "runs/now") for _ in range(3)]
    assert [folder.name for folder in made] == ["now", "now_2", "now_3"]
    assert all(folder.is_dir() for folder in made)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"hydra\.run\.dir: .* cannot be made \("):
        run_folder.make(tmp_path / "file/now")


def test_a_new_try_begins_without_the_curves_of_the_last_one(tmp_path: Path) -> None:
    kept = [run_folder.TENSORBOARD, run_folder.CLASS_COUNTS, run_folder.BEST]
    for resume in (True, False):
        (tmp_path / run_folder.TENSORBOARD).mkdir(exist_ok=True)
        (tmp_path / run_folder.CLASS_COUNTS).touch()
        run_folder.write_metrics(tmp_path, {"status": "failed"})
        (tmp_path / run_folder.CHECKPOINTS).mkdir(exist_ok=True)
        (tmp_path / run_folder.CHECKPOINTS / ".last.ckpt.half").touch()
        (tmp_path / run_folder.BEST).touch()
        run_folder.clear(tmp_path, resume)
        assert not (tmp_path / run_folder.METRICS).exists()
        assert not list((tmp_path / run_folder.CHECKPOINTS).glob(".*"))
        assert [(tmp_path / name).exists() for name in kept] == [resume] * 3


def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is the living process's, not its children's, and ends with it however it ends."""
    code = (
        "import os, sys, time; from pathlib import Path; from src.storage import run_folder\n"
        f"with run_folder.locked(Path({str(tmp_path)!r})):\n"
        "    if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "    print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, start_new_session=True
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"in\n"
        monkeypatch.setattr(run_folder, "_SECONDS_TO_END", 0.5)
        with (
            pytest.raises(UserError, match=f"process {other.pid} on .* is at work in this folder"),
            run_folder.locked(tmp_path),
        ):
            pass
        other.kill()
        other.wait()
        with run_folder.locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / "checkpoints/.lock").read_text()
    finally:
        os.killpg(other.pid, 9)


@pytest.mark.slow
def test_a_new_run_takes_no_other_ones_folder(run: Run, tmp_path: Path) -> None:
    small = [*SMALL, "trainer.max_epochs=1", "test=false", "~logger"]
    first = run("src.train", *small, f"hydra.run.dir={tmp_path}/run")
    assert first.returncode == 0, first.stderr
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    second = run("src.train", *small, "optimizer.lr=0.5", f"hydra.run.dir={tmp_path}/run")
    assert second.returncode == 2
    assert f"{tmp_path}/run holds a run already; go on with it (python -m src.train resume=" in second.stderr
    assert before == {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}


def _put(stream: BinaryIO, content: bytes) -> None:
    stream.write(content)
