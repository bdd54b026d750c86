"""Reading what a stranger may have written: regular files of bounded size, no links followed, plain data out.

Whoever reads a file of a run folder, a checkpoint's neighbour or a data set's description reads it through this module, so that
a link, a pipe, a device, a bomb or nonsense ends in one line and nothing more.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import stat
import unicodedata
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import yaml

from src.errors import UserError

TEXT_LIMIT = 4 << 20  # bytes of a text file
_NODES = 100_000  # values in one YAML or JSON text, each alias counted with all that it stands for
_DEPTH = 64  # mappings and lists inside one another
_LARGEST = 2**63  # of a whole number
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
# flags of `os.open`: no wait for a pipe's other end, none for a child process, bytes as they are
AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class _Loader(yaml.CSafeLoader):
    """YAML's plain values; a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _SCALARS]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def inside(folder: Path, name: str) -> Path:
    """The file or folder `name` below a folder that may be a stranger's; it need not exist.

    Raises:
        UserError: the name leads out of the folder, or a part of it below `folder` is a link.
    """
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UserError(f"{folder}: {shown(name)} leads out of this folder; refused")
    at = folder
    for part in path.parts:
        at = at / part
        if at.is_symlink():
            raise link_refused(at)
    return at


def open_regular(file: Path, limit: int | None = None, links: bool = False) -> BinaryIO:
    """A regular file, opened to read bytes; never a pipe or a device, and a link only where `links` says so.

    Args:
        limit: the most bytes that it may have.
        links: follow a link, as users make them to their data.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is none of these, is too large, or may not be read.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | AT_ONCE | (0 if links else getattr(os, "O_NOFOLLOW", 0)))
    except FileNotFoundError:
        raise
    except ValueError:  # a NUL byte
        raise UserError(f"{shown(str(file))}: is no name that a file can have") from None
    except OSError as error:
        if not links and error.errno in (errno.ELOOP, errno.EMLINK):
            raise link_refused(file) from None
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UserError(f"{file}: is no regular file; refused")
    if limit is not None and found.st_size > limit:
        os.close(descriptor)
        raise UserError(
            f"{file}: has {found.st_size:,} bytes, more than the {limit:,} that such a file may have; refused"
        )
    return os.fdopen(descriptor, "rb")


def read_bytes(file: Path, limit: int = TEXT_LIMIT, links: bool = False) -> bytes:
    """A regular file's content, as `open_regular` opens it."""
    with open_regular(file, limit, links) as stream:
        return stream.read(limit)


def read_text(file: Path, limit: int = TEXT_LIMIT, links: bool = False) -> str:
    """A regular file's text, UTF-8 with or without its mark, as `open_regular` opens it.

    Raises:
        UserError: also where it is no UTF-8.
    """
    try:
        return read_bytes(file, limit, links).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is no UTF-8 text (byte {error.start}); save it as UTF-8") from None


def read_lines(file: Path, limit: int = 1 << 30) -> list[str]:
    """A list of names, one a line, in a file that may be linked: UTF-8, or UTF-16 with its mark, as PowerShell writes it.

    Raises:
        FileNotFoundError: there is none.
        UserError: also where a line has control characters, a NUL byte among them, which no name of ours has.
    """
    content = read_bytes(file, limit, links=True)
    coding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(coding)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is no UTF-8 text (byte {error.start}); save it as UTF-8") from None
    lines = re.split(r"\r\n|\n|\r", text)
    for number, line in enumerate(lines, 1):
        # Spaces of other kinds than ours are in names, too: macOS puts a narrow one into those of screenshots.
        if not line.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs", "Cn") for c in line if c != "\t"):
            raise UserError(
                f"{file} line {number}: has characters that no name has: {shown(line, 60)}; correct the list"
            )
    return lines


def read_yaml(file: Path, limit: int = TEXT_LIMIT, links: bool = False, numbered: bool = False) -> object:
    """A YAML file as plain data; see `plain_yaml`."""
    return plain_yaml(read_text(file, limit, links), str(file), numbered)


def read_json(file: Path, limit: int = TEXT_LIMIT, links: bool = False) -> Any:
    """A JSON file as plain data; see `plain_json`."""
    return plain_json(read_text(file, limit, links), str(file))


def plain_yaml(text: str, of: str, numbered: bool = False) -> object:
    """YAML as dicts with text for keys, lists, text, numbers, booleans and None. An interpolation stays the text that it is.

    Args:
        of: what the message calls it.
        numbered: whole numbers may be keys too, and become text.

    Raises:
        UserError: it is no YAML, has other values, keys that are no text or stand twice, `<<`, a value inside itself, or
            more values, depth or digits than any file of ours.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise UserError(f"{of}: is nested more than {_DEPTH} deep; refused")
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            return None
        _count(root, of, {}, set())
        return _built(root, of, numbered)
    except yaml.YAMLError as error:
        raise UserError(f"{of}: is no YAML ({shown(' '.join(str(error).split()))})") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{of}: is damaged ({shown(str(error))})") from None


def plain_json(text: str, of: str) -> Any:
    """JSON as plain data, with the limits of `plain_yaml`.

    Raises:
        UserError: it is no JSON, or has more values, depth or digits than any file of ours.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{of}: is damaged or no JSON ({shown(str(error))})") from None
    check_plain(content, of)
    return content


def check_plain(content: object, of: str, nodes: int | None = None) -> None:
    """Checks that a value is made of dicts with text for keys, lists, tuples, text, finite-sized numbers, booleans and None.

    Args:
        nodes: the most values that it may have; None for no limit.

    Raises:
        UserError: it is not, or is nested too deeply.
    """
    todo, seen = [(content, 0)], 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if depth > _DEPTH or (nodes is not None and seen > nodes):
            raise UserError(f"{of}: is nested more than {_DEPTH} deep or has too many values; refused")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise UserError(f"{of}: has the key {shown(repr(key))}, which is no text; refused")
            todo += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple):
            todo += [(inner, depth + 1) for inner in value]
        elif isinstance(value, int) and abs(value) >= _LARGEST:
            raise UserError(f"{of}: has a number of {len(hex(value)) - 2} hexadecimal digits; refused")
        elif not isinstance(value, str | int | float | bool | None):
            raise UserError(f"{of}: has a {type(value).__name__}, which is no plain value; refused")


def shown(text: str, limit: int = 200) -> str:
    """Text as a terminal may be given it: no control characters (they are escaped), and not more than `limit`."""
    safe = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "replace").decode() for c in text)
    return safe if len(safe) <= limit else f"{safe[: limit - 1]}…"


def link_refused(path: Path) -> UserError:
    """What is said of a link in a folder that may be a stranger's."""
    return UserError(f"{path}: is a link, and none is followed in a folder that may be someone else's; refused")


def _count(node: yaml.Node, of: str, known: dict[int, int], open_: set[int]) -> int:
    """The values that a node stands for, each alias counted with all of its own."""
    if id(node) in open_:
        raise UserError(f"{of}: holds itself (an anchor inside its own value); refused")
    if id(node) not in known:
        open_.add(id(node))
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_count(part, of, known, open_) for part in parts)
        open_.discard(id(node))
    if known[id(node)] > _NODES:
        raise UserError(f"{of}: stands for more than {_NODES:,} values; refused")
    return known[id(node)]


def _built(node: yaml.Node, of: str, numbered: bool) -> object:
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        content: dict[str, object] = {}
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:str" and not (numbered and key.tag == "tag:yaml.org,2002:int"):
                raise UserError(f"{of}: has the key {shown(str(key.value))}, which is no text; refused")
            if key.value == "<<":
                raise UserError(f"{of}: merges mappings with '<<'; refused")
            if key.value in content:
                raise UserError(f"{of}: has the key {shown(key.value)} twice; refused")
            content[key.value] = _built(value, of, numbered)
        return content
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_built(item, of, numbered) for item in node.value]
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
        raise UserError(f"{of}: has {shown(node.tag)}, which is no plain value; refused")
    if node.tag.endswith(":int") and len(node.value) > 30:
        raise UserError(f"{of}: has a number of {len(node.value)} digits; refused")
    value = yaml.constructor.SafeConstructor().construct_object(node)
    check_plain(value, of)
    return value
