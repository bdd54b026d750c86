"""What tells a data set from a changed one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from src.data import fingerprint as of
from src.data.fingerprint import Stopped, fingerprint
from src.data.formats.folder import Folder
from src.data.formats.shapes import Shapes
from src.data.sources import InMemory, Subset
from tests.data.formats.test_folder import NAMES, write


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    write(tmp_path, "val")
    return Folder("val", str(tmp_path), NAMES)


def test_every_file_is_named_from_the_root(folder: Folder, tmp_path: Path) -> None:
    found = fingerprint(folder, str(tmp_path))
    assert set(found.hashed) == {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.png")}
    assert found.files == len(found.hashed) == 2 * len(folder)
    assert found.bytes == sum(size for size, _ in found.hashed.values())


def test_caches_and_subsets_are_of_the_same_data(folder: Folder, tmp_path: Path) -> None:
    assert fingerprint(InMemory(Subset(folder, [0])), str(tmp_path)) == fingerprint(folder, str(tmp_path))


def test_files_elsewhere_are_named_without_their_folder(folder: Folder, tmp_path: Path) -> None:
    found = fingerprint(folder, str(tmp_path / "other"))
    assert all("/" not in name for name in found.hashed)


def test_a_number_hashes_so_many_samples_and_wanted_just_those(tmp_path: Path) -> None:
    source: Any = Shapes("val", val_length=9, height=32, width=32)
    three, everything = fingerprint(source, None, 3), fingerprint(source, None, "all")
    assert len(three.hashed) == 3 and len(everything.hashed) == 9
    assert three.hashed.items() <= everything.hashed.items()
    assert fingerprint(source, None, wanted=three.hashed.keys()).hashed == three.hashed
    assert fingerprint(source, None, 0).hashed == {}


def test_what_is_drawn_stays_drawn_when_samples_come_to_it() -> None:
    sources: list[Any] = [Shapes("val", val_length=n, height=32, width=32) for n in (20, 21)]
    fewer, more = (fingerprint(source, None, 4).hashed for source in sources)
    assert len(fewer.items() & more.items()) >= 3


def test_auto_is_bounded(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of, "_BYTES", 1)
    found = fingerprint(folder, str(tmp_path))
    assert len(found.hashed) == 1 and found.files == 2 * len(folder)


def test_it_can_be_stopped(folder: Folder) -> None:
    with pytest.raises(Stopped):
        fingerprint(folder, None, go_on=lambda: False)


def test_a_file_that_cannot_be_read_is_told_and_a_pipe_is_not_waited_for(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "masks/val/00.png"
    file.unlink()
    os.mkfifo(file)
    (tmp_path / "masks/val/01.png").unlink()
    hashed = fingerprint(folder, str(tmp_path)).hashed
    assert hashed["masks/val/00.png"] == (0, "0" * 64)
    assert hashed["masks/val/01.png"] == (-1, "0" * 64)
