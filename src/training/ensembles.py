"""The segmenter that `ckpt=` names: that of one checkpoint, or the ensemble of several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.config.settings import Trained
from src.data.trained_on import how_read
from src.errors import UserError
from src.evaluation.matrices import sha256
from src.files.untrusted import shown
from src.models.base import Segmenter
from src.models.ensemble import Ensemble
from src.storage import checkpoints
from src.training.build import model_from_checkpoint


def files_of(given: str | Sequence[str]) -> tuple[Path, ...]:
    """The checkpoint files that `ckpt=` names.

    Raises:
        UserError: there is no such file.
    """
    return tuple(checkpoints.find(one) for one in ([given] if isinstance(given, str) else given))


def segmenter_of(
    files: Sequence[Path], packages: Sequence[str] = (), *, scored: bool = False
) -> tuple[Segmenter, Trained]:
    """The segmenter of one file, or the mean of those of several; and what the first was trained with.

    Args:
        packages, scored: as of `model_from_checkpoint`.

    Raises:
        UserError: as `model_from_checkpoint`, or they differ in classes, or in the images that they take.
    """
    opened = [model_from_checkpoint(file, packages, scored=scored) for file in files]
    model, trained = opened[0]
    if len(opened) == 1:
        return model, trained
    for file, (other, of_other) in zip(files[1:], opened[1:], strict=True):
        _check_same_classes(model, other, files[0], file)
        if reason := model.images.contradiction(other.images, f"{files[0]} on"):
            raise UserError(
                f"ckpt: {file} was trained on {reason}; an ensemble sees the same images; give runs on like data"
            )
        ours = how_read(model.images, trained.dataset.node)
        theirs = how_read(other.images, of_other.dataset.node)
        for key in ours.keys() & theirs.keys() - asdict(model.images).keys():
            if ours[key] != theirs[key]:
                raise UserError(
                    f"ckpt: {file} read images by data.dataset.{key}={shown(str(theirs[key]), 100)} and {files[0]} by "
                    f"{shown(str(ours[key]), 100)}; an ensemble sees the same images; give runs that read them alike"
                )
    return Ensemble([one for one, _ in opened]), trained


def _check_same_classes(ours: Segmenter, theirs: Segmenter, ours_is: Path, theirs_is: Path) -> None:
    one, other = ours.label_set, theirs.label_set
    if (one.names, one.ignore_index) == (other.names, other.ignore_index):
        return
    if one.names == other.names:
        what = f"ignores the mask value {other.ignore_index}, and {ours_is} {one.ignore_index}"
    elif sorted(one.names) == sorted(other.names):
        what = f"has the classes of {ours_is} in another order ({', '.join(other.names)}; there {', '.join(one.names)})"
    else:
        what = (
            f"tells {len(other.names)} classes ({', '.join(other.names)}), and {ours_is} {len(one.names)} "
            f"({', '.join(one.names)})"
        )
    raise UserError(f"ckpt: {theirs_is} {shown(what, 600)}; an ensemble needs the same classes in the same order")


def digest(files: Sequence[Path]) -> str:
    """The SHA-256 of a checkpoint file; of several that of theirs, one a line."""
    each = [sha256(file) for file in files]
    return each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()


def said_of(files: Sequence[Path], model: Segmenter) -> dict[str, Any]:
    """What metrics.json says of them: "checkpoint" and the protocol "inference"; of several lists of these."""
    named, protocols = [str(file) for file in files], [asdict(protocol) for protocol in model.protocols]
    if len(files) == 1:
        return {"checkpoint": named[0], "inference": protocols[0]}
    return {"checkpoint": named, "inference": protocols}
