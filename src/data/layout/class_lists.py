"""Names, colours and values of classes in the files that labelling tools write beside their masks."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from src.errors import UserError
from src.files.untrusted import read_text, shown

_NAMES = ("classes.txt", "obj.names", "labels.txt", "class_names.txt")  # a name on each line
_COLORS = ("labelmap.txt",)  # CVAT's: name:r,g,b:parts:actions
_VALUES = ("_classes.csv", "train/_classes.csv", "valid/_classes.csv", "test/_classes.csv")  # Roboflow's: value, name
_MOST = 254


class Classes(NamedTuple):
    """What a file says of the classes: names, RGB of each (or None), mask value of each (or None: its place)."""

    names: list[str]
    colors: list[list[int]] | None
    values: dict[str, int] | None
    file: Path


def read_list(root: Path) -> Classes | None:
    """The classes of the first file of a known name in a data set's root; None where there is none.

    Raises:
        UserError: it is not of the form that its name promises.
    """
    for names, read in ((_COLORS, _colors), (_VALUES, _values), (_NAMES, _names)):
        for name in names:
            if (root / name).is_file():
                found = read(root / name)
                check_names(found.file, found.names)
                return found
    return None


def _names(file: Path) -> Classes:
    lines = [line.strip() for line in read_text(file).splitlines()]
    return Classes([line for line in lines if line and not line.startswith("#")], None, None, file)


def _colors(file: Path) -> Classes:
    names: list[str] = []
    colors: list[list[int]] = []
    for line in read_text(file).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        parts = rest.split(":")[0].split(",")
        if len(parts) != 3 or not all(part.strip().isdecimal() and len(part.strip()) <= 3 for part in parts):
            raise UserError(
                f"{file}: {shown(line, 60)!r} is no NAME:R,G,B:parts:actions; write one such line for each class"
            )
        names.append(name.strip())
        colors.append([min(int(part), 255) for part in parts])
    return Classes(names, colors, None, file)


def _values(file: Path) -> Classes:
    values: dict[str, int] = {}
    for row in csv.reader(io.StringIO(read_text(file)), skipinitialspace=True):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].lower().startswith("pixel"):
            continue
        if len(cells) != 2 or not cells[0].isdecimal() or len(cells[0]) > 5 or cells[1] in values:
            raise UserError(
                f"{file}: {shown(','.join(row), 60)!r} is no new VALUE, NAME; write one such line for each class"
            )
        values[cells[1]] = int(cells[0])
    return Classes(list(values), None, values, file)


def check_names(of: Path, names: list[str]) -> None:
    """Checks classes' names that came out of a file.

    Raises:
        UserError: there are too few or too many, or one is no printable text.
    """
    if not 1 <= len(names) <= _MOST:
        raise UserError(f"{of}: names {len(names)} classes; 1 to {_MOST} can be told apart in a mask of 8 bits")
    bad = next((name for name in names if not name or not name.isprintable() or len(name) > 200), None)
    if bad is not None:
        raise UserError(f"{of}: {shown(bad, 60)!r} is no name for a class; take printable text")
