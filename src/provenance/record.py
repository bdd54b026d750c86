"""provenance.json: with what a run was made. Read as what a stranger may have written. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from src.errors import UserError
from src.files import untrusted
from src.storage import run_folder

_LARGEST = 256 << 20  # bytes; `fingerprint=all` of a large data set lists every file
_MOST_EARLIER = 99
_Text = Annotated[str, Field(max_length=10_000)]
_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]


class _Plain(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, defer_build=True)


class Code(_Plain):
    """A package's code.

    Attributes:
        commit: of the repository that tracks it; None without one.
        uncommitted: files that were not as in that commit.
        files: the first 16 hexadecimal digits of each file's SHA-256, by its path.
    """

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$")] | None = None
    uncommitted: list[_Text] = []
    files: dict[str, _Hex] = {}


class Patch(_Plain):
    """The uncommitted change, in code.patch.

    Attributes:
        bytes: its size; 0 where there is none.
        left_out: what it has not, because it would be too large.
    """

    bytes: NonNegativeInt = 0
    left_out: list[_Text] = []


class Fingerprint(_Plain):
    """One split of the data.

    Attributes:
        of: whether files were hashed, or samples as they are read, where samples are made or cut out of something larger.
        samples: how many there are.
        names: a digest of their names.
        files, bytes, sizes: how many files samples are made from, their bytes together, and a digest of names and sizes.
        hashed: size in bytes and SHA-256 of files, by their paths in `data.root`, or of samples, by name.
    """

    of: Literal["files", "samples"]
    samples: NonNegativeInt
    names: _Hex
    files: NonNegativeInt | None = None
    bytes: NonNegativeInt | None = None
    sizes: _Hex | None = None
    hashed: dict[str, tuple[int, _Hex]] = {}


class Device(_Plain):
    """Where a run computes, and how exactly."""

    accelerator: _Text
    devices: Annotated[int, Field(ge=1)] = 1
    precision: _Text = "32-true"


class Record(_Plain):
    """With what a run was made.

    Attributes:
        version: of this file's form.
        time: when the run began, UTC.
        command: its words; the home folder is `~`, and what may be secret is left out.
        program, python: their versions.
        code: by package: `src` is this program with its `conf/`, others are the user's own.
        packages: versions of all that is installed.
        hardware, environment: what of them bears on figures.
        data: by split; None where it could not be told, or not yet.
    """

    version: Literal[1] = 1
    time: _Text = ""
    command: list[_Text] = []
    program: _Text | None = None
    python: _Text = ""
    code: dict[str, Code] = {}
    patch: Patch = Patch()
    packages: dict[str, _Text] = {}
    hardware: dict[str, str | int | float | list[str] | None] = {}
    environment: dict[str, _Text] = {}
    device: Device | None = None
    data: dict[str, Fingerprint] | None = None


def read(run_dir: Path) -> Record | None:
    """The record in a run's folder; None where there is none, as of runs of earlier versions.

    Raises:
        UserError: it is damaged, or none of ours.
    """
    file = untrusted.inside(run_dir, run_folder.PROVENANCE)
    try:
        content = untrusted.read_bytes(file, _LARGEST)
    except FileNotFoundError:
        return None
    try:
        return Record.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = untrusted.shown(f"{where}: {first['msg']}")
        raise UserError(f"{file}: is damaged or none of this program's ({said})") from None


def write(run_dir: Path, record: Record) -> None:
    """Writes the record, one line for each file and package.

    Raises:
        OSError: it cannot be written.
    """
    content = record.model_dump(mode="json")
    for split in (content["data"] or {}).values():
        split["hashed"] = {name: _Line(value) for name, value in split["hashed"].items()}
    run_folder.write_text(run_dir / run_folder.PROVENANCE, _json(content) + "\n")


class _Line(list[object]):
    """A list that is written on one line."""


def _json(value: object, indent: str = "") -> str:
    if isinstance(value, dict) and value:
        inner = f"{indent}  "
        lines = [f"{inner}{json.dumps(key)}: {_json(one, inner)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return json.dumps(value)


def keep_earlier(run_dir: Path) -> None:
    """Gives the record and the patch of a run that goes on a number, so that those of its new start lie beside them."""
    number = next((n for n in range(1, _MOST_EARLIER) if not (run_dir / _numbered(n)[0]).exists()), _MOST_EARLIER)
    for file, kept in zip((run_folder.PROVENANCE, run_folder.PATCH), _numbered(number), strict=True):
        if untrusted.inside(run_dir, file).is_file():
            (run_dir / file).replace(untrusted.inside(run_dir, kept))


def _numbered(number: int) -> tuple[str, str]:
    return f"provenance.{number}.json", f"code.{number}.patch"
