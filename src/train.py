"""Trains: `python -m src.train [overrides]`; `resume=RUN_DIR` goes on, `like=RUN_DIR` starts anew, `-m` sweeps."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import CONFIG_DIR, Like, plain, report_user_errors, start, written_out
from src.cli.job_overrides import split
from src.cli.overrides import path_text
from src.config.changes import LIMITS, PLACE, Said, changed, check_values, key_of, may_change, refusal
from src.config.check import check
from src.distributed import rendezvous
from src.errors import UserError
from src.files import untrusted
from src.storage import run_folder
from src.storage.resume import nothing_left
from src.storage.run_config import (
    check_writes,
    filled,
    is_so,
    overridden,
    read_config,
    settled,
    trust_in,
    without_own_interpolations,
)  # fmt: skip
from src.storage.trust import OWN, STRANGER, Trust, check_targets, split_packages

if TYPE_CHECKING:  # importing torch takes seconds: --help and a config error do without
    from src.training.run import Outcome


def train(
    settings: Mapping[str, Any], resume: bool = False, trust: Trust = STRANGER, said: Said | None = None
) -> Outcome:
    """Trains, tests the best checkpoint and writes metrics.json.

    Args:
        settings: the whole config as plain containers, interpolations resolved.
        resume: go on from the last checkpoint in the config's run folder.
        trust: what may be built of the settings; this program's own parts, unless they are known to be the user's (`OWN`).
        said: what the user changes of a run that goes on.

    Raises:
        UserError: bad config or data, or the loss diverged.
    """
    check_targets(settings, trust)
    check(settings)
    from src.training.run import run

    return run(settings, resume=resume, trust=trust, said=said)


def _task(config: DictConfig, trust: Trust = OWN) -> float | None:
    settings = plain(config)
    _write_down(config, settings)
    if trust.of is not None:
        check_writes(settings, trust, Path(settings["paths"]["output_dir"]))
    outcome = train(settings, trust=trust)
    if outcome.status == "interrupted":
        sys.exit(130)
    return outcome.optimized


def _write_down(config: DictConfig, settings: Mapping[str, Any]) -> None:
    """Puts values in the run folder's config where only this machine and moment could resolve what the user wrote: it is read
    as plain data when the run is gone on with."""
    if HydraConfig.get().output_subdir is None:  # of a rank that is not the first
        return
    raw = OmegaConf.to_container(config, resolve=False)
    known = without_own_interpolations(raw, settings)
    if known != raw:
        file = Path(HydraConfig.get().runtime.output_dir) / run_folder.CONFIG
        run_folder.write_text(file, yaml.safe_dump(known, sort_keys=False, allow_unicode=True))


def _resume(arguments: list[str]) -> None:
    """Goes on with a run, in its folder, with its config and what may change of it."""
    run_dir, packages, overrides = _taken_out(arguments, "resume")
    if options := split(overrides)[0]:
        raise UserError(
            f"{options[0]}: has no place beside resume=, for a run that goes on has its config in its folder; leave it out"
        )
    run_folder.check_own(run_dir)
    config = read_config(run_dir, "resume")
    as_it_is, unchanged = OmegaConf.to_yaml(OmegaConf.create(config)), copy.deepcopy(config)
    here, changes = _changes(config, overrides, run_dir)
    trust = trust_in(run_dir, "resume", packages, [*here, *changes])
    settings = settled(config, run_dir, trust, [*here, *changes])
    check_values(changed(filled(config, run_dir, here, str(trust.of)), settings), run_dir)
    check(settings)
    keys = [key_of(override) for override in overrides]
    done = nothing_left(run_dir, settings, keys)
    if done is not None:
        if (place := rendezvous.place()) is None or place.rank == 0:
            print(done)
        return
    logging.basicConfig(
        level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S",
        handlers=[logging.StreamHandler(sys.stdout), logging.FileHandler(run_dir / "train.log")],
    )  # fmt: skip
    as_said = OmegaConf.to_yaml(overridden(unchanged, changes))
    said = Said(None if as_said == as_it_is else as_said, longer=any(key in LIMITS for key in keys))
    if train(settings, resume=True, trust=trust, said=said).status == "interrupted":
        sys.exit(130)


def _changes(config: dict[str, Any], overrides: list[str], run_dir: Path) -> tuple[list[str], list[str]]:
    """The overrides as they apply to a run's config: those that only say where it runs, or how it is already, and those that
    may change it.

    Raises:
        UserError: one would make the run another.
    """
    place, changes = [], []
    for override in overrides:
        key = key_of(override)
        removes = override.startswith("~") and key.startswith(("callbacks.", "logger."))
        as_hydra = override if removes else f"++{override.lstrip('+')}"
        if key in PLACE:
            place.append(as_hydra)
        elif may_change(key) and (removes or "=" in override):
            changes.append(as_hydra)
        elif is_so(config, override):  # the user says what a stranger's config alone would not be believed
            place.append(override)
        else:
            raise refusal(key, run_dir)
    if any(override.startswith("trainer.strategy=") for override in overrides):
        for key in ("zero_stage", "offload"):  # of the strategy that was
            config.get("trainer", {}).pop(key, None)
    return place, changes


def _like(arguments: list[str]) -> None:
    """Starts anew, in a folder of its own, with the config that another run had."""
    run_dir, packages, overrides = _taken_out(arguments, "like")
    groups = [key for key in (o.partition("=")[0].lstrip("+") for o in overrides) if (CONFIG_DIR / key).is_dir()]
    groups = [key for key in groups if not key.startswith("hydra") and key != "sweep"]
    if groups:
        raise UserError(
            f"{groups[0]}: with like= the options are those of that run; change its keys, e.g. {groups[0]}.…=…, or start "
            "from conf/ without like="
        )
    config = read_config(run_dir, "like")
    trust = trust_in(run_dir, "like", packages, [o for o in overrides if "=" in o and not o.startswith("-")])
    settled(config, run_dir, trust, [], anew=True)
    if untrusted.inside(run_dir, run_folder.CHANGES).is_file():
        print(
            f"note: {run_dir} was changed on its way ({run_folder.CHANGES}); this run starts with what it had in the end"
        )
    again = [f"like={run_dir}", *([f"trust={','.join(packages)}"] if packages else [])]
    sys.argv[1:] = overrides
    start("train", lambda settings: _task(settings, trust), check, Like(config, again), _register_sweepers)


def _taken_out(arguments: list[str], key: str) -> tuple[Path, list[str], list[str]]:
    """The run folder that `key=…` names, the packages that `trust=…` names, and the other arguments."""
    given = {a.partition("=")[0]: a.partition("=")[2] for a in arguments}
    others = [a for a in arguments if a.partition("=")[0] not in (key, "trust")]
    return Path(path_text(given[key])).expanduser().resolve(), list(split_packages(given.get("trust"))), others


def _given(arguments: list[str], key: str) -> bool:
    return any(a.startswith(f"{key}=") and a != f"{key}=null" for a in arguments)


def _prepare(arguments: list[str]) -> None:
    """Makes of `sweep.resume=…` the command line that goes on with the sweep, and notes whom its jobs trust: what this command
    line builds is the user's, but a job that is gone on with is a run folder."""
    if any(a.startswith("sweep.resume=") for a in arguments):
        from src.sweep.resume import arguments_to_resume

        arguments = arguments_to_resume(written_out(arguments), PLACE)
    if _given(arguments, "trust"):
        from src.sweep import resume

        resume.trusted[:] = split_packages(next(a for a in arguments if a.startswith("trust=")).partition("=")[2])
    sys.argv[1:] = arguments


def _register_sweepers() -> None:
    from src.sweep import plugins

    plugins.register()


def main() -> None:
    if _given(sys.argv[1:], "resume"):
        report_user_errors(lambda: _resume(sys.argv[1:]))
        return
    report_user_errors(lambda: _prepare(sys.argv[1:]))
    if _given(sys.argv[1:], "like"):
        report_user_errors(lambda: _like(sys.argv[1:]))
    else:
        sys.argv[1:] = [a for a in sys.argv[1:] if not a.startswith("trust=")]
        start("train", _task, check, prepare_sweep=_register_sweepers)


if __name__ == "__main__":
    main()
