"""Rules that hold for a config and for the classes that it builds, each stated once.

The check of a config asks them before anything is built; a class asks them again, for it can be built without a config.
"""

from __future__ import annotations

from collections.abc import Sequence

from src.errors import UserError


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
