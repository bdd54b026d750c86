"""`python -m src.train sweep.resume=DIR`: the same sweep again, of which only what is not done is run.

The folder may be a stranger's: what is taken out of it are plain overrides of the config and of the sweep (strangers.py), never
places to load code or configs from; the launcher checks what the config would build.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from src.cli.job_overrides import split
from src.cli.overrides import literal, path_text
from src.errors import UserError
from src.files.untrusted import shown
from src.storage import run_folder
from src.storage.trust import split_packages
from src.sweep.foreign_sweeps import check_arguments, check_overrides, key_of
from src.sweep.record import FILE, Record

KEY = "sweep.resume="
_LAUNCHER = ("hydra.launcher.", "hydra/launcher=")


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
    named = path_text(next(a for a in arguments if a.startswith(KEY)).removeprefix(KEY))
    folder = Path(named).expanduser().absolute()
    run_folder.check_own(folder)
    record = Record.read(folder)
    if record is None:
        raise UserError(f"sweep.resume: {folder} is no sweep's folder; it has no {FILE}")
    flags, given = _options_and_overrides(arguments)
    kept_flags, kept = _options_and_overrides(record.arguments)
    if flags != kept_flags:
        raise UserError(
            f"sweep.resume: the sweep was started with {shown(' '.join(kept_flags)) or 'no config folder'}; say so too"
        )
    if Path(record.directory) != Path.cwd():
        raise UserError(
            f"sweep.resume: the sweep was started in {shown(record.directory)}; paths count from there: cd there first"
        )
    of = f"sweep.resume: {folder / FILE}"
    own = {key_of(argument) for argument in given}
    check_arguments(kept, of, own)
    for job in record.jobs:
        check_overrides(job.overrides, of, own)
    check_overrides(record.changes, of, own)
    of_launcher: list[str] = []
    for argument in given:
        key, _, value = argument.partition("=")
        if key == "trust":
            trusted[:] = split_packages(value)
        elif argument.startswith(_LAUNCHER):
            of_launcher.append(argument)
        elif argument in kept:
            said.append(key)
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
    with record.locked():
        record.save()
    rest = [a for a in kept if not a.startswith("hydra.sweep.dir=")]
    return ["-m", *flags, *rest, *of_launcher, f"hydra.sweep.dir={literal(str(folder))}"]


def _options_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options that say where configs are, and the overrides."""
    flags, overrides = split(arguments)
    return [flag for flag in flags if flag not in ("-m", "--multirun")], overrides
