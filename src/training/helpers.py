"""Other runs' models that a run works with: a generator of its images, a judge of those that it draws, a teacher."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from src.config.parts import Model
from src.data.sources import Source
from src.data.synthetic import Synthetic
from src.data.trained_on import Images, check_classes
from src.errors import UserError
from src.models.base import Segmenter
from src.models.learner import digest
from src.models.synthesis import Synthesizer, check_judge
from src.storage import checkpoints
from src.training.build import learner_from_checkpoint, model_from_checkpoint


def synthetic(named: str | None, packages: Sequence[str]) -> Synthetic | None:
    """The generator of `data.synthetic`, a run of model=synthesis or its checkpoint; None where none is named.

    Raises:
        UserError: as `model_from_checkpoint`, or it is a segmenter's.
    """
    if named is None:
        return None
    with _as_key("data.synthetic"):
        file = checkpoints.find(named)
        model, _ = learner_from_checkpoint(file, packages)
        if not isinstance(model, Synthesizer):
            raise UserError(f"ckpt: {file} draws no images; give a run of model=synthesis")
    return Synthetic(model, str(file), digest(model))


def others(model: Model, source: Source, packages: Sequence[str]) -> dict[str, Segmenter]:
    """The judge and the teacher that a model's settings name, by the names that its class gives them."""
    found = {
        "segmenter": judge(model.judge, source, packages),
        "taught_by": teacher(model.teacher, source, packages),
    }
    return {name: one for name, one in found.items() if one is not None}


def teacher(named: str | None, source: Source, packages: Sequence[str]) -> Segmenter | None:
    """The segmenter of `model.teacher`, for images as a source has them, in evaluation mode and with nothing to learn; None
    where none is named.

    Raises:
        UserError: as `model_from_checkpoint`, or it has other classes, or takes other images.
    """
    if named is None:
        return None
    with _as_key("model.teacher"):
        file = checkpoints.find(named)
        model, _ = model_from_checkpoint(file, packages)
        check_classes(model.label_set, source.label_set, str(file))
        if reason := model.images.contradiction(Images.of_source(source), f"{file} learnt from"):
            raise UserError(f"ckpt: the data have {reason}; give a run on like images")
    return model.requires_grad_(False)


def judge(named: str | None, source: Source, packages: Sequence[str]) -> Segmenter | None:
    """The segmenter of `model.judge`, for images as a source has them; None where none is named.

    Raises:
        UserError: as `model_from_checkpoint`, or it is of other data.
    """
    if named is None:
        return None
    with _as_key("model.judge"):
        file = checkpoints.find(named)
        model, _ = model_from_checkpoint(file, packages)
    check_judge(model, source.label_set.names, source.channels, str(file))
    return model.requires_grad_(False)


@contextlib.contextmanager
def _as_key(key: str) -> Iterator[None]:
    """Errors of a checkpoint name the key that named it."""
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"^ckpt:", f"{key}:", str(error))) from error
