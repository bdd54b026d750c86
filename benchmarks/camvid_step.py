"""CPU seconds of a training step, ours beside the rival's, in turns so that a noisy machine treats both alike.

Both load, augment, train and step as in their full runs (`experiment=camvid_cnn` and `camvid_rival.py`), images already
in memory. A step of ours goes through the model's own loss and optimizer settings, without Lightning's loop.

    python benchmarks/camvid_step.py --root path/to/camvid
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from benchmarks import camvid_rival as rival
from benchmarks.pairs import Pairs, in_turns
from src.cli.command import compose
from src.config.settings import Settings
from src.data.samplers import TrainingBatches
from src.training.build import build_data, build_model, build_optimization


def ours(root: Path) -> Callable[[], None]:
    """One training step of the recipe."""
    settings = compose("train", ["experiment=camvid_cnn", f"data.root={root}", "data.num_workers=0"])
    datamodule = build_data(settings["data"], seed=0)
    datamodule.prepare(("train",))
    source = datamodule.source("train")
    model = build_model(settings, source.label_set, source.channels, source.intensity).train()
    optimizer, scheduler = build_optimization(Settings.of(settings)).build(model.network, 1.0, total_steps=900)
    loader = datamodule.train_dataloader()
    batches = loader.batch_sampler
    assert isinstance(batches, TrainingBatches)

    def endless() -> Iterator[dict[str, torch.Tensor]]:
        for epoch in range(1000):
            batches.set_epoch(epoch)
            yield from loader

    stream = endless()

    def step() -> None:
        batch = next(stream)
        loss = model.segmentation_loss(model.outputs(batch["image"]), batch["mask"])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        if model.ema is not None:
            model.ema.follow(model.network)

    return step


def theirs(root: Path) -> Callable[[], None]:
    """One training step of the rival."""
    train = rival.read_split(root, "train")
    network = rival.build().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rival.LEARNING_RATE)
    draw = random.Random(0)
    stream = (batch for _ in cycle([0]) for batch in rival.batches(train, draw))

    def step() -> None:
        images, masks = next(stream)
        loss = F.cross_entropy(network(rival.normalise(images)), masks, ignore_index=rival.VOID)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()

    return step


def pairs(root: Path, count: int) -> Pairs:
    """Seconds of a step of the recipe's and of the rival's."""
    return in_turns(("a step of the recipe", "a step of smp's FPN in a plain loop"), ours(root), theirs(root), count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    print(pairs(arguments.root, arguments.rounds).words())


if __name__ == "__main__":
    main()
