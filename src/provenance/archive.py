"""A run folder as one archive to hand on, without what tells whose machine it was made on."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from src.errors import UserError
from src.files import untrusted
from src.files.atomic import replacing
from src.provenance.private import Private
from src.storage import run_folder

_WHEN = (1980, 1, 1, 0, 0, 0)  # of every member: no time of this machine, and the same run gives the same archive
_TEXT = frozenset({".txt", ".log", ".csv", ".html", ".md", ".patch", ".tsv", ".svg"})
_PLAIN = frozenset({".json", ".yaml", ".yml"})
_FREE_TEXT = frozenset({".log", ".txt"})  # where any absolute path is taken out
_LARGEST_TEXT = 256 << 20
# What is of this machine alone, or of other programs.
_LEFT = (run_folder.ROOT, run_folder.LOGGERS, ".lock", "optuna.log.lock")
_FOLDERS_LEFT = ("wandb", "mlruns", "mlflow", ".aim")
_EVENTS = "events.out.tfevents."
_HOST, _ANY_HOST = re.compile(rf"({re.escape(_EVENTS)}\d+)\..*(\.\d+\.\d+)$"), r"\1.host\2"  # in a file's name
_PNG = b"\x89PNG\r\n"


def pack(run_dir: Path, output: Path, resumable: bool = False) -> tuple[int, list[str]]:
    """Writes a run's folder as a zip file.

    Args:
        run_dir: the run's.
        output: the archive.
        resumable: with the last checkpoint, from which training goes on, also where there is a best one.

    Returns:
        How many files it has, and what was left out, with the reason.

    Raises:
        UserError: a file is a link, is damaged, or a checkpoint has private text in it that cannot be taken out.
    """
    private = Private.of(run_dir, _configs(run_dir))
    top = private.without(run_dir.resolve().name) or "run"
    left = [f"{name} (another program's)" for name in _FOLDERS_LEFT if (run_dir / name).is_dir()]
    count = 0
    with replacing(output) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(_names(run_dir)):
            if reason := _unwanted(name, run_dir, resumable):
                left += [f"{name} ({reason})"] if reason != "-" else []
                continue
            file = untrusted.inside(run_dir, name)
            content = _rewritten(file, name, private)
            if word := _leaks(content, private):
                if file.suffix == ".ckpt":
                    raise UserError(f"{file}: has {word!r} in it where it cannot be taken out; nothing was packed")
                left.append(f"{name} (has {word!r} in it)")
                continue
            member = zipfile.ZipInfo(f"{top}/{_HOST.sub(_ANY_HOST, private.without(name))}", _WHEN)
            member.external_attr = 0o644 << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
            count += 1
    return count, left


def _names(run_dir: Path) -> Iterator[str]:
    todo = [run_dir]
    while todo:
        for entry in sorted(todo.pop().iterdir()):
            if entry.is_dir():
                todo += [entry] if entry.name not in _FOLDERS_LEFT else []
            else:
                yield entry.relative_to(run_dir).as_posix()


def _unwanted(name: str, run_dir: Path, resumable: bool) -> str | None:
    """Why a file stays here; "-" of what nobody misses."""
    base = name.rpartition("/")[2]
    if base in _LEFT or base.startswith(".part-") or name == run_folder.PREVIOUS:
        return "-"
    if name == run_folder.LAST and not resumable and (run_dir / run_folder.BEST).is_file():
        return "resumable=true packs it too"
    return None


def _configs(run_dir: Path) -> list[object]:
    found: list[object] = []
    for name in (run_folder.CONFIG, run_folder.OVERRIDES, run_folder.HYDRA, run_folder.CHANGES):
        try:
            found.append(untrusted.read_yaml(untrusted.inside(run_dir, name)))
        except (FileNotFoundError, UserError):
            continue
    from src.data.trained_on import CHECKPOINT_KEY
    from src.storage import checkpoints

    for name in (run_folder.BEST, run_folder.LAST):
        if untrusted.inside(run_dir, name).is_file():
            found.append(checkpoints.read(run_dir / name)[CHECKPOINT_KEY]["config"])
            break
    return found


def _rewritten(file: Path, name: str, private: Private) -> bytes:
    """A file's content without what is private, as far as its form is known."""
    suffix = file.suffix.lower()
    if suffix == ".ckpt":
        return _checkpoint(file, private)
    if file.name.startswith(_EVENTS):
        return _events(untrusted.read_bytes(file, _LARGEST_TEXT * 8), private)
    content = untrusted.read_bytes(file, _LARGEST_TEXT * 8)
    if suffix not in _PLAIN | _TEXT:
        return content
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content
    if suffix in _PLAIN:
        try:
            return _plain(text, name, private)
        except (UserError, ValueError):
            pass  # no plain data: as text
    return private.without(text, paths=suffix in _FREE_TEXT).encode()


def _plain(text: str, name: str, private: Private) -> bytes:
    dump: Callable[[Any], str]
    if name.endswith(".json"):
        value, dump = untrusted.plain_json(text, name), lambda one: json.dumps(one, indent=2) + "\n"
    else:
        value, dump = (
            untrusted.plain_yaml(text, name),
            lambda one: yaml.safe_dump(one, sort_keys=False, allow_unicode=True),
        )
    cleared = private.plain(value)
    return (text if cleared == value else dump(cleared)).encode()


def _checkpoint(file: Path, private: Private) -> bytes:
    """A checkpoint without it: all its texts are looked at, its tensors stay as they are."""
    import torch

    from src.storage import checkpoints

    content = checkpoints.read(file)
    kept = {key: value if key == "state_dict" else private.plain(value) for key, value in content.items()}
    stream = io.BytesIO()
    torch.save(kept, stream)
    return stream.getvalue()


def _events(content: bytes, private: Private) -> bytes:
    """TensorBoard's records without it. Each keeps its length, so that what lies in it, inside other messages, fits still; a
    picture's bytes are left alone."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    out, at = [], 0
    while at + 12 <= len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        record = content[at + 12 : at + 12 + length]
        if len(record) < length or at + 16 + length > len(content):  # cut off by a kill
            break
        head, mark, picture = record.partition(_PNG)
        told = private.without_bytes(head) + mark + picture
        crc = content[at + 12 + length : at + 16 + length]
        out += [content[at : at + 12], told, crc if told == record else struct.pack("<I", masked_crc32c(told))]
        at += 16 + length
    return b"".join(out)


def _leaks(content: bytes, private: Private) -> str | None:
    """The first private word in a file, also in what lies in it where it is an archive itself."""
    if word := private.found_in(content):
        return word
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            compressed = [one for one in inner.infolist() if one.compress_type != zipfile.ZIP_STORED]
            for member in (one for one in compressed if one.file_size < _LARGEST_TEXT):
                if word := private.found_in(inner.read(member)):
                    return word
    return None
