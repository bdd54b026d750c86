"""Overrides as people type them: a key that is known to be a path takes the text as it is, whatever characters are in it.

Hydra's grammar gives spaces, commas, brackets, quotes, `=`, `:`, `#`, `$` and `~` a meaning. Here the text of a path is put in
quotes before Hydra reads it; text that already is in quotes, or is escaped as the grammar wants, stays what it was. Where a
sweep is asked for (`-m`), a comma separates paths unless the whole text is the path of something that is there.
"""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from src.files.untrusted import shown

# Every key of every command that names files or folders, in its long form.
READ = frozenset({
    "data.root", "data.cache_dir", "data.labeled_list",
    "data.dataset.cache_dir", "ckpt", "ckpt_b", "input", "init_from", "network.encoder_weights", "dir", "run", "data.synthetic",
    "model.judge", "model.teacher",
})  # fmt: skip
WRITTEN = frozenset(
    {"output", "hydra.run.dir", "hydra.sweep.dir", "resume", "like", "sweep.resume"}
)  # one each, never swept
PATTERNS = frozenset({f"data.dataset.{key}" for key in ("images", "masks", "depths", "lists")})  # or one for each split
PATHS = READ | WRITTEN | PATTERNS

_PLAIN = re.compile(r"[A-Za-z0-9_/.\-+@%*?|]+")  # what Hydra takes for text as it stands …
_NOT_TEXT = re.compile(r"[+-]?[\d._]+(e[+-]?\d+)?|[+-]?(inf|nan)|true|false|null", re.IGNORECASE)  # … but for these
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_ESCAPED = re.compile(r"\\([()\[\]{}:=,\\ \t])")
_LIST = re.compile(r"\[.*\]", re.DOTALL)
_SWEEP = re.compile(r"(choice|glob|shuffle|sort|tag|range|interval)\(.*\)")
_OF_SPLITS = re.compile(r"\{\s*['\"]?(train|val|test)['\"]?\s*:.*\}")
_MULTIRUN = frozenset({"-m", "--multirun", "hydra.mode=MULTIRUN"})


def with_paths_quoted(arguments: Sequence[str], listed: Collection[str] = ()) -> list[str]:
    """A command line, keys in their long forms, as Hydra reads it; applied twice it changes nothing more.

    Args:
        listed: keys of this command that are a path, or a list of them in the grammar's brackets.
    """
    multirun = not _MULTIRUN.isdisjoint(arguments) or any(a.startswith("sweep=") for a in arguments)
    result = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        name = key.lstrip("+")
        is_list = name in listed and _LIST.fullmatch(value) is not None and not _there(value)
        if equals and name in PATHS.union(listed) and not is_list:
            argument = f"{key}={_as_read(name, value, multirun)}"
        result.append(argument)
    return result


def path_text(value: str) -> str:
    """The path that was meant: what was typed or, where that is not there, the same without the grammar's quotes or escapes."""
    if _there(value):
        return value
    if _QUOTED.fullmatch(value):
        return re.sub(r"\\(?=\\*['\"])", "", value[1:-1])
    unescaped = _ESCAPED.sub(r"\1", value)
    return unescaped if _there(unescaped) else value


def quoted(text: str) -> str:
    """Text as one value of the grammar, its interpolations alive."""
    return QuotedString(text, Quote.single).with_quotes()


def literal(text: str) -> str:
    """Text as one value of the grammar, with nothing in it that is resolved."""
    return quoted(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def misread(override: str) -> str:
    """What is said of an override that is not in the grammar."""
    key, equals, value = override.partition("=")
    said = shown(override)
    if not equals:
        return f"{said}: an override is key=value, e.g. seed=1 (--help lists the keys)"
    if not re.fullmatch(r"[+~]*[\w$][\w$.\-/@:]*", key):
        return f"{said}: {shown(key)!r} is no key; an override is key=value without spaces around the =, e.g. seed=1"
    if value.startswith(("[", "{")) or _SWEEP.match(f"{value})"):
        return (
            f"{key}: {shown(value)} cannot be read; close every bracket, put commas between the values, and quote the whole "
            f"for the shell: {_for_shell(f'{key}=[1,2]')}"
        )
    return (
        f"{key}: {shown(value)} cannot be read, for some of its characters have a meaning here; put it in quotes, and these in "
        f"the shell's: {_for_shell(f'{key}={quoted(value)}')}"
    )


def one_of_many(key: str, value: str) -> str:
    """What is said of several values where there is to be one."""
    said = shown(value)
    return (
        f"{key}: {said} are several values; sweep over them with -m, or take {key}=[{said}] for a list, "
        f"{_for_shell(f'{key}={quoted(value)}')} for text"
    )


def parsed_as_text(error: HydraException) -> str | None:
    """Our words for what the grammar says of a command line; None where it is another error."""
    from hydra.errors import OverrideParseException

    if isinstance(error, OverrideParseException):
        return misread(error.override)
    text = str(error)
    if "Could not override ''" in text:
        return misread("=")
    if match := re.search(r"Ambiguous value for argument '([^=]*)=(.*?)'\n", text, re.DOTALL):
        return one_of_many(match[1], match[2])
    if match := re.search(r"Sweep parameters '([^=]*)=(.*)' requires --multirun", text, re.DOTALL):
        return f"{match[1]}: {shown(match[2])} is for a sweep; add -m"
    return None


def _as_read(key: str, value: str, multirun: bool) -> str:
    if not value or value == "null" or _SWEEP.fullmatch(value) or (key in PATTERNS and _OF_SPLITS.fullmatch(value)):
        return value
    if _there(value):
        return literal(value) if "${" in value else _one(value)
    if multirun and key not in WRITTEN and "," in value:
        as_they_are = {part for part in _split(value) if part == "null" or _QUOTED.fullmatch(part)}
        return ",".join(part if part in as_they_are else _one(path_text(part)) for part in _split(value))
    if _QUOTED.fullmatch(value):
        return value
    return _one(_at_home(key, path_text(value)))


def _one(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and not _NOT_TEXT.fullmatch(text) else quoted(text)


def _at_home(key: str, text: str) -> str:
    """`~` resolved where Hydra itself makes the folder; the commands resolve it in all others."""
    return str(Path(text).expanduser()) if key.startswith("hydra.") and text.startswith("~") else text


def _split(value: str) -> list[str]:
    """At commas outside of quotes that are not escaped."""
    parts, rest = [], value
    while rest is not None:
        match = re.match(rf"\s*((?:{_QUOTED.pattern})|(?:\\.|[^,\\])*)\s*(,|$)", rest, re.DOTALL)
        if match is None:
            return [value]
        parts.append(match[1])
        rest = rest[match.end() :] if match[2] else None  # type: ignore[assignment]
    return parts


def _there(text: str) -> bool:
    try:
        return Path(text).expanduser().exists() or (glob.has_magic(text) and next(glob.iglob(text), None) is not None)
    except (OSError, ValueError, RuntimeError):  # no path at all, or nobody's home
        return False


def _for_shell(override: str) -> str:
    return f'"{override}"' if not re.search(r'["$`\\!]', override) else shlex.quote(override)
