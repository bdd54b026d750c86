"""Which `src` runs: `python -m` looks first in the working directory, which may have a `src/` of its own.

One with an `__init__.py` is what Python then takes for ours: it finds no `src.train` there, or runs theirs, or, where ours is
installed as editable, mixes the two. The last is said here, by importing this module before any other of ours.
`python -P -m src.train` leaves the working directory out; the processes that a run or a sweep starts then do so too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

OWN = Path(__file__).resolve().parent
# A wheel has the configs inside the package, a checkout beside it (where, of a wheel, another project's `conf/` may lie).
CONFIG_DIR = next(folder for folder in (OWN / "conf", OWN.parent / "conf") if folder.is_dir() or folder.parent != OWN)
_RUNS = getattr(sys.modules.get("src"), "__file__", None)

if _RUNS is not None and Path(_RUNS).resolve().parent != OWN:
    print(
        f"error: {Path(_RUNS).parent} is in the way of this program's own src ({OWN}); start it from another folder, or with "
        "-P: python -P -m src.train …",
        file=sys.stderr,
    )
    sys.exit(2)


def hand_on() -> None:
    """Lets the processes that this one starts find the same `src` as it did."""
    if sys.flags.safe_path:
        os.environ["PYTHONSAFEPATH"] = "1"


def of_another(target: str) -> str:
    """For a message: that a module below `src` which is not there may be meant of the working directory's own; else empty."""
    here = Path.cwd() / "src"
    if not target.startswith("src.") or not here.is_dir() or here.resolve() == OWN:
        return ""
    return f" (src is this program's, {OWN}, and not {here}: give your package another name)"
