"""Memory of loader processes stays flat, however long the list and whatever the epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from src.data.dataset import Chosen, Samples
from src.data.file_list import FileList
from src.data.labels import LabelSet
from src.data.samplers import Key, TrainingBatches

FILES = 1_000_000


class Named:
    """A source of a million files, of which the names are read and nothing else."""

    label_set, channels, intensity, split = LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1))), 1, (0.0, 255.0), "train"

    def __init__(self) -> None:
        root = Path("/data")
        self.images = FileList(root, (f"leftImg8bit/train/city/{i:09}_leftImg8bit.png" for i in range(FILES)))
        self.masks = FileList(root, (f"gtFine/train/city/{i:09}_labelIds.png" for i in range(FILES)))

    def __len__(self) -> int:
        return FILES

    def name(self, index: int) -> str:
        return self.images[index]

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        assert self.images.path(index).stem[:9] == self.masks.path(index).stem[:9] == f"{index:09}"
        return torch.zeros(1, 1, 1, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.uint8)


class Watched(Samples):
    def __getitem__(self, key: Key) -> dict[str, object]:  # type: ignore[override]
        sample = super().__getitem__(key)
        return {"worker": get_worker_info().id, "private": private_mib(), "id": sample["id"]}


def private_mib() -> float:
    """Memory of this process that it shares with no other, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's accounts of memory")
def test_workers_copy_nothing_of_a_million_files() -> None:
    source = Chosen(Named(), range(FILES))
    after: dict[tuple[int, int], list[float]] = {}
    batches = TrainingBatches(FILES, 250, seed=0)
    loader = DataLoader(
        Watched(source), batch_sampler=batches, num_workers=2, persistent_workers=True, collate_fn=lambda batch: batch[-1]
    )
    for epoch in range(3):
        batches.set_epoch(epoch)
        for number, last in enumerate(loader):
            if number < 2:  # what each holds once it has begun
                after.setdefault((0, last["worker"]), []).append(last["private"])
            if number == 400:
                break
            after.setdefault((1, last["worker"]), []).append(last["private"])
    for worker in (0, 1):
        first, newest = after[0, worker][0], np.median(after[1, worker][-50:])
        # 300,000 lookups; Python strings for the names alone would be 200 MiB in each worker
        assert newest - first < 40, f"worker {worker} grew from {first:.0f} to {newest:.0f} MiB"
