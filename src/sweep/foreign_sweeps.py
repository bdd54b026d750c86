"""What of a sweep folder's own words may be said to Hydra again: the folder, and with it its command line, may be a stranger's.

An override is as good as code where it names a config file elsewhere, a resolver (`${x:…}`), or a key of Hydra's that is built
or run. So only keys of the config and a few of the sweep's are taken, with plain values and names of other keys (`${seed}`);
what the config then builds, reads and writes is checked when the jobs are composed (plan.py). What the user says again on the
command line is theirs, and is not asked about.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from src.cli.command import CONFIG_DIR
from src.config import hydra_internals
from src.config.schema import GROUPS, TOP_LEVEL
from src.errors import UserError
from src.files.untrusted import shown

_HEADS = frozenset({*GROUPS, *TOP_LEVEL, "experiment", "debug", "sweep"}) - {"paths", "resume", "like"}
_OPTION = re.compile(r"[\w+-][\w.+-]*")  # of a group: the name of a file there, never a path
_REFERENCE = re.compile(r"\$\{([A-Za-z]\w*)(?:\.\w+)*\}")
_URL = re.compile(r"\s*[\w+.-]{2,}:(//|/|[\w.-]+/)")  # s3://…, local:/…
_SUBDIR = re.compile(r"[^$]|\$\{hydra[.:]job\.(num|id|override_dirname)\}")
_LAUNCHER = ("devices", "devices_per_job", "jobs", "grace_seconds", "timeout_min", "cluster")
_SWEEPER = ("n", "direction", "seed")
_OPTIONS = {
    "hydra/launcher": ("process", "joblib", "submitit"),
    "hydra/sweeper": ("grid", "seeds", "folds", "optuna"),
}
_MOST_JOBS = 10_000
_LONGEST = 4_000  # characters of an override: its grammar takes seconds for thousands of brackets


def check_arguments(arguments: Sequence[str], of: str, own: Collection[str]) -> None:
    """Checks the command line that a sweep folder says it was started with.

    Args:
        arguments: overrides in their long forms.
        of: whose they are, for the error.
        own: keys that the user has typed, in their long forms: what they say is theirs.

    Raises:
        UserError: the first that is not taken out of a folder that may be a stranger's.
    """
    jobs = 1
    for argument in arguments:
        if key_of(argument) in own:
            continue
        override = _parsed(argument, of)
        if override.is_hydra_override():
            _check_of_sweep(override, argument, of)
        else:
            _check_of_job(override, argument, of)
        jobs *= _count(override)
        if jobs > _MOST_JOBS:
            raise _refused(of, argument, f"makes more than {_MOST_JOBS:,} jobs")


def check_overrides(overrides: Sequence[str], of: str, own: Collection[str] = ()) -> None:
    """Checks what a sweep folder says that a job runs with, or that was changed.

    Raises:
        UserError: the first that is not taken out of a folder that may be a stranger's.
    """
    for text in overrides:
        if key_of(text) not in own:
            override = _parsed(text, of)
            if override.is_hydra_override() or override.is_sweep_override():
                raise _refused(of, text, "decides what Hydra does")
            _check_of_job(override, text, of)


def interpolates(text: str) -> bool:
    """Whether a text has interpolations other than the names of the config's own keys (`${seed}`), which run nothing; what
    these come to is looked at when a job's config is composed."""
    rest = _REFERENCE.sub(lambda found: "" if found[1] in _HEADS else found[0], text)
    return "${" in rest or ("${" in text and "\\" in text)


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _check_of_job(override: Override, text: str, of: str) -> None:
    key = override.key_or_group
    if override.package is not None or key.partition(".")[0] not in _HEADS:
        raise _refused(of, text, "is no key of the config")
    values = list(_values(override))
    if (CONFIG_DIR / key).is_dir():
        if not all(v is None or _OPTION.fullmatch(str(v)) for v in values):
            raise _refused(of, text, "names a file elsewhere")
        return
    for value in values:
        for part in _leaves(value):
            if isinstance(part, str) and interpolates(part):
                raise _refused(of, text, "has an interpolation, which can run what it names")
            if isinstance(part, str) and _URL.match(part):
                raise _refused(of, text, "names a place on a network")
    if key.endswith("cache_dir") and values != [None]:
        raise _refused(of, text, "names a folder to write to")


def _check_of_sweep(override: Override, text: str, of: str) -> None:
    key, values = override.key_or_group, list(_values(override))
    room, _, rest = key.removeprefix("hydra.").partition(".")
    leaves = [leaf for value in values for leaf in _leaves(value)]
    flat = all(not isinstance(item, Mapping) for value in values for item in _inside(value))
    plain = flat and not any(isinstance(leaf, str) and "${" in leaf for leaf in leaves)
    allowed = False
    if override.package is None and not override.is_delete():
        if key in _OPTIONS:
            allowed = all(value in _OPTIONS[key] for value in values)
        elif key in ("hydra/sweeper/sampler", "hydra/sweeper/pruner"):
            allowed = all(value is None or _OPTION.fullmatch(str(value)) for value in values)
        elif key == "hydra.sweep.subdir":
            allowed = all(isinstance(value, str | int) and not _SUBDIR.sub("", str(value)) for value in values)
        elif key in ("hydra.sweep.dir", "hydra.mode"):
            allowed = key == "hydra.sweep.dir" or values == ["MULTIRUN"]
        elif room == "launcher":
            allowed = plain and rest in _LAUNCHER
        elif room == "sweeper" and rest.partition(".")[0] in ("sampler", "pruner"):
            of_part = rest.partition(".")[2]
            allowed = plain and (
                of_part == "_target_" or re.fullmatch(r"[a-z]\w*", of_part) is not None or values == [None]
            )
        elif room == "sweeper" and rest == "params":
            maps = [value for value in values if isinstance(value, Mapping)]
            inside = [item for value in maps for inner in value.values() for item in _inside(inner)]
            allowed = len(maps) == len(values) and not any(isinstance(item, Mapping) for item in inside)
            inner = [f"{k}={_written(v)}" for value in maps for k, v in value.items()]
            check_arguments([as_job for as_job in inner if not as_job.startswith("hydra")], of, ())
            allowed = allowed and not any(as_job.lstrip("+~").startswith("hydra") for as_job in inner)
        elif room == "sweeper":
            allowed = plain and rest in _SWEEPER
    if not allowed:
        raise _refused(of, text, "decides what Hydra does")


def _written(value: object) -> str:
    return hydra_internals.written(value) if isinstance(value, list | dict) else str(value)


def _parsed(text: str, of: str) -> Override:
    if len(text) > _LONGEST:
        raise UserError(f"{of} has an override of {len(text):,} characters ({shown(text, 40)}); refused")
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, ValueError, RecursionError):
        raise UserError(f"{of} has {shown(repr(text))}, which is no override; refused") from None


def _values(override: Override) -> Iterator[object]:
    """The value, or, of a sweep, each that is listed; of a range or an interval nothing, for they are numbers."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        for item in value.list:
            yield item.text if isinstance(item, QuotedString) else hydra_internals.plain_value(item)
    elif not isinstance(value, RangeSweep | IntervalSweep | Glob):
        yield value


def _count(override: Override) -> int:
    """Jobs that a sweep makes; an interval is a search's and makes none by itself."""
    value = override.value()
    if isinstance(value, RangeSweep):
        return sum(1 for _ in itertools.islice(value.range(), _MOST_JOBS + 1)) or 1
    return max(1, len(value.list)) if isinstance(value, ChoiceSweep) else 1


def _inside(value: object) -> Iterator[object]:
    yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _inside(inner)


def _leaves(value: object) -> Iterator[object]:
    for inner in _inside(value):
        if isinstance(inner, Mapping):
            yield from inner
        elif not isinstance(inner, list):
            yield inner


def _refused(of: str, text: str, why: str) -> UserError:
    return UserError(
        f"{of} has {shown(repr(text))}, which {why}; refused, since the folder may be someone else's: if it is yours, say it "
        f"again: sweep.resume=… {shown(text)}"
    )
