"""`python -m src.train sweep.resume=DIR`: the same sweep again, of which only what is not done is run.

The folder may be a stranger's: what is taken out of it are overrides of the config and of the sweep, never places to load
code or configs from; the launcher checks what the config would build.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from src.config.trusted import split_packages
from src.errors import UserError
from src.sweep.record import FILE, Record

KEY = "sweep.resume="
_LAUNCHER = ("hydra.launcher.", "hydra/launcher=")
_OF_HYDRA = (*_LAUNCHER, "hydra.sweeper.", "hydra/sweeper", "hydra.sweep.dir=", "hydra.sweep.subdir=", "hydra.mode=")
_WITH_VALUE = ("--config-dir", "-cd", "--config-name", "-cn")

# Of the launcher what a folder may decide: how many jobs where. Its other parameters reach a cluster's scripts.
_OF_LAUNCHER = ("devices=", "devices_per_job=", "jobs=", "grace_seconds=", "cluster=", "timeout_min=")

trusted: list[str] = []  # packages that the command line of this process trusts
said: list[str] = []  # keys of the jobs' configs that it gives


def arguments_to_resume(arguments: Sequence[str], may_change: Sequence[str]) -> list[str]:
    """The command line that goes on with the sweep named in `arguments`.

    Args:
        arguments: long forms: `sweep.resume=DIR` and what changes: keys of the launcher, and of `may_change` for the jobs;
            `trust=…`; and config folders that the sweep was started with.
        may_change: keys that say only where and how fast a run goes.

    Raises:
        UserError: no such sweep, one that was started otherwise, or a key that would make its jobs others than they were.
    """
    folder = Path(next(a for a in arguments if a.startswith(KEY)).removeprefix(KEY)).expanduser().absolute()
    record = Record.read(folder)
    if record is None:
        raise UserError(f"sweep.resume: {folder} is no sweep's folder; it has no {FILE}")
    flags, given = _split(arguments)
    kept_flags, kept = _split(record.arguments)
    if flags != kept_flags:
        raise UserError(
            f"sweep.resume: the sweep was started with {' '.join(kept_flags) or 'no config folder'}; say so too"
        )
    if Path(record.directory) != Path.cwd():
        raise UserError(
            f"sweep.resume: the sweep was started in {record.directory}; paths count from there: cd there first"
        )
    for argument in kept:
        if argument.lstrip("+~").startswith(("hydra.", "hydra/")) and not argument.lstrip("+~").startswith(_OF_HYDRA):
            raise UserError(f"sweep.resume: {folder / FILE} has {argument!r}, which decides what Hydra does; refused")
        name = argument.lstrip("+~").removeprefix("hydra.launcher.")
        reaches_far = argument.lstrip("+~").startswith("hydra.launcher.") and not name.startswith(_OF_LAUNCHER)
        if reaches_far and argument not in given:
            raise UserError(
                f"sweep.resume: {folder / FILE} has {argument!r}, which decides what a cluster runs; if that is right, "
                f"say so: '{argument.replace('hydra.launcher.', 'launcher.')}'"
            )
        if "${" in argument:
            raise UserError(
                f"sweep.resume: {folder / FILE} has {argument!r}, which only OmegaConf could resolve; refused"
            )
    of_launcher: list[str] = []
    for argument in given:
        key, _, value = argument.partition("=")
        if key == "trust":
            trusted[:] = split_packages(value)
        elif argument.startswith(_LAUNCHER):
            of_launcher.append(argument)
        elif key in may_change:
            record.changes = [c for c in record.changes if c.partition("=")[0] != key] + [argument]
            said.append(key)
        elif not argument.startswith(KEY):
            raise UserError(
                f"{key}: a resumed sweep keeps its config (only launcher.*, {', '.join(may_change)} may change)"
            )
    for change in record.changes:
        if change.partition("=")[0] not in may_change:
            raise UserError(f"sweep.resume: {folder / FILE} changes {change!r}; refused")
    record.resuming = True
    with record.alone():
        record.save()
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    rest = [a for a in kept if not a.startswith("hydra.sweep.dir=")]
    return ["-m", *flags, *rest, *of_launcher, f"hydra.sweep.dir='{quoted}'"]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options that say where configs are, and the rest without `-m`."""
    flags: list[str] = []
    others: list[str] = []
    left: Iterator[str] = iter(arguments)
    for argument in left:
        if argument in _WITH_VALUE:
            flags += [argument, next(left, "")]
        elif argument.startswith("-"):
            flags += [] if argument in ("-m", "--multirun") else [argument]
        else:
            others.append(argument)
    return flags, others
