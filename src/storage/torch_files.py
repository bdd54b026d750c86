"""Torch's files from anyone: whole to the bit, no larger than they look, and read as tensors and plain data alone."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch

from src.errors import UserError
from src.files.untrusted import open_regular, shown

_MOST_MEMBERS = 200_000
_BLOCK = 4 << 20
_FOLDER = 0x10


def load(file: Path, of: str) -> object:
    """What `torch.save` wrote, tensors on the CPU (`weights_only=True`), once every byte has been found as it was written.

    Torch's archives are zip files that keep a checksum of each member, and compress none; torch itself looks at neither.

    Args:
        of: what the file is called in errors, e.g. "ckpt: FILE".

    Raises:
        FileNotFoundError: there is none.
        UserError: the file is none of torch's, is damaged, is compressed, or wants to run code.
    """
    with open_regular(file) as stream:
        try:
            _check(stream, of)
            stream.seek(0)
            return torch.load(stream, map_location="cpu", weights_only=True)
        except UserError:
            raise
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{of} holds more than tensors and plain data and was not opened, since opening it could run code"
            ) from error
        except Exception as error:  # torch's reader fails in as many ways as a file can lie
            raise UserError(f"{of} is damaged or not a checkpoint; use another one") from error


def _check(stream: BinaryIO, of: str) -> None:
    """Reads an archive once, against the checksums that it keeps.

    Raises:
        UserError: a member is compressed, lies about its size, or is not what was written.
    """
    size = stream.seek(0, 2)
    stream.seek(0)
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not stored or sum(member.file_size for member in members) > size or len(members) > _MOST_MEMBERS:
                raise UserError(f"{of} would unpack to more than it is, which no checkpoint of torch's does; refused")
            if not any(member.filename.endswith("/data.pkl") for member in members):
                raise UserError(f"{of} is damaged or not a checkpoint; use another one")
            if len({member.filename for member in members}) < len(members):
                raise UserError(f"{of} is damaged (it has members of the same name); use another one")
            for member in members:
                if member.external_attr & _FOLDER or member.is_dir():  # torch would take it for empty, and read nothing
                    raise UserError(f"{of} is damaged (it has a folder for a member); use another one")
                with archive.open(member) as content:  # raises where the checksum is another one
                    while content.read(_BLOCK):
                        pass
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError, RuntimeError) as error:
        raise UserError(f"{of} is damaged or not a checkpoint ({shown(str(error))}); use another one") from error
