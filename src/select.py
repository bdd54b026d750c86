"""Proposes the unlabelled images that are worth labelling: `python -m src.select ckpt=RUN input=DIR [n=50]`."""

from __future__ import annotations

import csv
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.cli.user_errors import end_with
from src.config.asked import Asked
from src.config.check import check_inference
from src.config.evaluation import Checkpoints
from src.config.parts import Config, Node
from src.errors import UserError, of_a_file
from src.files.untrusted import shown

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Selection(Asked):
    """What a selection is told.

    Attributes:
        ckpt: a checkpoint or a run folder; of a list the mean of their probabilities.
        input: a photo, a folder or a pattern.
        n: how many images to choose.
        by: "entropy" of the prediction, or "mutual_information", the disagreement of several runs.
        diverse: choose images that are unlike one another to the network.
        pool: choose them from so many times `n`, the most uncertain ones.
        output: a folder.
        device: in torch's words.
        inference: what is changed of how the model predicts.
    """

    ckpt: Checkpoints
    input: str
    recursive: bool
    n: PositiveInt
    by: Literal["entropy", "mutual_information"]
    diverse: bool
    pool: Annotated[int, Field(ge=1, le=1000)]
    output: str
    device: str
    inference: Node
    trust: list[str] | None = None

    def check(self) -> None:
        check_inference(self.inference, partly=True)


def select(settings: Config | Selection) -> list[str]:
    """Chooses images, and writes selection.csv (all images, the most uncertain first) and selected.txt (those to label, a name
    each, as `data.labeled_list` and labelling tools take them).

    Returns:
        What went wrong with images, a line each; the others are looked at all the same.

    Raises:
        UserError: no image, a bad checkpoint, or the folder cannot be written.
    """
    asked = settings if isinstance(settings, Selection) else Selection.of(settings)
    from src.evaluation.acquisition import chosen
    from src.inference.devices import usable_device
    from src.inference.inputs import find
    from src.storage.run_folder import write_text
    from src.training.ensembles import files_of, segmenter_of
    from src.training.selecting import look

    output = Path(asked.output).expanduser()
    inputs = find(asked.input, output, asked.recursive)
    if inputs.skipped:
        _log.info("skipped: %s", inputs.told())
    model, _ = segmenter_of(files_of(asked.ckpt), asked.trust or ())
    model.predict_by(asked.inference)
    device = usable_device(asked.device)
    seen = look(model.to(device).eval(), device, inputs.files, asked.by, asked.diverse)
    if asked.diverse and seen.features is None:
        _log.warning("this network has no encoder to compare images by, so the most uncertain ones are chosen")
    picked = chosen(seen.scores, seen.features, min(asked.n, len(seen.names)), asked.pool)
    place = {at: rank for rank, at in enumerate(picked, 1)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", asked.by, "chosen", "file"])
    for at in sorted(range(len(seen.names)), key=lambda at: -seen.scores[at]):
        name = seen.names[at]
        writer.writerow([name, f"{seen.scores[at]:.6f}", place.get(at, ""), inputs.files[name]])
    try:
        write_text(output / "selection.csv", text.getvalue())
        write_text(output / "selected.txt", "".join(f"{seen.names[at]}\n" for at in picked))
    except OSError as error:
        if told := of_a_file(error):
            raise UserError(f"output: {told}") from None
        raise
    print(f"{len(picked)} of {len(seen.names)} images to label are named in {shown(str(output / 'selected.txt'))}")
    return [shown(line, 1000) for line in inputs.failed + seen.failed]


def _task(asked: Selection, _: DictConfig) -> None:
    end_with(select(asked))


if __name__ == "__main__":
    start("select", _task, Selection.of)
