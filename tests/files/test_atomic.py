"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from src.files.atomic import replacing, write_atomically
from src.storage import run_folder


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    with pytest.raises(OSError) as caught, replacing(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(file)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    dear, file = tmp_path / "dear", tmp_path / "file"
    dear.write_text("dear")
    file.symlink_to(dear)
    write_atomically(file, lambda stream: stream.writelines([b"new"]))
    assert not file.is_symlink() and file.read_bytes() == b"new"
    assert dear.read_text() == "dear"


def test_files_have_the_rights_that_the_user_gives_new_ones(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "ours", lambda stream: stream.writelines([b""]))
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_writers_find_the_suffix_that_they_go_by(tmp_path: Path) -> None:
    for name, tail in (("a.nii.gz", ".nii.gz"), ("b.png", ".png")):
        with replacing(tmp_path / name) as partial:
            assert partial.name.endswith(tail)
            partial.touch()


def test_what_a_kill_left_is_cleared_from_a_run_folder(tmp_path: Path) -> None:
    with replacing(tmp_path / "checkpoints/last.ckpt", tail="") as half:
        half.touch()
    earlier = tmp_path / ".metrics.json.x1"
    for file in (half, earlier):
        file.touch()
    run_folder.clear(tmp_path, resume=True)
    assert not half.exists() and not earlier.exists()
