"""`classes.yaml` or `classes.json` in a data set's root: names and colours of its classes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from src.errors import UserError
from src.files.untrusted import read_json, read_yaml, shown

Channel = Annotated[int, Field(ge=0, le=255)]
_LONGEST = 200  # characters of a name
_FILES = ("classes.yaml", "classes.yml", "classes.json")


class _Class(BaseModel):
    name: str = Field(validation_alias=AliasChoices("name", "title"))
    color: tuple[Channel, Channel, Channel] | Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None = None


def read_classes(root: Path) -> tuple[list[str], list[list[int]] | None, Path] | None:
    """Names, colours (None where the file gives none) and the file; None where there is no such file.

    The file is a list in the order of the classes, a mapping from their numbers, or a mapping with either under `classes` (or
    `names`). An entry is a name, or `name` (or `title`) and `color`, as `[r, g, b]` or `"#rrggbb"`.

    Raises:
        UserError: the file is no YAML or JSON, or of another form.
    """
    file = next((root / name for name in _FILES if (root / name).is_file()), None)
    if file is None:
        return None
    try:
        content: Any = (
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
    return [entry.name for entry in classes], colors or None, file


def _listed(content: Any, file: Path) -> Any:
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
