"""Failures of the machine are told in words that mend them."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from src.errors import UserError, out_of_memory
from src.storage import run_folder
from src.storage.trust import OWN
from src.train import train
from tests.conftest import settings


class Kills(L.Callback):
    """Kills a loader's worker, as the system does for want of memory."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            multiprocessing.active_children()[
                0
            ].kill()  # no other child of the process, such as git for provenance.json


def test_a_lost_worker(tmp_path: Path) -> None:
    config = settings(
        tmp_path, "data.num_workers=1", "trainer.max_epochs=50", "+callbacks.kills._target_=tests.test_errors.Kills"
    )
    with pytest.raises(UserError, match=r"a process that loads data was lost \("):
        train(config, trust=OWN)
    metrics = run_folder.read_metrics(tmp_path)
    assert metrics is not None and metrics["status"] == "failed"
    assert f"resume={tmp_path} data.num_workers=" in metrics["error"]


def test_a_full_gpu_is_told_whatever_led_to_it() -> None:
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
        except torch.OutOfMemoryError as error:
            raise RuntimeError("in a hook") from error
    except RuntimeError as error:
        told = out_of_memory(error, Path("run"))
    assert told is not None and "the GPU's memory is full (CUDA out of memory); start anew with a smaller" in str(told)
    assert out_of_memory(RuntimeError("DataLoader is fine"), Path()) is None
