"""Writes a data set into chunks for `data=streaming`: `python -m src.optimize data=… data.root=… output=DIR`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig
from pydantic import NonNegativeInt, PositiveFloat

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.check import check_node
from src.config.parts import Config, Data
from src.errors import UserError
from src.optional_packages import needs
from src.storage.trust import OWN, STRANGER, Trust

if TYPE_CHECKING:
    from src.data.sources import Source


@dataclass(frozen=True, kw_only=True)
class Conversion(Asked):
    """What a conversion into chunks is told.

    Attributes:
        output: a folder that is not there yet.
        encoding: of the samples; "auto" keeps the images' own files.
        chunk_mb: size of a chunk, in MiB.
        shuffle: whether training samples are written in random order.
        seed: of that order.
    """

    data: Data
    splits: list[Literal["train", "val", "test"]]
    output: str
    encoding: Literal["auto", "png", "raw"]
    chunk_mb: PositiveFloat
    shuffle: bool
    seed: NonNegativeInt

    def check(self) -> None:
        check_node("data", self.data.node)
        for key in ("labeled_fraction", "labeled_list"):
            if self.data.node.get(key) is not None:
                raise UserError(f"data.{key}: is chosen when training, not here; leave it out")


def optimize(settings: Config | Conversion, trust: Trust = STRANGER) -> dict[str, int]:
    """Writes the splits into `output`, which is there whole or not at all.

    Every sample is decoded again and compared before it is written, and every chunk is read again afterwards.

    Args:
        settings: what the conversion is told, or the whole config as plain containers.
        trust: whose settings they are; of the user's own (`OWN`) any class is built.

    Returns:
        The number of samples of each split.

    Raises:
        UserError: a bad config, a bad file, or `output` is there already.
    """
    asked = settings if isinstance(settings, Conversion) else Conversion.of(settings)
    needs("litdata", "streaming")
    from filelock import FileLock

    from src.data.formats.streaming import DESCRIPTION, PARTS
    from src.files.atomic import naming
    from src.training.build import build_data

    output = Path(asked.output).expanduser()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"output: {output} is there already; remove it, or give another folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    lock = partial.with_suffix(".lock")
    with naming(output):
        lock.touch()  # the lock itself would wait for ever where none can be made
    datamodule = build_data(asked.data, seed=0, trust=trust)
    about: dict[str, Any] = {"parts": PARTS, "splits": {}}
    with naming(output), FileLock(lock):
        shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was killed
        try:
            for split in asked.splits:
                source = datamodule.source(split)
                if source.split in about["splits"]:
                    print(f"{split}: the data has no {split} split, {source.split} stands for it")
                    continue
                about |= {"label_set": source.label_set.to_dict(), "channels": source.channels}
                about["intensity"] = list(source.intensity)
                chunks = _write(source, partial / source.split, asked)
                about["splits"][source.split] = {"samples": len(source), "chunks": chunks}
            (partial / DESCRIPTION).write_text(json.dumps(about), encoding="utf-8")
            partial.replace(output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            lock.unlink(missing_ok=True)
    return {split: part["samples"] for split, part in about["splits"].items()}


def _write(source: Source, folder: Path, asked: Conversion) -> dict[str, str]:
    """Writes one split, in threads, with a progress bar on a terminal; the digests of its chunks.

    Raises:
        UserError: a sample cannot be read, or is not what comes back.
    """
    import torch
    from litdata.streaming.writer import BinaryWriter
    from rich.progress import track

    from src.data.formats.chunks import Chunks, digest
    from src.data.formats.sample_bytes import decode, encode
    from src.data.formats.streaming import PARTS
    from src.data.sources import files_of
    from src.data.threads import in_order
    from src.seeding import derive

    order: Sequence[int] = range(len(source))
    if asked.shuffle and source.split == "train":
        generator = torch.Generator().manual_seed(derive(asked.seed, "chunks"))
        order = torch.randperm(len(source), generator=generator).tolist()

    def stored(index: int) -> list[bytes]:
        image, mask = source.read(index)
        files = files_of(source, index)
        encoded = encode(image, mask, asked.encoding, files[0] if files else None)
        again = decode(*encoded, source.channels, source.name(index))
        if not all(torch.equal(a, b) for a, b in zip(again, (image, mask), strict=True)):
            raise UserError(f"{source.name(index)}: does not come back as it was stored; take encoding=raw")
        return [source.name(index).encode(), *encoded]

    folder.mkdir(parents=True)
    writer = BinaryWriter(str(folder), chunk_bytes=int(asked.chunk_mb * 2**20))
    samples = in_order(stored, order)
    shown = track(samples, f"writing {source.split}", len(source), disable=not sys.stdout.isatty())
    for number, sample in enumerate(shown):
        writer.add_item(number, sample)
    writer.done()
    writer.merge()
    digests = {file.name: digest(file) for file in sorted(folder.glob("*.bin"))}
    chunks = Chunks(folder, digests)
    wrong = len(chunks) != len(source) or any(
        chunks.read(number, len(PARTS), only=0)[0].decode() != source.name(index) for number, index in enumerate(order)
    )
    if wrong:
        raise UserError(
            f"output: {folder} does not hold the {len(source)} samples that were written; is the disk all right?"
        )
    return digests


def _task(asked: Conversion, _: DictConfig) -> None:
    counts = optimize(asked, trust=OWN)
    print(f"{', '.join(f'{count} {split}' for split, count in counts.items())} samples in {asked.output}")
    print(f"train with them: python -m src.train data=streaming data.root={asked.output}")


if __name__ == "__main__":
    start("optimize", _task, Conversion.of)
