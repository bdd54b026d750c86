"""Ranks images by how likely their label is wrong: `python -m src.audit ckpt=RUN|SWEEP_OF_FOLDS [split=val] [data=…]`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field, NonNegativeInt, PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start, task_overrides
from src.config.asked import Asked
from src.config.evaluation import Checkpoints, Evaluation
from src.config.parts import Config, Node, Paths
from src.errors import UserError, of_a_file

if TYPE_CHECKING:
    from src.training.auditing import Part


@dataclass(frozen=True, kw_only=True)
class Audit(Asked):
    """What an audit is told.

    Attributes:
        ckpt: a checkpoint or a run folder, of a list the mean of their probabilities; or the folder of a sweep over folds,
            whose runs each look at what they did not learn from.
        split: whose labels are looked at; None is all that was held out of folds, and val of a run.
        data, trainer, inference, trust: as `src.evaluate` takes them.
        output: a folder.
        n: so many of the most suspicious images are listed for review and drawn.
        threshold: a label of less probability is doubtful.
        smallest: regions of fewer pixels are left out.
    """

    ckpt: Checkpoints
    split: Literal["train", "val", "test"] | None
    data: Node
    trainer: Node
    inference: Node
    output: str
    n: NonNegativeInt
    threshold: Annotated[float, Field(gt=0, le=1)]
    smallest: PositiveInt
    trust: list[str] | None = None

    def check(self) -> None:
        self.evaluation_of(self.ckpt).check()

    def evaluation_of(self, ckpt: Checkpoints) -> Evaluation:
        """The evaluation whose images are looked at."""
        return Evaluation(
            ckpt=ckpt, splits=["val"], data=self.data, trainer=self.trainer, inference=self.inference, trust=self.trust,
            metrics={"of": []}, bootstrap={"samples": 0, "group": None, "seed": 0}, calibrate=False, output=None,
            paths=Paths(output_dir=self.output),
        )  # fmt: skip


def audit(settings: Config | Audit, typed: Collection[str] | None = None) -> Path:
    """Asks models about the labels that they did not learn from, and writes which are likely wrong.

    Args:
        settings: what is told, or the whole config as plain containers.
        typed: the keys that the user typed.

    Returns:
        The folder.

    Raises:
        UserError: a checkpoint or the data is bad, a package is missing, or the folder cannot be written.
    """
    asked = settings if isinstance(settings, Audit) else Audit.of(settings)
    from src.evaluation.label_quality import EXTRA
    from src.optional_packages import needs

    needs("cleanlab.segmentation.rank", EXTRA)
    needs("skimage.measure", EXTRA)
    from src.training import auditing

    runs = auditing.runs_of_folds(Path(asked.ckpt).expanduser()) if isinstance(asked.ckpt, str) else None
    if runs is not None and asked.split not in (None, "test"):
        raise UserError(f"split: {asked.split} is for one run; of folds each run's held-out images are looked at")
    split = asked.split or ("val" if runs is None else "test")

    def parts() -> Iterator[Part]:
        for ckpt in [asked.ckpt] if runs is None else list(map(str, runs)):
            yield auditing.part_of(asked.evaluation_of(ckpt), split, typed)

    labels, found = auditing.qualities(parts(), auditing.Limits(asked.threshold, asked.smallest))
    folder = Path(asked.output).expanduser()
    about = {"checkpoint": asked.ckpt, "split": split, "threshold": asked.threshold, "smallest": asked.smallest}
    try:
        auditing.write(labels, found, asked.n, about, folder)
        if asked.n:
            auditing.draw(parts(), found[: asked.n], folder / "pictures")
    except OSError as error:
        if told := of_a_file(error):
            raise UserError(f"output: {told}") from None
        raise
    doubtful = sum(1 for one in found if one.regions)
    print(f"{doubtful} of {len(found)} images have regions whose label is improbable; the most suspicious first:")
    for one in found[: min(asked.n, 10)]:
        first = one.regions[0] if one.regions else None
        why = (
            f"  {labels.names[first.label]}: {labels.names[first.predicted]}? ({first.pixels} pixels)" if first else ""
        )
        print(f"  {one.score:.3f}  {one.name}{why}")
    print(f"written: {folder}/images.csv, regions.csv, regions.json, review.txt, pictures/")
    return folder


def _task(asked: Audit, _: DictConfig) -> None:
    from src.data.trained_on import typed_keys

    audit(asked, typed_keys(task_overrides()))


if __name__ == "__main__":
    start("audit", _task, Audit.of)
