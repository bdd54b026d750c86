"""The files of per-image matrices that runs have, and runs compared by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.errors import UserError
from src.evaluation import matrices, paired
from src.evaluation.matrices import PerImage
from src.evaluation.paired import Compared, OfSeeds
from src.files.untrusted import inside
from src.reporting import read
from src.storage import run_folder


@dataclass(frozen=True)
class Side:
    """Runs that are compared together.

    Attributes:
        folders: of the runs, or of evaluations.
        images: what was counted of each, on the same images.
        seeds: of each run; None where it is not known.
    """

    folders: Sequence[Path]
    images: Sequence[PerImage]
    seeds: Sequence[int | None]

    @property
    def name(self) -> str:
        """What the side is called: its folder, or the folder of its runs and how many there are."""
        if len(self.folders) == 1:
            return self.folders[0].resolve().name
        parents = {folder.resolve().parent.name for folder in self.folders}
        return f"{len(self.folders)} runs in {', '.join(sorted(parents))}"


def runs_of(key: str, given: Sequence[str]) -> list[Path]:
    """The folders that `a=` or `b=` names: runs, evaluations, and the completed runs of folders of these.

    Raises:
        UserError: there is none.
    """
    found: list[Path] = []
    for one in given:
        folder = Path(one).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"{key}: there is no folder {folder}; give a run folder, a list of them, or a sweep's folder"
            )
        if any((folder / name).exists() for name in (run_folder.CHECKPOINTS, run_folder.EVALUATION)):
            found.append(folder)
            continue
        runs = [run.folder for run in read.find(folder) if run.status == "completed"]
        if not runs:
            raise UserError(f"{key}: {folder} is no run, and no completed run is below it; give a run folder")
        found += runs
    if len({folder.resolve() for folder in found}) < len(found):
        raise UserError(f"{key}: names a run twice; give each once")
    return found


def of_folder(folder: Path, split: str) -> tuple[PerImage | None, str]:
    """What a folder has of a split, and else why it has none, in words.

    Raises:
        UserError: its file is damaged.
    """
    try:
        images = matrices.read(inside(folder, f"{run_folder.EVALUATION}/{split}/{matrices.FILE}"))
    except FileNotFoundError:
        return None, "has no per-image file yet"
    best = next((f for f in (run_folder.BEST, run_folder.LAST) if (folder / f).is_file()), None)
    if best is not None and images.about.get("checkpoint") != matrices.sha256(folder / best):
        return None, "was trained on since its per-image file was written"
    return images, ""


def seed_of(folder: Path) -> int | None:
    """The seed of a run; None of what is no run."""
    return read.read(folder, folder.name).seed


def side(folders: Sequence[Path], images: Sequence[PerImage]) -> Side:
    """A side whose images are in the order of its first run's.

    Raises:
        UserError: the runs were not scored on the same images and classes.
    """
    first, *others = images
    names = [str(folder) for folder in folders]
    same = [paired.aligned(first, other, (names[0], name)) for other, name in zip(others, names[1:], strict=True)]
    return Side(folders, [first, *same], [seed_of(folder) for folder in folders])


def compared(a: Side, b: Side, samples: int, group: str | None, seed: int) -> Compared:
    """What b has more than a, over images.

    Raises:
        UserError: they were not scored on the same images and classes.
    """
    first = a.images[0]
    ours = [
        paired.aligned(first, other, (str(a.folders[0]), str(folder)))
        for other, folder in zip(b.images, b.folders, strict=True)
    ]
    return paired.compared(a.images, ours, samples, group, seed)


def over_seeds(a: Side, b: Side) -> OfSeeds | None:
    """What b has more than a, over runs; None where each has one, or where seeds are not known or repeat."""
    scores = []
    for one in (a, b):
        by_seed = {s: miou(run) for s, run in zip(one.seeds, one.images, strict=True) if s is not None}
        if len(by_seed) != len(one.images):
            return None
        scores.append(by_seed)
    return None if max(map(len, scores)) < 2 else paired.of_seeds(*scores)


def miou(run: PerImage) -> float:
    """The mIoU of the data set."""
    from src.evaluation.scores import data_set_miou

    return float(data_set_miou(run.right.sum(0), run.true.sum(0), run.predicted.sum(0)))


def verdict(found: Compared, seeds: OfSeeds | None) -> str:
    """What may be claimed, in a sentence or two."""
    by, p = found.data_set.by, found.data_set.p
    bounds = f"{by.value:+.4f} mIoU (95 % {by.low:+.4f} to {by.high:+.4f}), p = {p:.2g}"
    over = f"{found.groups} {'images' if found.groups == found.images else 'groups of images'}"
    if found.differs:
        said = f"{'b is better' if by.value > 0 else 'a is better'} over {over}: {bounds}."
    else:
        said = f"No difference that {over} could show: {bounds}."
    if seeds is None:
        return f"{said} That is of these checkpoints; what another seed would change, only several runs a side can say."
    if seeds.p is None:
        return f"{said} One of the sides has one seed, so nothing is said over seeds."
    holds = "a difference" if seeds.p < paired.ALPHA else "no difference"
    how = "paired by seed" if seeds.paired else "not paired"
    return f"{said} Over seeds ({how}): {seeds.mean:+.4f}, p = {seeds.p:.2g}, {holds}."
