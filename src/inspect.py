"""Looks at a whole data set before a run is paid for: `python -m src.inspect data=… data.root=… [output=sheet.png]`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig
from pydantic import PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.cli.user_errors import end_with
from src.config.asked import Asked
from src.config.check import check_node
from src.config.parts import Config, Data
from src.errors import UserError
from src.storage.trust import OWN, STRANGER, Trust

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from src.data.sources import Source

# What is said of a split that is not there at all, where training data are: they can be looked at alone.
_NO_SPLIT = ("is missing; check", "says nothing of val", "No such file", "has no annotations of val", "the same images")
_LISTED = 20  # problems that are printed


@dataclass(frozen=True, kw_only=True)
class Inspection(Asked):
    """What an inspection is told.

    Attributes:
        output: the file of the contact sheet; None writes none.
        samples: of each split on it.
    """

    data: Data
    splits: list[Literal["train", "val", "test"]]
    output: str | None
    samples: PositiveInt

    def check(self) -> None:
        check_node("data", self.data.node)


@dataclass
class Findings:
    """What one split holds.

    Attributes:
        pixels: of each class, int64 [K]; `void` counts those that are ignored.
        images: in how many images each class occurs, int64 [K].
        sizes: height and width of every image that could be read.
        problems: one line each.
    """

    split: str
    count: int
    pixels: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    void: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    dtype: str = ""
    problems: list[str] = field(default_factory=list)


def inspect(settings: Config | Inspection, trust: Trust = STRANGER) -> list[str]:
    """Reads every sample of the splits, prints a table and writes the contact sheet.

    Args:
        settings: the whole config as plain containers.
        trust: whose settings they are; of the user's own (`OWN`) any class is built.

    Returns:
        What is wrong, one line each.

    Raises:
        UserError: a bad config, or a data set that cannot be opened at all.
    """
    asked = settings if isinstance(settings, Inspection) else Inspection.of(settings)
    import numpy as np
    from PIL import Image

    from src.data.mask_check import MasksSeen, nothing_to_learn
    from src.files.atomic import replacing
    from src.training.build import build_data

    datamodule = build_data(asked.data, seed=0, trust=trust)
    problems: list[str] = []
    found: list[Findings] = []
    opened: dict[str, Source] = {}
    for split in asked.splits:
        try:
            source = datamodule.source(split)
        except UserError as error:
            if "train" not in opened or not any(text in str(error) for text in _NO_SPLIT):
                raise
            print(f"{split}: the data has no {split} split ({str(error).split(';')[0]})")
            continue
        if not opened and (tool := getattr(source, "layout", "")):
            print(f"data: {tool}")
        if source.split in opened:
            print(f"{split}: the data has no {split} split, {source.split} stands for it")
            continue
        opened[source.split] = source
        found.append(examine(source))
        problems += found[-1].problems
        if source.split == "train":
            counted = np.zeros(256, np.int64)
            counted[: len(found[-1].pixels)] = found[-1].pixels
            counted[source.label_set.ignore_index] = found[-1].void
            seen = MasksSeen(counted, len(found[-1].sizes))
            if (reason := nothing_to_learn(source.label_set, seen, "training")) is not None:
                problems.append(reason)
    print(table(found, datamodule.label_set.names))
    absent = [name for k, name in enumerate(datamodule.label_set.names) if not any(f.images[k] for f in found)]
    if absent:
        print(f"note: no mask has a pixel of {', '.join(absent)}")
    if asked.output is not None:
        file = Path(asked.output).expanduser()
        with replacing(file) as partial:
            known = partial.suffix.lower() in Image.registered_extensions()
            Image.fromarray(contact_sheet(opened, asked.samples)).save(partial, None if known else "PNG")
        print(f"contact sheet: {file}")
    return problems


def examine(source: Source) -> Findings:
    """Reads every sample of a split in threads, with a progress bar on a terminal; bad ones become problems."""
    import numpy as np
    from rich.progress import track

    from src.data.sources import Overlapping

    labels = source.label_set
    zeros = np.zeros(labels.num_classes, dtype=np.int64)
    findings = Findings(source.split, len(source), zeros.copy(), zeros.copy())

    def read(index: int) -> tuple[tuple[int, int], str, npt.NDArray[np.int64]] | str:
        try:
            image, mask = source.read(index)
        except UserError as error:
            return str(error)
        size = (int(image.shape[-2]), int(image.shape[-1]))
        counts = np.bincount(mask.numpy().ravel(), minlength=256)
        if isinstance(source, Overlapping):
            counts[labels.ignore_index] -= source.margin(index)  # which another sample has
        return (
            size,
            f"{image.shape[0]} x {str(image.dtype).removeprefix('torch.')}",
            counts,
        )

    with ThreadPoolExecutor() as pool:
        results = track(
            pool.map(read, range(len(source))), f"reading {source.split}", len(source), disable=not sys.stdout.isatty()
        )
        for result in results:
            if isinstance(result, str):
                findings.problems.append(result)
                continue
            size, findings.dtype, counts = result
            findings.sizes.append(size)
            findings.pixels += counts[: labels.num_classes]
            findings.images += counts[: labels.num_classes] > 0
            findings.void += int(counts.sum() - counts[: labels.num_classes].sum())
    return findings


def table(found: list[Findings], names: tuple[str, ...]) -> str:
    """Counts, sizes and each class's share of the labelled pixels, a column a split."""
    import io

    from rich.console import Console
    from rich.table import Table

    shown = Table(title="data", title_justify="left")
    shown.add_column("")
    for findings in found:
        shown.add_column(findings.split, justify="right")
    shown.add_row("samples", *(str(f.count) for f in found))
    shown.add_row("unreadable", *(str(len(f.problems)) for f in found))
    shown.add_row("channels", *(f.dtype for f in found))
    shown.add_row("height", *(_range([h for h, _ in f.sizes]) for f in found))
    shown.add_row("width", *(_range([w for _, w in f.sizes]) for f in found))
    shown.add_row("ignored pixels", *(f"{f.void / max(1, f.void + f.pixels.sum()):.1%}" for f in found))
    shown.add_section()
    for k, name in enumerate(names):
        cells = [f"{f.pixels[k] / max(1, f.pixels.sum()):.2%} in {f.images[k]}" if f.images[k] else "–" for f in found]
        shown.add_row(name, *cells)
    console = Console(file=io.StringIO(), width=40 + 26 * len(found))
    console.print(shown)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return f"{str(text).rstrip()}\nclasses: share of the labelled pixels, and in how many images"


def contact_sheet(sources: Mapping[str, Source], samples: int) -> npt.NDArray[np.uint8]:
    """Image beside mask of evenly spread samples of each split, above a legend: uint8 [H, W, 3]."""
    import numpy as np
    from PIL import Image

    from src.inference.drawing import as_picture, colored, legend

    side, across = 160, 6
    tiles = []
    for source in sources.values():
        for index in np.linspace(0, len(source) - 1, min(samples, len(source))).astype(int).tolist():
            try:
                image, mask = source.read(index)
            except UserError:
                continue
            pair = [as_picture(image.numpy(), source.intensity), colored(mask.numpy(), source.label_set)]
            width = max(1, round(side * mask.shape[1] / mask.shape[0]))
            resized = [np.asarray(Image.fromarray(p).resize((width, side), Image.Resampling.NEAREST)) for p in pair]
            tiles.append(np.concatenate(resized, axis=1))
    if not tiles:
        raise UserError("data: no sample could be read for the contact sheet")
    widest = max(tile.shape[1] for tile in tiles) + 6
    across = max(1, min(across, 1920 // widest))
    padded = [np.pad(t, ((3, 3), (0, widest - t.shape[1]), (0, 0)), constant_values=255) for t in tiles]
    padded += [np.full_like(padded[0], 255)] * (-len(padded) % across)
    rows = [np.concatenate(padded[i : i + across], axis=1) for i in range(0, len(padded), across)]
    label_set = next(iter(sources.values())).label_set
    return np.concatenate([*rows, legend(label_set, rows[0].shape[1])], axis=0)


def _range(values: list[int]) -> str:
    if not values:
        return "–"
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _task(asked: Inspection, _: DictConfig) -> None:
    end_with(inspect(asked, trust=OWN), _LISTED)


if __name__ == "__main__":
    start("inspect", _task, Inspection.of)
