"""A folder for caches in which a stranger has been: nothing but a cache's own files is removed, read or written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src.data.disk_cache import _LINE, OnDisk
from src.data.formats.folder import Folder
from src.errors import UserError
from tests.data.formats.test_folder import NAMES, write
from tests.data.test_disk_cache import same

STATE = "0123456789abcdef01234567"


@pytest.fixture
def source(tmp_path: Path) -> Folder:
    return Folder("train", str(write(tmp_path / "data", count=3)), NAMES)


@pytest.fixture
def place(source: Folder, tmp_path: Path) -> Path:
    """Of the source's caches, with none in it."""
    OnDisk(source, "x", tmp_path / "cache")
    (place,) = (tmp_path / "cache").iterdir()
    for file in sorted(place.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    return place


def test_only_caches_are_removed(source: Folder, tmp_path: Path, place: Path) -> None:
    dear = tmp_path / "dear"
    for folder in (dear / "sub", place / "photos", place / STATE[::-1], place / f"{STATE}.part" / "sub"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("dear")
    for name in ("samples.bin", "lines.bin"):
        (place / STATE[::-1] / name).touch()
    (place / STATE).symlink_to(dear)
    old = place / STATE.replace("0", "f")
    old.mkdir()
    for name in ("samples.bin", "lines.bin", "about.json"):
        (old / name).touch()
    cached = OnDisk(source, "x", tmp_path / "cache")
    assert same(cached, source) and not old.exists()
    kept = [dear / "sub", place / "photos", place / STATE[::-1], place / f"{STATE}.part/sub"]
    assert all((folder / "file").read_text() == "dear" for folder in kept)
    assert (place / STATE).is_symlink()


def test_no_link_is_followed(source: Folder, tmp_path: Path, place: Path) -> None:
    name = OnDisk(source, "x", tmp_path / "cache")._folder.name
    for file in sorted(place.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    dear = tmp_path / "dear"
    dear.mkdir()
    (dear / "file").write_text("dear")
    for at in (place / "lock", place / name, place / f"{name}.part", place / f"{name}.part/lines.bin", place):
        if at == place:
            place.rename(tmp_path / "moved")
        at.parent.mkdir(exist_ok=True)
        at.symlink_to(dear if "." not in at.name or at.name.endswith(".part") else dear / "file")
        with pytest.raises(UserError, match="is a link"):
            OnDisk(source, "x", tmp_path / "cache")
        at.unlink()
        assert [file.read_text() for file in dear.iterdir()] == ["dear"]
    (tmp_path / "disk").mkdir()
    (tmp_path / "on disk").symlink_to(tmp_path / "disk")  # the folder that was named may be one
    assert same(OnDisk(source, "x", tmp_path / "on disk"), source)


def _line(**changed: int) -> bytes:
    values = {
        "begin": 0,
        "type": 0,
        "channels": 3,
        "height": 8,
        "width": 8,
        "mask_height": 8,
        "mask_width": 8,
    } | changed
    return np.array([tuple(values.values())] * 3, _LINE).tobytes()


LIES = {
    "begins before": _line(begin=-64),
    "begins behind": _line(begin=2**62),
    "of no type": _line(type=99),
    "of a negative type": _line(type=-1),
    "of no size": _line(height=0),
    "of a negative size": _line(height=-8, width=-8),
    "a mask of no size": _line(mask_width=0),
    "a vast mask": _line(mask_height=2**31 - 1, mask_width=2**31 - 1),
    "vast": _line(channels=2**31 - 1, height=2**31 - 1, width=2**31 - 1),
}


@pytest.mark.parametrize("lie", LIES)
def test_lines_that_lie(source: Folder, tmp_path: Path, lie: str) -> None:
    cached = OnDisk(source, "x", tmp_path / "cache")
    (cached._folder / "lines.bin").write_bytes(LIES[lie])
    with pytest.raises(UserError, match="is damaged; remove it"):
        OnDisk(source, "x", tmp_path / "cache").read(1)
    part = cached._folder.rename(cached._folder.with_name(f"{cached._folder.name}.part"))
    (part / "about.json").unlink()
    assert same(OnDisk(source, "x", tmp_path / "cache"), source)  # of a half one nothing is taken that cannot be


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "lines.bin").write_bytes(b"1"),
        lambda folder: (folder / "lines.bin").unlink(),
        lambda folder: os.mkfifo((folder / "samples.bin").rename(folder / "moved").with_name("samples.bin")),
        lambda folder: (
            (folder / "samples.bin").rename(folder / "moved").with_name("samples.bin").symlink_to("/dev/zero")
        ),
    ],
)
def test_files_that_are_none(source: Folder, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(OnDisk(source, "x", tmp_path / "cache")._folder)
    with pytest.raises(UserError, match=r"data\.cache_dir: .* (is damaged|is a pipe|is a link)"):
        OnDisk(source, "x", tmp_path / "cache")
