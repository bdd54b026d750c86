"""What an evaluation is told, typed: the keys of `src.evaluate`, some of which `src.compare` takes too. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from src.config.asked import Asked
from src.config.check import check_inference, check_keys, check_node
from src.config.parts import Accelerator, Data, Devices, Node, Paths, Precision, Strategy, Trainer, filled, types_of
from src.errors import UserError

Checkpoints = str | Annotated[list[str], Field(min_length=1)]
Word = Literal["classes", "boundary", "calibration", "cases", "images"]


@dataclass(frozen=True, kw_only=True)
class ChosenData:
    """What may be changed of the data that a checkpoint was trained on."""

    root: str | None = None
    eval_batch_size: PositiveInt | None = None
    num_workers: NonNegativeInt | None = None
    cache: Literal["ram", "disk"] | None = None
    cache_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class Where:
    """Keys of `trainer` where no option of it is chosen."""

    accelerator: Accelerator | None = None
    precision: Precision | None = None
    devices: Devices | None = 1
    strategy: Strategy | None = "auto"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured beside the scores of metrics.json.

    Attributes:
        of: "classes" (precision, recall, both means, their intervals), "boundary", "calibration", "cases" (overlaps and
            distances of each volume or image), "images" (pictures of the worst and the most typical ones). Any of them writes
            the file of per-image matrices.
        boundary_ratio: thickness of boundary IoU's boundary, of an image's diagonal.
        widths: of the bands of trimap curves, in pixels to each side.
        bins: of reliability diagrams.
        tolerance: of surface Dice, in mm, or pixels of an image.
        pictures: so many of the worst and so many of the most typical images.
    """

    of: list[Word]
    boundary_ratio: Annotated[float, Field(gt=0, le=0.5)] = 0.02
    widths: Annotated[list[PositiveInt], Field(min_length=1, max_length=64)] = field(default_factory=lambda: [1])
    bins: Annotated[int, Field(ge=2, le=1000)] = 15
    tolerance: PositiveFloat = 2.0
    pictures: PositiveInt = 1


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How sure a score is, said by drawing the data set anew from itself.

    Attributes:
        samples: data sets that are drawn; 0 says nothing.
        group: a regular expression; images in whose names it finds the same are drawn together.
        seed: of the drawing.
    """

    samples: Annotated[int, Field(ge=0, le=1_000_000)]
    group: str | None
    seed: NonNegativeInt


@dataclass(frozen=True, kw_only=True)
class Evaluation(Asked):
    """What an evaluation is told.

    Attributes:
        ckpt: a checkpoint, or a run folder; of a list the mean of their probabilities.
        trust: packages that the checkpoint's config may name.
        data: a whole data set, or what is changed of the checkpoint's.
        trainer: where it runs, and in what precision.
        inference: what is changed of how the model predicts; a key that is None is as it was trained.
        metrics: what is measured beside the scores; see `Measured`.
        bootstrap: see `Bootstrap`.
        calibrate: fit a temperature on val, and write a checkpoint that has it.
        output: a folder for what is measured; None is the run's own where it is evaluated as it was trained.
    """

    ckpt: Checkpoints
    splits: list[Literal["val", "test"]]
    data: Node
    trainer: Node
    inference: Node
    paths: Paths
    metrics: Node
    bootstrap: Node
    calibrate: bool
    output: str | None
    trust: list[str] | None = None

    def check(self) -> None:
        """Checks a `data` group, where one was chosen, against its classes' signatures."""
        if "_target_" in self.trainer:
            check_node("trainer", self.trainer)
        else:
            check_keys(self.trainer, types_of(Where), "trainer")
        if Trainer.of(self.trainer).strategy == "deepspeed":
            raise UserError(
                "trainer.strategy: deepspeed cuts optimizer states into shards, and evaluating has none; take trainer=ddp"
            )
        self._check_several()
        check_inference(self.inference, partly=True)
        check_keys(self.metrics, types_of(Measured), "metrics")
        check_keys(self.bootstrap, types_of(Bootstrap), "bootstrap")
        self._check_measured()
        if (data := self.own_data) is not None:
            node = data.dataset.node
            if data.dataset.labels == "???":  # the checkpoint may say
                node = {**data.dataset.keys_but("labels"), "_partial_": True}
            check_node("data", {**data.node, "dataset": node})
        else:
            check_keys(self.data, types_of(ChosenData), "data")

    def _check_several(self) -> None:
        if isinstance(self.ckpt, str) or len(self.ckpt) == 1:
            return
        if Trainer.of(self.trainer).strategy == "fsdp":
            raise UserError(
                "trainer.strategy: fsdp cuts one model into shards, and ckpt names several; take trainer=ddp"
            )
        if self.calibrate:
            raise UserError(
                "calibrate: a temperature is kept in a checkpoint, and ckpt names several; calibrate each, and name their "
                "calibrated.ckpt"
            )

    def _check_measured(self) -> None:
        if self.calibrate and ("calibration" not in self.measured.of or "val" not in self.splits):
            raise UserError(
                "calibrate: a temperature is fitted by metrics=[calibration] on val; give both, and leave val in splits"
            )
        if self.output is not None and not self.measured.of:
            raise UserError("output: is for what metrics=[…] measures; say what, e.g. metrics=[classes,images]")
        if self.calibrate and self.own_data is not None:
            raise UserError("calibrate: a temperature is fitted on the run's own val; leave data=… out")

    @property
    def measured(self) -> Measured:
        return filled(Measured, self.metrics)

    @property
    def resampling(self) -> Bootstrap:
        return filled(Bootstrap, self.bootstrap)

    @property
    def own_data(self) -> Data | None:
        """The data set that is chosen in place of the checkpoint's."""
        return Data.of(self.data) if "dataset" in self.data else None
