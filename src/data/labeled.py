"""Which training samples are labelled: a share that a seed draws, or those that a list names."""

from __future__ import annotations

from pathlib import Path

import torch

from src.config.shares import parse_share
from src.data.sources import Source, Subset
from src.errors import UserError
from src.files.untrusted import read_lines, shown
from src.seeding import derive

_ENDINGS = ("_leftImg8bit",)  # of Cityscapes' images, which published lists name with it


def split_by_label(source: Source, fraction: str | float | None, seed: int, names: str | None) -> tuple[Source, Source]:
    """The labelled samples of a source, and the rest, whose masks nobody looks at.

    Args:
        fraction: the labelled share, e.g. "1/8".
        seed: of the draw.
        names: a file that names the labelled ones, in place of a share.

    Raises:
        UserError: no sample would be labelled, or the file cannot be read or names a sample that is not there.
    """
    chosen = _listed(source, Path(names).expanduser()) if names is not None else _drawn(source, fraction, seed)
    rest = sorted(set(range(len(source))) - set(chosen))
    return Subset(source, sorted(chosen)), Subset(source, rest)


def _drawn(source: Source, fraction: str | float | None, seed: int) -> list[int]:
    share = 1.0 if fraction is None else parse_share(fraction)
    count = round(len(source) * share)
    if count == 0:
        raise UserError(
            f"data.labeled_fraction: {share:.4g} of {len(source)} training samples leaves none labelled; take at least "
            f"1/{len(source)}"
        )
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(derive(seed, "labeled"))).tolist()
    return order[:count]


def _listed(source: Source, file: Path) -> list[int]:
    """A line names a sample, or the file of its image as published lists do (`JPEGImages/2007_000032.jpg SegmentationClass/…`,
    of which the first word counts); empty lines and those that begin with # are skipped."""
    known = {source.name(index): index for index in range(len(source))}
    try:
        lines = read_lines(file)
    except OSError as error:
        raise UserError(
            f"data.labeled_list: {file} cannot be read ({error.strerror or error}); give another file"
        ) from None
    chosen: dict[int, None] = {}
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        index = next((known[name] for name in _names(text) if name in known), None)
        if index is None:
            raise UserError(
                f"data.labeled_list: {file} line {number}: there is no training sample {shown(text, 100)!r}; names are like "
                f"{next(iter(known), '')!r}"
            )
        chosen[index] = None
    if not chosen:
        raise UserError(f"data.labeled_list: {file} names no sample; name one a line")
    return list(chosen)


def _names(line: str) -> list[str]:
    """What a line may mean: itself, its first word, that without its suffix, without its folders."""
    word = line.split()[0].replace("\\", "/")
    path = word.rpartition(".")[0] or word
    stem = path.rpartition("/")[2]
    return [line, word, path, stem, *(stem.removesuffix(ending) for ending in _ENDINGS)]
