"""Long lists of files cost their bytes, not objects."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import pytest

from src.data.layout.file_list import FileList


def test_gives_back_what_went_in() -> None:
    names = ["a.png", "", "Straße nach Süden/1 2.png", "\udcff.png", "ü" * 300]
    files = FileList(Path("/root"), names)
    assert [files[i] for i in range(len(files))] == names
    assert files.path(0) == Path("/root/a.png")
    assert [pickle.loads(pickle.dumps(files))[i] for i in range(5)] == names
    for index in (5, -1):
        with pytest.raises(IndexError):
            files[index]
    assert len(FileList(Path(), [])) == 0


def test_keeps_no_object_per_file() -> None:
    gc.collect()
    before = len(gc.get_objects())
    files = FileList(Path("/root"), (f"city/{i:09}_leftImg8bit.png" for i in range(100_000)))
    gc.collect()
    assert len(gc.get_objects()) - before < 50
    assert len(pickle.dumps(files)) < 100_000 * (len("city/000000000_leftImg8bit.png") + 8 + 1)
