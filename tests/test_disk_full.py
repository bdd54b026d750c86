"""A disk that is full ends a run in words, and costs no checkpoint."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from src.errors import UserError, disk_full
from src.files.atomic import write_atomically
from src.storage import run_folder
from src.storage.trust import OWN
from src.train import train
from tests.conftest import settings
from tests.same import state


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing more bytes into a file fails, as it does where a disk or quota is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_counts() -> None:
    folder = Path("run")
    assert disk_full(ValueError(), folder) is None
    assert disk_full(OSError(errno.EACCES, "no"), folder) is None
    chained = RuntimeError("unexpected pos")
    chained.__context__ = OSError(errno.ENOSPC, "No space left on device")
    told = disk_full(chained, folder)
    assert told is not None
    assert str(told).startswith("the disk or quota of run is full; make room")
    assert "resume=run" in str(told)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    write_atomically(file, lambda stream: torch.save({"a": torch.zeros(10)}, stream))
    content = file.read_bytes()
    with files_of_at_most(20_000), pytest.raises((OSError, RuntimeError)) as caught:
        write_atomically(file, lambda stream: torch.save({"a": torch.zeros(100_000)}, stream))
    assert disk_full(caught.value, tmp_path) is not None
    assert file.read_bytes() == content
    assert [f.name for f in tmp_path.iterdir()] == ["a.ckpt"]


class FillsUp(L.Callback):
    """From the second epoch on no file can be larger than 60 kB; a checkpoint is."""

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_run_says_so_and_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    config = settings(tmp_path, "test=false", "+callbacks.fills._target_=tests.test_disk_full.FillsUp")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UserError, match=r"the disk or quota of .* is full"):
            train(config, trust=OWN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    metrics = run_folder.read_metrics(tmp_path)
    assert metrics is not None
    assert metrics["status"] == "failed"
    assert "is full" in metrics["error"]
    assert state(tmp_path)["global_step"] == 6
    assert not list((tmp_path / run_folder.CHECKPOINTS).glob(".*.ckpt.*"))
