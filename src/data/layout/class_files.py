"""Finds the names, colours and values of classes in the files that people and labelling tools put beside masks."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from src.errors import UserError
from src.files.untrusted import read_json, read_text, read_yaml, shown

Channel = Annotated[int, Field(ge=0, le=255)]
_DESCRIPTIONS = ("classes.yaml", "classes.yml", "classes.json")
_NAMES = ("classes.txt", "obj.names", "labels.txt", "class_names.txt")  # a name on each line
_COLORS = ("labelmap.txt",)  # CVAT's: name:r,g,b:parts:actions
_VALUES = ("_classes.csv", "train/_classes.csv", "valid/_classes.csv", "test/_classes.csv")  # Roboflow's: value, name
_LONGEST = 200  # characters of a name
_MOST = 254


class Classes(NamedTuple):
    """What a file says of the classes: names, RGB of each (or None), mask value of each (or None: its place)."""

    names: list[str]
    colors: list[list[int]] | None
    values: dict[str, int] | None
    file: Path


class _Class(BaseModel):
    name: str = Field(validation_alias=AliasChoices("name", "title"))
    color: tuple[Channel, Channel, Channel] | Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None = None


def described(root: Path) -> Classes | None:
    """The classes of `classes.yaml` or `classes.json` in a data set's root; None where there is no such file.

    The file is a list in the order of the classes, a mapping from their numbers, or a mapping with either under `classes` (or
    `names`). An entry is a name, or `name` (or `title`) and `color`, as `[r, g, b]` or `"#rrggbb"`.

    Raises:
        UserError: the file is no YAML or JSON, or of another form.
    """
    file = next((root / name for name in _DESCRIPTIONS if (root / name).is_file()), None)
    if file is None:
        return None
    try:
        content: object = (
            read_json(file, links=True) if file.suffix == ".json" else read_yaml(file, links=True, numbered=True)
        )
        entries = _listed(content, file)
        classes = TypeAdapter(list[_Class]).validate_python(
            [{"name": entry} if isinstance(entry, str) else entry for entry in entries or []]
        )
    except (OSError, ValidationError, TypeError, UserError) as error:
        reason = shown(re.sub(r"\s+", " ", str(error).removeprefix(f"{file}: ")).strip(), 160)
        raise UserError(
            f"{file}: is no list of classes ({reason}); write a list of entries like {{name: road, color: [128, 64, 128]}}"
        ) from None
    if not classes:
        raise UserError(f"{file}: names no class; write a list of entries like {{name: road, color: [128, 64, 128]}}")
    for entry in classes:
        if not entry.name.strip() or not entry.name.isprintable() or len(entry.name) > _LONGEST:
            raise UserError(
                f"{file}: the class name {shown(repr(entry.name), 60)} is empty, has characters that are none to read, or is "
                f"longer than {_LONGEST}; give it a plain one"
            )
    colors = [_rgb(entry.color) for entry in classes if entry.color is not None]
    if colors and len(colors) < len(classes):
        missing = next(entry.name for entry in classes if entry.color is None)
        raise UserError(f"{file}: class {missing} has no color; give one to each class or to none")
    return Classes([entry.name for entry in classes], colors or None, None, file)


def of_tool(root: Path) -> Classes | None:
    """The classes of the first file that is named as a labelling tool names it; None where there is none.

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


def check_names(of: Path, names: list[str]) -> None:
    """Checks classes' names that came out of a file.

    Raises:
        UserError: there are too few or too many, or one is no printable text.
    """
    if not 1 <= len(names) <= _MOST:
        raise UserError(f"{of}: names {len(names)} classes; 1 to {_MOST} can be told apart in a mask of 8 bits")
    bad = next((name for name in names if not name or not name.isprintable() or len(name) > _LONGEST), None)
    if bad is not None:
        raise UserError(f"{of}: {shown(bad, 60)!r} is no name for a class; take printable text")


def _listed(content: object, file: Path) -> Any:
    """The entries, also of a mapping from 0, 1, 2 … to names (as YOLO's `names`)."""
    if isinstance(content, dict):
        content = content.get("classes", content.get("names", content))
    if not isinstance(content, dict):
        return content
    numbers = [int(key) if str(key).isdecimal() else None for key in content]
    if None in numbers or not numbers:
        return None if not content else [*content.items()]
    if sorted(n for n in numbers if n is not None) != list(range(len(numbers))):
        raise UserError(
            f"{file}: its classes are {', '.join(map(str, content))} and not 0, 1, 2 …; list the names, and say which value is "
            "what in data.dataset.values={NAME: VALUE, …}"
        )
    return [content[key] for key in sorted(content, key=lambda key: int(key))]


def _rgb(color: tuple[int, int, int] | str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)] if isinstance(color, str) else list(color)


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
