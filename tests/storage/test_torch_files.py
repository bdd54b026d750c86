"""A checkpoint is read whole, to the bit, or not at all; and is no larger than it looks."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from src.errors import UserError
from src.storage import torch_files
from tests.same import assert_same

CONTENT: dict[str, Any] = {
    "state_dict": {f"layer{k}.weight": torch.arange(300.0) + k for k in range(4)},
    "epoch": 3,
    "segmenter": {"config": {"name": "text", "numbers": [1, 2.5, None, True]}},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(CONTENT, tmp_path / "good.ckpt")
    return tmp_path / "good.ckpt"


def is_seen_or_harmless(good: bytes, bit: int, file: Path) -> bool:
    """Whether a flipped bit is named (True) or changes nothing that is read (False); anything else fails."""
    content = bytearray(good)
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    try:
        read = torch_files.load(file, f"ckpt: {file}")
    except UserError:
        return True
    assert_same(read, CONTENT)
    return False


def test_a_flipped_bit_is_seen_or_changes_nothing(file: Path) -> None:
    """Sixty over the whole file, most of which hold weights; and each eleventh of the directory at its end, whose bits say
    where and what the members are (flags, sizes, checksums, whether one is a folder)."""
    good, bad = file.read_bytes(), file.with_name("bad.ckpt")
    with zipfile.ZipFile(file) as archive:
        directory = archive.start_dir
    seen = sum(is_seen_or_harmless(good, k * len(good) * 8 // 60, bad) for k in range(60))
    assert seen >= 40  # the others are padding between the members
    assert any(is_seen_or_harmless(good, bit, bad) for bit in range(directory * 8, len(good) * 8, 11))


def test_a_member_that_torch_would_take_for_empty(file: Path) -> None:
    """One bit in the directory makes a member a folder, of which torch reads nothing: its tensor would be anything."""
    good = bytearray(file.read_bytes())
    at = good.rfind(b"PK\x01\x02", 0, good.rfind(b"/data/0"))
    good[at + 38] ^= 0x10
    file.write_bytes(good)
    with pytest.raises(UserError, match="a folder for a member"):
        torch_files.load(file, "ckpt: x")


def repacked(file: Path, compression: int, **more: bytes) -> Path:
    """The same members, packed otherwise."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(file.with_name("new.ckpt"), "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        for name, content in more.items():
            new.writestr(name, content)
    return file.with_name("new.ckpt")


def test_what_would_unpack_to_more_is_refused(file: Path) -> None:
    bomb = repacked(file, zipfile.ZIP_DEFLATED, more=bytes(300 << 20))
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="unpack to more than it is"):
        torch_files.load(bomb, "ckpt: x")
    assert_same(torch_files.load(repacked(file, zipfile.ZIP_STORED), "ckpt: x"), CONTENT)
    with zipfile.ZipFile(bomb, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", b"y")
    with pytest.raises(UserError, match="same name"):
        torch_files.load(bomb, "ckpt: x")


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), bytes(range(256)) * 8])
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"^ckpt: x is damaged or not a checkpoint"):
        torch_files.load(tmp_path / "x.ckpt", "ckpt: x")


def test_a_cut_off_file_and_one_that_is_none(file: Path, tmp_path: Path) -> None:
    good = file.read_bytes()
    for share in (0.1, 0.5, 0.99):
        file.write_bytes(good[: int(share * len(good))])
        with pytest.raises(UserError, match="damaged"):
            torch_files.load(file, "ckpt: x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(file)
    for name in ("pipe", "link"):
        with pytest.raises(UserError, match="refused"):
            torch_files.load(tmp_path / name, "ckpt: x")
    with pytest.raises(FileNotFoundError):
        torch_files.load(tmp_path / "none", "ckpt: x")
