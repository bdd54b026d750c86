"""`python -m src.train sweep.resume=DIR`: the same sweep again, of which only what is not done is run.

The folder may be a stranger's: what is taken out of it are plain overrides of the config and of the sweep (strangers.py), never
places to load code or configs from; the launcher checks what the config would build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from src.cli.job_overrides import split
from src.cli.overrides import literal
from src.cli.request import Request
from src.errors import UserError
from src.files.untrusted import shown
from src.storage import run_folder
from src.sweep.foreign_sweeps import check_arguments, check_overrides, key_of
from src.sweep.record import FILE, Record

_LAUNCHER = ("hydra.launcher.", "hydra/launcher=")


def resumed(request: Request, may_change: Sequence[str]) -> Request:
    """The request that goes on with the sweep that `request` names.

    Args:
        request: with `sweep` and what changes: keys of the launcher, and of `may_change` for the jobs; what is trusted; and
            config folders and `like` as the sweep was started with.
        may_change: keys that say only where and how fast a run goes.

    Raises:
        UserError: no such sweep, one that was started otherwise, or a key that would make its jobs others than they were.
    """
    folder = request.sweep
    assert folder is not None
    run_folder.check_own(folder)
    record = Record.read(folder)
    if record is None:
        raise UserError(f"sweep.resume: {folder} is no sweep's folder; it has no {FILE}")
    flags, kept_flags = _without_m(request.options), _without_m(split(record.arguments)[0])
    if flags != kept_flags:
        raise UserError(
            f"sweep.resume: the sweep was started with {shown(' '.join(kept_flags)) or 'no config folder'}; say so too"
        )
    if Path(record.directory) != Path.cwd():
        raise UserError(
            f"sweep.resume: the sweep was started in {shown(record.directory)}; paths count from there: cd there first"
        )
    of = f"sweep.resume: {folder / FILE}"
    given = [*request.origin, *request.overrides]
    own = {key_of(argument) for argument in given} | ({"trust"} if request.trust else set())
    kept = split(record.arguments)[1]
    check_arguments(kept, of, own)
    for job in record.jobs:
        check_overrides(job.overrides, of, own)
    check_overrides(record.changes, of, own)
    of_launcher: list[str] = []
    said: list[str] = []
    for argument in given:
        key = key_of(argument)
        if argument.startswith(_LAUNCHER):
            of_launcher.append(argument)
        elif argument in kept:
            said.append(key)
        elif key in may_change:
            record.changes = [c for c in record.changes if c.partition("=")[0] != key] + [argument]
            said.append(key)
        elif key != "trust":
            raise UserError(
                f"{key}: a resumed sweep keeps its config (only launcher.*, {', '.join(may_change)} may change)"
            )
    for change in record.changes:
        if change.partition("=")[0] not in may_change:
            raise UserError(f"sweep.resume: {folder / FILE} changes {change!r}; refused")
    record.resuming = True
    with record.locked():
        record.save()
    as_begun = Request.parse("train", kept)
    rest = [override for override in as_begun.overrides if not override.startswith("hydra.sweep.dir=")]
    arguments = ["-m", *flags, *rest, *of_launcher, f"hydra.sweep.dir={literal(str(folder))}"]
    return replace(as_begun, arguments=tuple(arguments), sweep=folder, trust=request.trust, said=tuple(said))


def _without_m(options: Sequence[str]) -> list[str]:
    return [option for option in options if option not in ("-m", "--multirun")]
