"""Memory of loader processes stays flat, however long the list and whatever the epoch."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from src.data.dataset import Samples
from src.data.labels import LabelSet
from src.data.layout.file_list import FileList
from src.data.samplers import TrainingBatches
from src.data.sources import Subset

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


def private_mib() -> float:
    """Memory of this process that it shares with no other, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def watched(batch: list[dict[str, object]]) -> tuple[int, float]:
    """Which worker made a batch, and what it held then."""
    worker = get_worker_info()
    assert worker is not None
    return worker.id, private_mib()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's accounts of memory")
def test_workers_copy_nothing_of_a_million_files() -> None:
    source = Subset(Named(), range(FILES))
    held: dict[int, list[float]] = {0: [], 1: []}
    batches = TrainingBatches(FILES, 250, seed=0)
    loader = DataLoader(
        Samples(source), batch_sampler=batches, num_workers=2, persistent_workers=True, collate_fn=watched
    )
    for epoch in range(3):
        batches.set_epoch(epoch)
        for worker, private in itertools.islice(loader, 400):
            held[worker].append(private)
    for worker, course in held.items():
        first, newest = course[0], np.median(course[-50:])
        # 300,000 lookups, half in each; Python strings of the names alone would be copied page by page: 200 MiB
        assert newest - first < 40, f"worker {worker} grew from {first:.0f} to {newest:.0f} MiB"
