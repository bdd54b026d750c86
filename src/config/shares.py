"""Shares of a whole as a config gives them."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

from pydantic import Field

from src.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]


def parse_share(given: str | float, key: str = "data.labeled_fraction") -> float:
    """`"1/8"` or `0.125` as a number above 0 and up to 1.

    Raises:
        UserError: it is no number or out of this range; names `key`.
    """
    try:
        share = float(Fraction(given.replace(" ", "")) if isinstance(given, str) else given)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{key}: should be a share such as 1/8 or 0.125, not {given!r}") from None
    if not 0 < share <= 1:
        raise UserError(f"{key}: should be above 0 and at most 1, not {given!r}")
    return share
