"""Files are there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import pytest

from src import run_folder


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    run_folder.write_atomically(file, lambda stream: _put(stream, b"old"))

    def fail(stream: BinaryIO) -> None:
        stream.write(b"half of the n")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        run_folder.write_atomically(file, fail)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_previous_file_outlives_its_replacement(tmp_path: Path) -> None:
    last, previous = tmp_path / "last", tmp_path / "previous"
    run_folder.keep_previous(last, previous)
    assert not previous.exists()
    for content in (b"1", b"2", b"3"):
        run_folder.keep_previous(last, previous)
        run_folder.write_atomically(last, lambda stream, content=content: _put(stream, content))  # type: ignore[misc]
    assert (previous.read_bytes(), last.read_bytes()) == (b"2", b"3")


def test_metrics_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    assert run_folder.read_metrics(tmp_path) is None
    run_folder.write_metrics(tmp_path, {"status": "completed", "val": {"loss": float("nan"), "miou": 0.5}})
    assert json.loads((tmp_path / "metrics.json").read_text())["val"] == {"loss": None, "miou": 0.5}
    assert run_folder.read_metrics(tmp_path) == {"status": "completed", "val": {"loss": None, "miou": 0.5}}


def _put(stream: BinaryIO, content: bytes) -> None:
    stream.write(content)
