"""Checks what a local folder tells the `datasets` library to read before the library obeys: its own files and no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from src.errors import UserError
from src.files.untrusted import plain_yaml, read_json, read_text, read_yaml, shown

_CARD, _SETTINGS = "README.md", ".huggingface.yaml"  # either may say where the data lie
_LIMIT = 64 << 20  # bytes of a description: a large data set lists its shards in it
_READERS = (
    "parquet",
    "arrow",
    "json",
    "csv",
    "imagefolder",
    "webdataset",
)  # which open nothing but the files themselves


def check_folder(folder: Path) -> None:
    """Checks that no description in a folder leads the library elsewhere.

    Raises:
        UserError: one is damaged, or names a URL or a file that is not the folder's own.
    """
    if (folder / _SETTINGS).exists():
        _check_places(read_yaml(folder / _SETTINGS, links=True), folder / _SETTINGS)
    if (folder / _CARD).exists():
        text = read_text(folder / _CARD, links=True).replace("\r\n", "\n").lstrip()
        if text.startswith("---"):
            front = plain_yaml(text[3:].split("\n---", 1)[0], str(folder / _CARD))
            _check_places(front.get("configs") if isinstance(front, dict) else None, folder / _CARD)
    for file, key in _descriptions(folder):
        content = read_json(file, _LIMIT, links=True)
        named = content.get(key) if isinstance(content, dict) else None
        if key is not None and not isinstance(named, list):
            raise UserError(f"{file}: is damaged (it has no list {key!r}); save the data set again")
        _check_places(named, file)


def check_reader(builder: Any, folder: Path) -> None:
    """Checks what the library made of a folder: a reader that opens the files of the folder and nothing else.

    Args:
        builder: a `datasets.DatasetBuilder`.

    Raises:
        UserError: it is another one, or goes elsewhere.
    """
    reader = type(builder).__module__.rpartition(".")[2]
    if reader not in _READERS:
        raise UserError(
            f"data.root: {folder} would be read as {reader}, which may open other files; keep Parquet, Arrow, JSON, CSV or "
            "image files in it"
        )
    for files in (builder.config.data_files or {}).values():
        for file in map(str, files):
            if "://" in file or not within(Path(file), folder):
                raise UserError(f"data.root: {folder} takes data from {shown(file, 80)}, which is not in it; refused")


def within(file: Path, folder: Path) -> bool:
    """Whether a path, as it is written, lies below a folder; what links in the folder lead to is the user's affair."""
    return any(Path(os.path.normpath(file)).is_relative_to(place) for place in (folder.absolute(), folder.resolve()))


def _descriptions(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """What `save_to_disk` writes beside the rows, of a data set and of each of its splits, and the key that names files."""
    for place in (folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())):
        for name, key in (("dataset_dict.json", "splits"), ("state.json", "_data_files"), ("dataset_info.json", None)):
            if (place / name).exists():
                yield place / name, key


def _check_places(value: Any, of: Path) -> None:
    """Checks that no text in a value is a URL or leads out of the folder."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_places(inner, of)
    elif isinstance(value, str):
        path = PureWindowsPath(value)
        if "://" in value or "::" in value or path.drive or path.root or ".." in path.parts or "\0" in value:
            raise UserError(f"{of}: takes data from {shown(value, 80)}, which is not in its own folder; refused")
