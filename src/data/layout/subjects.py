"""Tells which images are of one subject, by names and headers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from src.data.layout import splits
from src.data.warn_once import warn_once

_SUBJECT = re.compile(r"(?:^|[^A-Za-z0-9])(sub-[A-Za-z0-9]+)")  # BIDS


def subjects(names: Sequence[str], group: str | None, patients: Sequence[str | None]) -> dict[str, str]:
    """By name, the subject that an image is of. Names of which nothing is known are left out.

    Args:
        names: of all images.
        group: a regular expression; or "auto", the patient whom an image's header names, else what BIDS calls the subject
            (`sub-01_ses-2_T1w` is of `sub-01`); None knows nothing.
        patients: of each name's header, None where it has none.

    Raises:
        UserError: the expression is none, or does not fit a name.
    """
    if group is None:
        return {}
    if group != "auto":
        return dict(zip(names, splits.grouped(names, group), strict=True))
    found = {name: f"patient {patient}" for name, patient in zip(names, patients, strict=True) if patient}
    if len(names) > 1 and len(found) == len(names) and len(set(found.values())) == 1:
        found = {}  # one name for all is how tools make headers anonymous
    bids = {name: match[1] for name in names if (match := _SUBJECT.search(name))}
    return bids | found


def by_subject(names: Sequence[str], of: Mapping[str, str], what: str) -> list[str]:
    """The group that each image is split with; each is one of its own where all are of one subject, which is said."""
    if len(names) > 1 and len(of) == len(names) and len(set(of.values())) == 1:
        warn_once(
            f"all {len(names)} {what} are of one subject ({names[0]} …), so the splits share it: scores say little about others"
        )
        return list(names)
    return [of.get(name, name) for name in names]
