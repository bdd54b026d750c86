"""The code of this program and of the user's own packages: commit, uncommitted change, and a hash of every file."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from src.errors import UserError
from src.files.untrusted import read_bytes
from src.provenance.record import Code, Patch
from src.storage.trust import nodes
from src.which_src import CONFIG_DIR, OWN

_CODE = frozenset({".py", ".pyx", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".yaml", ".yml", ".html", ".bash"})
_MOST_FILES = 5000  # of one package
_LARGEST = 1 << 20  # bytes of a file that is hashed and put into a patch
_LARGEST_PATCH = 1 << 20
_SECONDS = 20
_LIBRARIES = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True)
class Package:
    """Where a package's code lies.

    Attributes:
        name: `src`, or as it is imported.
        base: the folder that paths are told from.
        parts: its files and folders, by the name that each is told by.
    """

    name: str
    base: Path
    parts: Mapping[str, Path] = field(default_factory=dict)

    def files(self) -> Iterator[tuple[str, Path]]:
        """Its code's files, with their names, sorted; no folder that is a link is entered."""
        count = 0
        for name, part in self.parts.items():
            for file in [part] if part.is_file() else sorted(_below(part)):
                told = name if file == part else f"{name}/{file.relative_to(part).as_posix()}"
                if file.suffix in _CODE and not _nested(self.parts, part, file):
                    count += 1
                    if count > _MOST_FILES:
                        return
                    yield told, file


def _nested(parts: Mapping[str, Path], part: Path, file: Path) -> bool:
    """Whether a file of a part is that of a part inside it: of a wheel, conf/ lies in src/."""
    return any(other != part and other.is_relative_to(part) and file.is_relative_to(other) for other in parts.values())


def _below(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        yield from (Path(at) / name for name in names)


def program() -> Package:
    """This program: `src/` and `conf/`."""
    return Package("src", OWN.parent, {"src": OWN, "conf": CONFIG_DIR})


def packages_of(config: Mapping[str, object], trusted: Collection[str] = ()) -> list[Package]:
    """This program, and the user's own packages that a config names or the user trusts; installed libraries are none."""
    targets = [str(node["_target_"]) for _, node in nodes(config, "")]
    names = dict.fromkeys(target.partition(".")[0] for target in [*targets, *trusted])
    return [program(), *(found for name in names if (found := _own(name)) is not None)]


def _own(name: str) -> Package | None:
    if name in {"src", "__main__", *sys.stdlib_module_names} or not name.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    place = Path(folders[0] if folders else spec.origin or "")
    if not place.exists() or _LIBRARIES & set(place.parts) or place.is_relative_to(sys.base_prefix):
        return None
    return Package(name, place.parent, {place.name: place})


def code_of(package: Package) -> Code:
    """What the code of a package is."""
    files = {}
    for name, file in package.files():
        with contextlib.suppress(OSError, UserError):
            files[name] = hashlib.sha256(read_bytes(file, _LARGEST, links=True)).hexdigest()[:16]
    commit = _commit(package)
    changed = [] if commit is None else [name for name, _ in _changed(package)]
    return Code(commit=commit, uncommitted=changed, files=files)


def patch_of(packages: Collection[Package]) -> tuple[bytes, Patch]:
    """What is in no commit, as `git apply` takes it, and what of it is left out since it is too large.

    Of a package that no repository tracks the whole is in it, but not of this program, which is installed then.
    """
    text, left_out = b"", []
    for package in packages:
        commit = _commit(package)
        if commit is None and package.name == "src":
            continue
        pieces = list(_pieces(package, commit))
        if pieces:
            text += f"# {package.name}, upon {commit or 'nothing: it is in no repository'}\n".encode()
        for name, piece in pieces:
            if piece is None or len(text) + len(piece) > _LARGEST_PATCH:
                left_out.append(name)
            else:
                text += piece
    if left_out:
        text += "".join(f"# left out, too large: {name}\n" for name in left_out).encode()
    return text, Patch(bytes=len(text), left_out=left_out[:1000])


def lines_changed(package: Package, code: Code, name: str) -> str:
    """Where a file differs now from a commit that it was then as: " (line 41)"; empty where that cannot be told."""
    if code.commit is None or name in code.uncommitted:
        return ""
    found = _git(package.base, "diff", "--no-ext-diff", "--no-color", "--relative", "-U0", code.commit, "--", name)
    lines = [int(line) for line in re.findall(rb"^@@ -\S+ \+(\d+)", found or b"", re.MULTILINE)]
    if not lines:
        return ""
    shown = ", ".join(map(str, lines[:5])) + (" …" if len(lines) > 5 else "")
    return f" (line {shown})"


def _pieces(package: Package, commit: str | None) -> Iterator[tuple[str, bytes | None]]:
    """Of each file that is not as in the commit its part of a patch; None of one that is too large."""
    untracked = [name for name, _ in package.files()]
    if commit is not None:
        changed = _changed(package)
        untracked = [name for name, tracked in changed if not tracked]
        for name in (name for name, tracked in changed if tracked):
            diff = _git(package.base, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--relative", "HEAD",
                        "--", name)  # fmt: skip
            yield name, diff
    known = dict(package.files())
    for name in untracked:
        yield name, _as_new(name, known[name]) if name in known else None


def _as_new(name: str, file: Path) -> bytes | None:
    try:
        lines = read_bytes(file, _LARGEST, links=True).decode().splitlines(keepends=True)
    except (OSError, UserError, UnicodeDecodeError):
        return None
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return "".join(difflib.unified_diff([], lines, "/dev/null", f"b/{name}")).encode()


def _commit(package: Package) -> str | None:
    """The commit that is checked out, if a repository tracks this package: one may lie around an installed one."""
    probe = next((name for name, _ in package.files() if name.endswith(".py")), None)
    if probe is None or _git(package.base, "ls-files", "--error-unmatch", "--", probe) is None:
        return None
    found = (_git(package.base, "rev-parse", "HEAD") or b"").decode(errors="replace").strip()
    return found if re.fullmatch(r"[0-9a-f]{7,64}", found) else None


def _changed(package: Package) -> list[tuple[str, bool]]:
    """Files that are not as in the commit, and whether a commit has them."""
    parts = [name for name, part in package.parts.items() if part == package.base / name]
    tracked = (
        _git(package.base, "diff", "--no-ext-diff", "--name-only", "--relative", "-z", "HEAD", "--", *parts) or b""
    )
    new = _git(package.base, "ls-files", "--others", "--exclude-standard", "-z", "--", *parts) or b""
    names = [(name, True) for name in _names(tracked)] + [(name, False) for name in _names(new)]
    return [(name, known) for name, known in names if Path(name).suffix in _CODE]


def _names(listed: bytes) -> list[str]:
    return [name.decode(errors="replace") for name in listed.split(b"\0") if name]


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints in a folder; None where it is not there, fails, takes long or prints too much."""
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 and len(done.stdout) <= _LARGEST_PATCH else None
