"""Compares two runs image by image: `python -m src.compare a=RUN b=RUN [split=val]` says what may be claimed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import Field, NonNegativeInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.check import check_keys, check_node
from src.config.evaluation import Bootstrap, ChosenData
from src.config.parts import Config, Node, Trainer, filled, types_of
from src.errors import UserError, of_a_file


@dataclass(frozen=True, kw_only=True)
class Where:
    """Keys of `trainer` that bear on the evaluation of a run that has no per-image file."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] | None = None


@dataclass(frozen=True, kw_only=True)
class PairedComparison(Asked):
    """What a comparison is told.

    Attributes:
        a, b: a run folder, an evaluation's, a list of them, or a folder of runs.
        split: on whose images they are compared.
        output: the folder of compare.html and compare.json.
        pictures: so many images that gain the most, and so many that lose the most, are predicted and shown.
        bootstrap: see `Bootstrap`.
        data, trainer, trust: of evaluating a run that has no per-image file, as `src.evaluate` takes them.
    """

    a: str | Annotated[list[str], Field(min_length=1)]
    b: str | Annotated[list[str], Field(min_length=1)]
    split: Literal["val", "test"]
    output: str
    pictures: NonNegativeInt
    bootstrap: Node
    data: Node
    trainer: Node
    trust: list[str] | None = None

    def check(self) -> None:
        check_keys(self.bootstrap, types_of(Bootstrap), "bootstrap")
        if self.resampling.samples < 100:
            raise UserError("bootstrap.samples: a comparison draws 100 data sets or more; 2000 is usual")
        check_keys(self.data, types_of(ChosenData), "data")
        if "_target_" in self.trainer:
            check_node("trainer", self.trainer)
            trainer = Trainer.of(self.trainer)
            if trainer.strategy != "auto" or trainer.devices not in (1, "auto"):
                raise UserError(
                    "trainer: a comparison takes one device; evaluate the runs on several first: python -m src.evaluate "
                    "ckpt=RUN metrics=[classes] trainer=…"
                )
        else:
            check_keys(self.trainer, types_of(Where), "trainer")

    @property
    def resampling(self) -> Bootstrap:
        return filled(Bootstrap, self.bootstrap)

    @property
    def of_evaluation(self) -> dict[str, Any]:
        """What an evaluation of a run is told beside the run."""
        accelerator = self.trainer.get("accelerator")
        where = {"accelerator": accelerator, "precision": None, "devices": 1, "strategy": "auto"}
        return {"data": dict(self.data), "trainer": where, "trust": self.trust}


def compare(settings: Config | PairedComparison) -> None:
    """Compares b with a, prints it, and writes compare.html and compare.json. Runs without a per-image file are evaluated
    first.

    Raises:
        UserError: a run cannot be evaluated, or they were not scored on the same images and classes.
    """
    asked = settings if isinstance(settings, PairedComparison) else PairedComparison.of(settings)
    from src.optional_packages import needs
    from src.reporting import comparison, per_image
    from src.storage.run_folder import write_text

    needs("scipy.stats", "compare")
    boot = asked.resampling
    folders = [
        per_image.runs_of(key, [given] if isinstance(given, str) else given)
        for key, given in (("a", asked.a), ("b", asked.b))
    ]
    if {f.resolve() for f in folders[0]} & {f.resolve() for f in folders[1]}:
        raise UserError("b: is one of the runs of a; name another")
    a, b = (per_image.side(side, [_images(folder, asked) for folder in side]) for side in folders)
    found = per_image.compared(a, b, boot.samples, boot.group, boot.seed)
    seeds = per_image.over_seeds(a, b)
    shown = _pictures(a.folders[0], b.folders[0], comparison.extremes(found, a, asked.pictures), asked)
    output = Path(asked.output).expanduser()
    try:
        write_text(output / "compare.html", comparison.page(a, b, asked.split, found, seeds, shown))
        write_text(output / "compare.json", comparison.as_json(a, b, asked.split, found, seeds))
    except OSError as error:
        if told := of_a_file(error):
            raise UserError(f"output: {told}") from None
        raise
    comparison.show(a, b, asked.split, found, seeds)
    print(f"written: {output / 'compare.html'} and {output / 'compare.json'}")


def _images(folder: Path, asked: PairedComparison) -> Any:
    """Of a run what was counted of its images. torch is imported only where one has to be evaluated."""
    from src.reporting import per_image

    images, _ = per_image.of_folder(folder, asked.split)
    if images is not None:
        return images
    from src.training.comparing import images_of

    return images_of(folder, asked.split, asked.of_evaluation)


def _pictures(a: Path, b: Path, chosen: list[tuple[str, str]], asked: PairedComparison) -> list[tuple[str, str]]:
    """Captions and pictures, as data URIs, of images by name and what is said of them; none where a side is an evaluation's
    folder, which has no checkpoint."""
    from src.reporting.page import inlined
    from src.storage import run_folder

    is_run = all((side / file).is_file() for side, file in ((a, run_folder.CONFIG), (b, run_folder.CONFIG)))
    if not chosen or not is_run or not all((side / run_folder.CHECKPOINTS).is_dir() for side in (a, b)):
        return []
    import io

    from src.training.comparing import pictures_of, side_by_side

    names = [name for name, _ in chosen]
    labels, ours = pictures_of(a, asked.split, names, asked.of_evaluation)
    _, theirs = pictures_of(b, asked.split, names, asked.of_evaluation)
    shown: list[tuple[str, str]] = []
    for (_, caption), (picture, truth, by_a), (_, _, by_b) in zip(chosen, ours, theirs, strict=True):
        stream = io.BytesIO()
        side_by_side(picture, truth, by_a, by_b, labels).save(stream, "PNG")
        if (uri := inlined(stream.getvalue(), 2400)) is not None:
            shown.append((caption, uri))
    return shown


def _task(asked: PairedComparison, _: DictConfig) -> None:
    compare(asked)


if __name__ == "__main__":
    start("compare", _task, PairedComparison.of)
