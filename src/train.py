"""Trains: `python -m src.train [overrides]`; `resume=RUN_DIR` goes on, `like=RUN_DIR` starts anew, `-m` sweeps."""

from __future__ import annotations

import copy
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import CONFIG_DIR, start
from src.cli.imports import importing_torch
from src.cli.request import Request
from src.cli.user_errors import report_user_errors
from src.config.changes import LIMITS, PLACE, Said, changed, check_values, key_of, may_change, refusal
from src.config.check import checked
from src.config.parts import Config
from src.config.settings import Settings
from src.distributed import rendezvous
from src.errors import UserError
from src.files import untrusted
from src.provenance.differences import made_otherwise
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
from src.storage.trust import OWN, STRANGER, Trust, check_targets

if TYPE_CHECKING:  # importing torch takes seconds: --help and a config error do without
    from src.training.run import Outcome


def train(
    settings: Config | Settings, resume: bool = False, trust: Trust = STRANGER, said: Said | None = None
) -> Outcome:
    """Trains, tests the best checkpoint and writes metrics.json.

    Args:
        settings: what the run is told, or the whole config as plain containers, interpolations resolved.
        resume: go on from the last checkpoint in the config's run folder.
        trust: what may be built of the settings; this program's own parts, unless they are known to be the user's (`OWN`).
        said: what the user changes of a run that goes on.

    Raises:
        UserError: bad config or data, or the loss diverged.
    """
    check_targets(settings.plain if isinstance(settings, Settings) else settings, trust)
    asked = checked(settings)
    with importing_torch():
        from src.training.run import run

    return run(asked, resume=resume, trust=trust, said=said)


def _task(settings: Settings, config: DictConfig, trust: Trust = OWN) -> float | None:
    _write_down(config, settings.plain)
    if trust.of is not None:
        check_writes(settings.plain, trust, settings.run_dir)
    outcome = train(settings, trust=trust)
    if outcome.status == "interrupted":
        sys.exit(130)
    return outcome.optimized


def _write_down(config: DictConfig, resolved: Config) -> None:
    """Puts values in the run folder's config where only this machine and moment could resolve what the user wrote: it is read
    as plain data when the run is gone on with."""
    if HydraConfig.get().output_subdir is None:  # of a rank that is not the first
        return
    raw = OmegaConf.to_container(config, resolve=False)
    known = without_own_interpolations(raw, resolved)
    if known != raw:
        file = Path(HydraConfig.get().runtime.output_dir) / run_folder.CONFIG
        run_folder.write_text(file, yaml.safe_dump(known, sort_keys=False, allow_unicode=True))


def _resume(request: Request) -> None:
    """Goes on with a run, in its folder, with its config and what may change of it."""
    run_dir, overrides = request.resume, request.overrides
    assert run_dir is not None
    if request.options:
        raise UserError(
            f"{request.options[0]}: has no place beside resume=, for a run that goes on has its config in its folder; "
            "leave it out"
        )
    run_folder.check_own(run_dir)
    config = read_config(run_dir, "resume")
    as_it_is, unchanged = OmegaConf.to_yaml(OmegaConf.create(config)), copy.deepcopy(config)
    here, changes = _changes(config, overrides, run_dir)
    trust = trust_in(run_dir, "resume", request.trust, [*here, *changes])
    now = settled(config, run_dir, trust, [*here, *changes])
    check_values(changed(filled(config, run_dir, here, str(trust.of)), now), run_dir)
    settings = checked(now)
    keys = [key_of(override) for override in overrides]
    done = nothing_left(run_dir, settings.trainer, settings.test, keys)
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


def _like(request: Request) -> None:
    """Starts anew, in a folder of its own, with the config that another run had."""
    run_dir, overrides = request.like, request.overrides
    assert run_dir is not None
    groups = [key for key in (o.partition("=")[0].lstrip("+") for o in overrides) if (CONFIG_DIR / key).is_dir()]
    groups = [key for key in groups if not key.startswith("hydra") and key != "sweep"]
    if groups:
        raise UserError(
            f"{groups[0]}: with like= the options are those of that run; change its keys, e.g. {groups[0]}.…=…, or start "
            "from conf/ without like="
        )
    config = read_config(run_dir, "like")
    trust = trust_in(run_dir, "like", request.trust, [override for override in overrides if "=" in override])
    settled(config, run_dir, trust, [], anew=True)
    if told := made_otherwise(run_dir, request.trust):
        print(f"note: {told}")
    if untrusted.inside(run_dir, run_folder.CHANGES).is_file():
        print(
            f"note: {run_dir} was changed on its way ({run_folder.CHANGES}); this run starts with what it had in the end"
        )
    start("train", lambda settings, made: _task(settings, made, trust), checked, request, config, _register_sweepers)


def _register_sweepers() -> None:
    from src.sweep import plugins

    plugins.register()


def main() -> None:
    """Reads the command line once, and does what it asks for."""
    asked: list[Request] = []

    def read() -> None:
        request = Request.parse("train")
        if request.sweep is not None and request.resume is None:
            from src.sweep.resume import resumed

            request = resumed(request, PLACE)
        asked.append(request)

    report_user_errors(read)
    (request,) = asked
    if request.resume is not None:
        report_user_errors(lambda: _resume(request))
    elif request.like is not None:
        report_user_errors(lambda: _like(request))
    else:
        start("train", _task, checked, request, prepare_sweep=_register_sweepers)


if __name__ == "__main__":
    main()
