"""What of a run folder tells whose machine it was made on, and how it is taken out of texts."""

from __future__ import annotations

import contextlib
import functools
import getpass
import re
import socket
import sys
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from src.files.untrusted import read_text
from src.storage.trust import texts
from src.which_src import CONFIG_DIR, OWN

# Names of everyone's.
_NOBODY = frozenset({"root", "user", "admin", "ubuntu", "localhost", "runner", "home", "docker", "host"})
_SHORTEST = 3
_CODINGS = ("utf-8", "utf-16-le", "utf-32-le")
_PATH = re.compile(
    r"(?<![\w./:@~$}<-])(?:/(?:[^\s/\"'<>|:,;()\[\]{}=]+/)+|[A-Za-z]:\\(?:[^\s\\\"'<>|:,;]+\\)+)(?=[^\s/\\])"
)


def is_absolute(text: str) -> bool:
    """Whether a text as a whole is an absolute path, here or on Windows."""
    one_line = len(text) > 1 and len(text) < 4096 and "\n" not in text
    return one_line and (
        PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith("~")
    )


@dataclass(frozen=True)
class Private:
    """Places and names that are private, and what stands for them.

    Attributes:
        places: absolute paths and what is written instead, the longest first.
        names: of the user and the machine; each is taken out wherever it is a word.
    """

    places: tuple[tuple[str, str], ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, run_dir: Path, configs: Iterable[object]) -> Private:
        """What is private of this machine and user, and all absolute paths that a run's configs have.

        Args:
            configs: the run's, as plain data.
        """
        names = _names()
        here = {str(place): instead for folder, instead in (
            (run_dir.absolute(), "."), (run_dir.resolve(), "."), (Path.cwd(), "."), (OWN.parent, "."),
            (Path(sys.prefix), "python"), *((home, "~") for home in _homes()),
        ) for place in {folder, folder.resolve()} if len(str(place)) > 1}  # fmt: skip
        for config in configs:
            for path, text in texts(config):
                for one in {text, text.partition("=")[2]}:  # also of an override
                    if is_absolute(one) and not one.startswith("~"):
                        here.setdefault(one.rstrip("/\\"), _called(one, names))
                if path in ("paths.output_dir", "hydra.runtime.output_dir", "hydra.runtime.cwd") and is_absolute(text):
                    here[text.rstrip("/\\")] = "."
        here.pop("", None)
        return cls(tuple(sorted(here.items(), key=lambda pair: -len(pair[0]))), names)

    def without(self, text: str, paths: bool = False) -> str:
        """A text without them.

        Args:
            paths: take other absolute paths out too, but for their last names.
        """
        text = self._places.sub(lambda found: self._instead[found[0]], text)
        if paths:
            text = _PATH.sub("", text)
        return self._words.sub("someone", text)

    def plain(self, value: Any) -> Any:
        """Plain data without them; of a text that is an absolute path its last name is left."""
        if isinstance(value, str):
            told = self.without(value)
            return _called(told, self.names) if is_absolute(told) and told != "~" else told
        if isinstance(value, dict):
            kind = OrderedDict if isinstance(value, OrderedDict) else dict
            return kind((self.plain(key), self.plain(one)) for key, one in value.items())
        if type(value) in (list, tuple):
            return type(value)(self.plain(one) for one in value)
        return value

    def without_bytes(self, content: bytes) -> bytes:
        """Bytes without them, as long as they were: what stands for them is filled up or cut off."""

        def as_long(found: re.Match[bytes]) -> bytes:
            instead = self._instead.get(found[0].decode(), "").encode()
            return (instead + b"_" * len(found[0]))[: len(found[0])]

        # Before a text stands its length, which may look like a letter: no bounds are looked for.
        for words in (self._instead, self.names):
            either = b"|".join(re.escape(word.encode()) for word in words)
            content = re.sub(either, as_long, content) if either else content
        return content

    def found_in(self, content: bytes) -> str | None:
        """The first of them that bytes have, as UTF-8 or as NumPy keeps text."""
        for home in map(str, _homes()):
            if any(home.encode(coding) in content for coding in _CODINGS):
                return home
        for name in self.names:
            word = rb"(?<![A-Za-z0-9])" + re.escape(name.encode()) + rb"(?![A-Za-z0-9])"
            if re.search(word, content) or any(name.encode(coding) in content for coding in _CODINGS[1:]):
                return name
        return None

    @functools.cached_property
    def _instead(self) -> dict[str, str]:
        return dict(self.places)

    @functools.cached_property
    def _places(self) -> re.Pattern[str]:
        either = "|".join(re.escape(place) for place, _ in self.places)
        return re.compile(rf"(?<![A-Za-z0-9_/])(?:{either})(?![A-Za-z0-9_-])") if either else re.compile(r"(?!)")

    @functools.cached_property
    def _words(self) -> re.Pattern[str]:
        either = "|".join(re.escape(name) for name in self.names)
        return re.compile(rf"(?<![A-Za-z0-9])(?:{either})(?![A-Za-z0-9])") if either else re.compile(r"(?!)")


def _homes() -> list[Path]:
    with contextlib.suppress(RuntimeError):
        home = Path.home()
        return [one for one in dict.fromkeys([home, home.resolve()]) if len(one.parts) > 1]
    return []


def _names() -> tuple[str, ...]:
    """The user's and the machine's, but those that are a word of this program's configs or of everyone's: of those only
    what stands in a path is taken out."""
    names = []
    with contextlib.suppress(Exception):
        names.append(getpass.getuser())
    names += [home.name for home in _homes()]
    host = socket.gethostname()
    names += [host, host.partition(".")[0]]
    common = _words_of_configs() | _NOBODY
    return tuple(dict.fromkeys(name for name in names if len(name) >= _SHORTEST and name.lower() not in common))


@functools.cache
def _words_of_configs() -> frozenset[str]:
    found: set[str] = set()
    for file in CONFIG_DIR.rglob("*.yaml"):
        with contextlib.suppress(Exception):
            found.update(re.findall(r"[a-z0-9]+", read_text(file, links=True).lower()))
    return frozenset(found)


def _called(path: str, names: Iterable[str]) -> str:
    """What an absolute path is called where it must not be told: its last name, unless that is private."""
    last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return "data" if last in {"", "~", *names} else last
