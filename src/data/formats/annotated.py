"""`Photos` finds the photos that labelling tools' annotation files are of."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from src.data.formats.painting import Shape
from src.data.readers.images import IMAGE_SUFFIXES
from src.errors import UserError
from src.files.untrusted import read_json, shown

JSON_LIMIT = 1 << 30  # bytes of an annotation file: one of a whole data set, or of one photo with the photo in it


@dataclass(frozen=True)
class Photo:
    """A photo that was labelled.

    Attributes:
        image: its file.
        source: the annotation file.
        labels: what was drawn over it is called.
        shapes: what was drawn over it, in order, given its height and width; raises ValueError, KeyError or TypeError of what
            is not as the tool writes it.
    """

    image: Path
    source: Path
    labels: frozenset[str]
    shapes: Callable[[int, int], list[Shape]]


def load(file: Path, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    """An annotation file's content.

    Raises:
        UserError: it is no JSON, or of another kind at its top.
    """
    content = read_json(file.resolve(), JSON_LIMIT)  # one's own data may be links
    if not isinstance(content, kind):
        raise UserError(f"{file}: should be a JSON {'object' if kind is dict else 'list'}; export it again")
    return content


class Photos:
    """The image files below a folder, found by what an annotation calls them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        for at, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                    self._by_name.setdefault(unicodedata.normalize("NFC", name), []).append(Path(at) / name)

    def find(self, name: str, beside: Path, of: Path) -> Path:
        """The photo that `name` (a path or URL of wherever the labels were made) stands for: the one of that file name, in the
        folder `beside` if it is there.

        Raises:
            UserError: there is none, or several.
        """
        file_name = unicodedata.normalize("NFC", _file_name(name))
        found = self._by_name.get(file_name, [])
        # Label Studio puts eight characters before the name of a file that was uploaded.
        if not found and len(file_name) > 9 and file_name[8] == "-":
            found = self._by_name.get(file_name[9:], [])
        near = [file for file in found if file.parent == beside]
        if len(near or found) != 1:
            what = f"{len(found)} photos have this name" if found else "no photo has this name"
            raise UserError(
                f"{of}: is of {shown(name, 120)!r}, but {what} below {self.folder}; put the photos there, each once"
            )
        return (near or found)[0]


def _file_name(name: str) -> str:
    parts = urlsplit(name.replace("\\", "/")) if "?" in name or "://" in name else None
    path = name if parts is None else (parse_qs(parts.query).get("d") or [parts.path])[0]
    return PurePosixPath(unquote(path) if parts is not None else path.replace("\\", "/")).name
