"""Decoded samples on disk: the same samples, shared by processes, never stale, never half-built."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from src.data.disk_cache import OnDisk
from src.data.formats.folder import Folder
from src.data.sources import DerivedSource, Source, Subset
from src.errors import UserError
from src.training.build import build_data
from tests.conftest import settings
from tests.data.formats.test_folder import NAMES, write
from tests.data.test_datamodule import folder_data


@pytest.fixture
def source(tmp_path: Path) -> Folder:
    return Folder("train", str(write(tmp_path / "data", count=5)), NAMES)


class Counting(DerivedSource):
    """A source that remembers what was read of another."""

    def __init__(self, source: Folder) -> None:
        super().__init__(source)
        self.files = source.files
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        self.seen.append(index)
        return self.source.read(index)


def same(one: Source, other: Source) -> bool:
    pairs = zip(map(one.read, range(len(one))), map(other.read, range(len(other))), strict=True)
    return all(a[0].dtype == b[0].dtype and torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def caches(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("samples.bin"))


def test_samples_are_the_same_and_read_once(source: Folder, tmp_path: Path) -> None:
    first, second = Counting(source), Counting(source)
    assert same(OnDisk(first, "options", tmp_path / "cache"), source)
    cached = OnDisk(second, "options", tmp_path / "cache")
    assert same(cached, source) and same(pickle.loads(pickle.dumps(cached)), source)
    assert (sorted(first.seen), second.seen) == ([0, 1, 2, 3, 4], [])
    assert cached.name(2) == source.name(2) and cached.label_set == source.label_set
    cached.read(0)[0].zero_()  # of this process alone
    assert same(OnDisk(source, "options", tmp_path / "cache"), source)


def test_other_options_other_samples_other_caches(source: Folder, tmp_path: Path) -> None:
    for options, chosen in (("a", source), ("b", source), ("a", Subset(source, [0, 2]))):
        assert same(OnDisk(chosen, options, tmp_path / "cache"), chosen)
    assert len(caches(tmp_path / "cache")) == 3


def test_a_changed_file_makes_a_new_cache_and_removes_the_old(source: Folder, tmp_path: Path) -> None:
    old = OnDisk(source, "options", tmp_path / "cache")
    before = old.read(3)[0].clone()
    mask = np.full((24, 32), 2, np.uint8)
    Image.fromarray(mask).save(source.files(3)[1])
    new = OnDisk(source, "options", tmp_path / "cache")
    assert same(new, source) and int(new.read(3)[1].min()) == 2
    assert len(caches(tmp_path / "cache")) == 1
    assert torch.equal(old.read(3)[0], before)  # whoever has it open keeps it


@pytest.mark.parametrize("kept", [0, 1, 37, 24 * 32 * 4, 24 * 32 * 4 * 3 + 100, None])
def test_a_half_built_cache_is_gone_on_with(
    source: Folder, tmp_path: Path, kept: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            OnDisk(source, "options", tmp_path / "cache")
    (part,) = caches(tmp_path / "cache")
    assert part.name.endswith(".part")
    if kept is not None:  # a kill leaves each of the files cut off anywhere
        os.truncate(part / "samples.bin", kept)
        os.truncate(part / "lines.bin", 24 * 4 + 7)
    counting = Counting(source)
    assert same(OnDisk(counting, "options", tmp_path / "cache"), source)
    whole = 4 if kept is None else min(4, (kept or 0) // (24 * 32 * 4))
    assert sorted(counting.seen) == list(range(5 if kept is None else whole, 5))


def _read_all(data: str, cache: str, answers: Any) -> None:
    counting = Counting(Folder("train", data, NAMES))
    cached = OnDisk(counting, "options", Path(cache))
    answers.put((len(counting.seen), [int(cached.read(i)[0].sum()) for i in range(len(cached))]))


def test_of_processes_that_come_together_one_builds(tmp_path: Path) -> None:
    write(tmp_path / "data", count=40)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    given = (str(tmp_path / "data"), str(tmp_path / "cache"), answers)
    processes = [context.Process(target=_read_all, args=given) for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(count for count, _ in found) == [0, 0, 40]
    assert found[0][1] == found[1][1] == found[2][1]


def test_killed_while_building(tmp_path: Path) -> None:
    write(tmp_path / "data", count=300)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_read_all, args=(str(tmp_path / "data"), str(tmp_path / "cache"), context.Queue()))
    process.start()
    while process.is_alive() and not any(file.stat().st_size for file in tmp_path.rglob("*.part/samples.bin")):
        time.sleep(0.001)
    process.kill()
    process.join()
    source = Folder("train", str(tmp_path / "data"), NAMES)
    assert same(OnDisk(source, "options", tmp_path / "cache"), source)


def test_a_full_disk_is_said_and_leaves_nothing_that_would_be_read(
    source: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"data\.cache_dir: the disk of .* is full"):
            OnDisk(source, "options", tmp_path / "cache")
    assert same(OnDisk(source, "options", tmp_path / "cache"), source)


def test_a_bad_file_ends_the_run_with_its_name(source: Folder, tmp_path: Path) -> None:
    source.files(2)[0].write_bytes(b"")
    with pytest.raises(UserError, match=r"02\.png: cannot be read as an image \(it is empty\)"):
        OnDisk(source, "options", tmp_path / "cache")


def test_data_that_is_not_of_files_is_refused(tmp_path: Path) -> None:
    node = settings(tmp_path, "data.cache=disk", f"data.cache_dir={tmp_path}")["data"]
    with pytest.raises(UserError, match=r"data\.cache: disk is for samples that are files"):
        build_data(node, 0).prepare()


@pytest.mark.parametrize("fraction", ["null", "1/3"])
def test_a_run_gets_the_same_batches(tmp_path: Path, fraction: str) -> None:
    given = ["data.num_workers=1", f"data.cache_dir={tmp_path / 'cache'}", f"data.labeled_fraction={fraction}"]
    plain, disk, again = (
        build_data(folder_data(tmp_path, *given, f"data.cache={cache}"), 0, use_unlabeled=fraction != "null")
        for cache in ("null", "disk", "disk")
    )
    for datamodule in (plain, disk, again):
        datamodule.prepare()
    for a, b, c in zip(*(d.train_dataloader() for d in (plain, disk, again)), strict=True):
        assert a.keys() == b.keys() == c.keys()
        assert all(
            torch.equal(a[key], b[key]) and torch.equal(a[key], c[key])
            for key in a
            if key not in ("id", "unlabeled_id")
        )
    assert len(caches(tmp_path / "cache")) == (2 if fraction == "null" else 3)
