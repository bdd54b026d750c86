"""Other runs' models that a run works with: a generator of its images, a judge of those that it draws."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence

import torch

from src.data.dataset import Source
from src.data.synthetic import Synthetic
from src.errors import UserError
from src.models.base import Segmenter
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
    hashed = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        hashed.update(key.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return Synthetic(model, str(file), hashed.hexdigest())


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
