"""Rules that hold for a config and for the classes that it builds, each stated once.

The check of a config asks them before anything is built; a class asks them again, for it can be built without a config.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from src.errors import UserError
from src.files.untrusted import shown

# Whose weights `init_from=SOURCE:NAME` takes, each with an example.
INIT_SOURCES = {
    "torchvision": "torchvision:deeplabv3_resnet50",
    "hf": "hf:nvidia/segformer-b0-finetuned-ade-512-512",
    "smp-hub": "smp-hub:FOLDER",
    "mmseg": "mmseg:FILE.pth",
    "timm-encoder": "timm-encoder:FILE",
}


def check_sides(key: str, sides: Sequence[int]) -> None:
    """Checks a size in pixels.

    Raises:
        UserError: it is not a height and a width.
    """
    if len(sides) != 2:
        raise UserError(f"{key}: should be [height, width], not {list(sides)}")


def check_bounds(key: str, bounds: Sequence[float]) -> None:
    """Checks a range of factors.

    Raises:
        UserError: it is not a smallest and a largest one.
    """
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise UserError(f"{key}: should be [smallest, largest], not {list(bounds)}; e.g. {key}=[0.5,2]")


def check_one_each(key: str, values: Sequence[object], names: Sequence[str]) -> None:
    """Checks a list that has a value for each class.

    Raises:
        UserError: it has more or fewer.
    """
    if len(values) != len(names):
        raise UserError(f"{key}: {len(values)} for {len(names)} classes ({', '.join(names)}); give one for each class")


def check_precision(precision: object, *, has_gpu: bool, here: bool = False) -> None:
    """Checks a precision against where a run is to be.

    Args:
        here: whether it is the machine that has no GPU, and not the user who takes none.

    Raises:
        UserError: only GPUs have it.
    """
    if str(precision) == "16-mixed" and not has_gpu:
        raise UserError(
            "trainer.precision: 16-mixed needs a GPU"
            + (" and there is none here; take" if here else "; on a CPU take")
            + " bf16-mixed or 32-true"
        )


def without_unlabeled() -> UserError:
    """What is said where a model wants unlabelled images and the data have none."""
    return UserError(
        "model.semi.method: every training image is labelled; leave some without, e.g. data.labeled_fraction=1/8"
    )


def split_source(init_from: str) -> tuple[str, str] | None:
    """The source that `init_from` names, and the name there; None where it is a path, as all is that there is a file of.

    Raises:
        UserError: there is no such source, or nothing is named.
    """
    match = re.fullmatch(r"([A-Za-z][\w+.-]+):(.*)", init_from, re.DOTALL)  # not C:
    if match is None or Path(init_from).expanduser().exists():
        return None
    source, name = match[1], match[2]
    if source not in INIT_SOURCES:
        raise UserError(
            f"init_from: there is no file {shown(init_from)}, and no source {shown(source)}; the sources are "
            f"{', '.join(INIT_SOURCES)}"
        )
    if not name:
        raise UserError(f"init_from: {source}: names nothing; give a model or a file, e.g. {INIT_SOURCES[source]}")
    return source, name
