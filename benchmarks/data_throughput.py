"""Images a second that reach the training loop: ours beside what others use, on the same files and to the same crops.

    python benchmarks/data_throughput.py --root path/to/camvid [--workers 0 2]

Every pipeline reads a photo and its mask, zooms by 0.5 to 2, cuts a random crop, flips half of them, changes the colours
of half of them, and gives uint8 tensors. Rivals: torchvision's reference transforms for segmentation (PIL), albumentations
over OpenCV, mmsegmentation's; one that is not installed is left out and said so. Rounds go through all pipelines in turn;
the figures are medians. CPU time counts what the loader's processes used, so it holds on a machine that does other work.
"""

from __future__ import annotations

import argparse
import functools
import math
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.pairs import Pairs
from src.data.augment.transforms import Augment
from src.data.dataset import Samples
from src.data.disk_cache import OnDisk
from src.data.formats.camvid import CamVid
from src.data.sources import InMemory, Source

SCALE, FLIP, PHOTOMETRIC, STRENGTH, VOID = (0.5, 2.0), 0.5, 0.5, 0.4, 255
Pair = tuple[Tensor, Tensor]
Pipeline = Callable[[int], Pair]


def ours(source: Source, crop: tuple[int, int]) -> Pipeline:
    augment = Augment(list(SCALE), 1.0, FLIP, 0.0, PHOTOMETRIC, STRENGTH, STRENGTH, STRENGTH)
    samples = Samples(source, augment=augment, crop=crop)

    def load(index: int) -> Pair:
        sample = samples[random.randrange(10**6), index]
        return sample["image"], sample["mask"]

    return load


def torchvision_reference(source: CamVid, crop: tuple[int, int]) -> Pipeline:
    """references/segmentation: RandomResize, RandomCrop with padding, flip; then torchvision's ColorJitter."""
    from torchvision import transforms
    from torchvision.transforms import functional as F

    jitter = transforms.ColorJitter(STRENGTH, STRENGTH, STRENGTH)

    def load(index: int) -> Pair:
        image_file, mask_file = source.files(index)
        image, mask = Image.open(image_file).convert("RGB"), Image.open(mask_file)
        size = round(min(image.size) * _zoom())
        image = F.resize(image, size)
        mask = F.resize(mask, size, interpolation=F.InterpolationMode.NEAREST)
        if random.random() < FLIP:
            image, mask = F.hflip(image), F.hflip(mask)
        below, right = max(0, crop[0] - image.size[1]), max(0, crop[1] - image.size[0])
        if below or right:
            image, mask = F.pad(image, [0, 0, right, below]), F.pad(mask, [0, 0, right, below], fill=VOID)
        box = transforms.RandomCrop.get_params(image, crop)
        image, mask = F.crop(image, *box), F.crop(mask, *box)
        if random.random() < PHOTOMETRIC:
            image = jitter(image)
        return F.pil_to_tensor(image), torch.from_numpy(np.array(mask))

    return load


def albumentations_opencv(source: CamVid, crop: tuple[int, int]) -> Pipeline:
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2

    cv2.setNumThreads(0)
    strengths = [(1 - STRENGTH, 1 + STRENGTH)] * 3
    change = A.Compose([
        A.RandomScale((SCALE[0] - 1, SCALE[1] - 1), p=1.0),
        A.PadIfNeeded(*crop, border_mode=cv2.BORDER_CONSTANT, fill_mask=VOID),
        A.RandomCrop(*crop),
        A.HorizontalFlip(p=FLIP),
        A.ColorJitter(*strengths, 0, p=PHOTOMETRIC),
        ToTensorV2(),
    ])  # fmt: skip

    def load(index: int) -> Pair:
        image_file, mask_file = source.files(index)
        image = cv2.imread(str(image_file), cv2.IMREAD_COLOR_RGB)
        changed = change(image=image, mask=cv2.imread(str(mask_file), cv2.IMREAD_UNCHANGED))
        return changed["image"], changed["mask"]

    return load


def mmsegmentation(source: CamVid, crop: tuple[int, int]) -> Pipeline:
    from mmcv.transforms import Compose
    from mmseg.registry import TRANSFORMS  # noqa: F401  (registers)
    from mmseg.utils import register_all_modules

    register_all_modules()
    height, width = Image.open(source.files(0)[0]).size[::-1]
    change = Compose([
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "RandomResize", "scale": (width, height), "ratio_range": SCALE, "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 1.0},
        {"type": "RandomFlip", "prob": FLIP},
        {"type": "RandomApply", "transforms": [{"type": "PhotoMetricDistortion"}], "prob": PHOTOMETRIC},
        {"type": "PackSegInputs"},
    ])  # fmt: skip

    def load(index: int) -> Pair:
        image_file, mask_file = source.files(index)
        given: dict[str, Any] = {
            "img_path": str(image_file), "seg_map_path": str(mask_file), "seg_fields": [], "label_map": None,
            "reduce_zero_label": False,
        }  # fmt: skip
        packed = change(given)
        image, mask = packed["inputs"], packed["data_samples"].gt_sem_seg.data[0]
        below, right = crop[0] - image.shape[1], crop[1] - image.shape[2]  # its preprocessor pads batches on the device
        if below or right:
            image = torch.nn.functional.pad(image, (0, right, 0, below))
            mask = torch.nn.functional.pad(mask, (0, right, 0, below), value=VOID)
        return image, mask

    return load


def _zoom() -> float:
    return math.exp(random.uniform(math.log(SCALE[0]), math.log(SCALE[1])))


class Loaded(Dataset[Pair]):
    def __init__(self, load: Pipeline, count: int) -> None:
        self.load, self.count = load, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Pair:
        return self.load(index)


def epoch(load: Pipeline, count: int, workers: int) -> tuple[float, float]:
    """Wall and CPU seconds of an epoch; processes start before the clock does."""
    order = torch.randperm(count).tolist()
    loader = DataLoader(Loaded(load, count), batch_size=8, sampler=order, num_workers=workers)
    used, wall = _cpu(), time.perf_counter()
    for image, mask in loader:
        assert image.dtype == torch.uint8 and image.shape[-2:] == mask.shape[-2:]
    seconds = time.perf_counter() - wall
    return seconds, _cpu() - used


def _cpu() -> float:
    """Of this process and of those of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def shares(source: CamVid, crop: tuple[int, int], images: int) -> dict[str, float]:
    """Milliseconds of CPU that a sample of ours takes, part by part, each added to those before."""
    off = functools.partial(Augment, max_class_share=1.0)
    kept = InMemory(source)
    steps: dict[str, tuple[Source, Augment]] = {
        "crop": (kept, off(None, flip=0.0)),
        "zoom": (kept, off(list(SCALE), flip=0.0)),
        "flip": (kept, off(list(SCALE), flip=FLIP)),
        "colour": (kept, off(list(SCALE), flip=FLIP, photometric=PHOTOMETRIC)),
        "decode": (source, off(list(SCALE), flip=FLIP, photometric=PHOTOMETRIC)),
    }
    result, before = {}, 0.0
    for name, (of, augment) in steps.items():
        samples = Samples(of, augment=augment, crop=crop)
        begin = time.process_time()
        for index in range(images):
            samples[0, index]
        each = 1000 * (time.process_time() - begin) / images
        result[name], before = each - before, each
    return result


def decoding_over_albumentations(root: str, cached: bool, pairs: int, crop: tuple[int, int] = (256, 320)) -> Pairs:
    """CPU seconds an image, in this process, of our pipeline and of albumentations over OpenCV."""
    source = CamVid("train", root)
    loads = {
        "our pipeline": ours(InMemory(source) if cached else source, crop),
        "albumentations + OpenCV": albumentations_opencv(source, crop),
    }
    count = min(160, len(source))
    found = Pairs("our pipeline", "albumentations + OpenCV")
    for turn in range(pairs + 1):
        mine, theirs = (epoch(load, count, workers=0)[1] / count for load in loads.values())
        if turn:  # the first warms up
            found.add(mine, theirs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="CamVid's folder")
    parser.add_argument("--crop", type=int, nargs=2, default=(256, 320))
    parser.add_argument("--images", type=int, default=160, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source, crop = CamVid("train", arguments.root), (arguments.crop[0], arguments.crop[1])
    count = min(arguments.images, len(source))
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Callable[[], Pipeline]] = {
            "ours": lambda: ours(source, crop),
            "ours, cache=disk": lambda: ours(OnDisk(source, "benchmark", Path(folder)), crop),
            "ours, cache=ram": lambda: ours(InMemory(source), crop),
            "torchvision's reference (PIL)": lambda: torchvision_reference(source, crop),
            "albumentations + OpenCV": lambda: albumentations_opencv(source, crop),
            "mmsegmentation": lambda: mmsegmentation(source, crop),
        }
        pipelines: dict[str, Pipeline] = {}
        for name, make in made.items():
            try:
                pipelines[name] = make()
                pipelines[name](0)
            except ImportError as error:
                pipelines.pop(name, None)
                print(f"{name}: left out, {error}")
        times: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(arguments.rounds):
            for name, load in pipelines.items():
                for workers in arguments.workers:
                    times.setdefault((name, workers), []).append(epoch(load, count, workers))
        print(_table(times, list(pipelines), arguments.workers, count))
        print("\nours, without a cache, milliseconds of CPU a sample: ", end="")
        print(", ".join(f"{name} {ms:.2f}" for name, ms in shares(source, crop, count).items()))


def _table(
    times: dict[tuple[str, int], list[tuple[float, float]]], names: list[str], workers: list[int], count: int
) -> str:
    def rate(name: str, worker: int, which: int) -> float:
        return count / statistics.median(t[which] for t in times[name, worker])

    rivals = [name for name in names if not name.startswith("ours")]
    heads = [
        f"{w} workers, {what}" for w in workers for what in ("images/s", "images a CPU second", "of the best rival")
    ]
    lines = ["| pipeline | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        cells: list[Any] = []
        for worker in workers:
            best = max((rate(rival, worker, 1) for rival in rivals), default=math.nan)
            cells += [rate(name, worker, 0), rate(name, worker, 1), rate(name, worker, 1) / best]
        lines.append(
            "| "
            + " | ".join([name, *(f"{cell:.2f}" if i % 3 == 2 else f"{cell:.0f}" for i, cell in enumerate(cells))])
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
