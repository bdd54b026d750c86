"""Trains: `python -m src.train [overrides]`; `resume=RUN_DIR` goes on, `like=RUN_DIR` starts anew, `-m` sweeps."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src import cli, launch, run_folder
from src.config.check import check
from src.config.trusted import run_config
from src.errors import UserError
from src.overrides import path_text
from src.resuming import nothing_left

if TYPE_CHECKING:  # importing torch takes seconds: --help and a config error do without
    from src.session import Outcome

_MAY_CHANGE = (
    "data.root",
    "data.num_workers",
    "data.cache",
    "data.cache_dir",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.zero_stage",
    "trainer.offload",
)


def train(settings: Mapping[str, Any], resume: bool = False) -> Outcome:
    """Trains, tests the best checkpoint and writes metrics.json.

    Args:
        settings: the whole config as plain containers, interpolations resolved.
        resume: go on from the last checkpoint in the config's run folder.

    Raises:
        UserError: bad config or data, or the loss diverged.
    """
    check(settings)
    from src.session import run

    return run(settings, resume=resume)


def _task(config: DictConfig) -> float | None:
    outcome = train(cli.plain(config))
    if outcome.status == "interrupted":
        sys.exit(130)
    return outcome.optimized


def _resume(arguments: list[str]) -> None:
    """Goes on with a run, in its folder, with its config; only where and how fast it runs may change."""
    run_dir, trust, overrides = _taken_out(arguments, "resume")
    run_folder.check_own(run_dir)
    settings = OmegaConf.create(run_config(run_dir, "resume", trust))
    if any(override.startswith("trainer.strategy=") for override in overrides):
        for key in ("zero_stage", "offload"):  # of the strategy that was
            settings.trainer.pop(key, None)
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in _MAY_CHANGE:
            raise UserError(
                f"{key}: a resumed run keeps its config (only {', '.join(_MAY_CHANGE)} may change); to start anew from its "
                f"weights: python -m src.train init_from={run_dir} …"
            )
        OmegaConf.update(settings, key, OmegaConf.select(OmegaConf.from_dotlist([f"value={value}"]), "value"))
    plain = cli.plain(settings)
    done = nothing_left(run_dir, plain, [override.partition("=")[0] for override in overrides])
    if done is not None:
        if (place := launch.place()) is None or place.rank == 0:
            print(done)
        return
    logging.basicConfig(
        level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S",
        handlers=[logging.StreamHandler(sys.stdout), logging.FileHandler(run_dir / "train.log")],
    )  # fmt: skip
    if train(plain, resume=True).status == "interrupted":
        sys.exit(130)


def _like(arguments: list[str]) -> None:
    """Starts anew, in a folder of its own, with the config that another run had."""
    run_dir, trust, sys.argv[1:] = _taken_out(arguments, "like")
    groups = [key for key in (o.partition("=")[0].lstrip("+") for o in sys.argv[1:]) if (cli.CONFIG_DIR / key).is_dir()]
    if groups:
        raise UserError(
            f"{groups[0]}: with like= the options are those of that run; change its keys, e.g. {groups[0]}.…=…, or start "
            "from conf/ without like="
        )
    run_config(run_dir, "like", trust)  # what is in it may be a stranger's
    cli.start("train", _task, check, run_dir)


def _taken_out(arguments: list[str], key: str) -> tuple[Path, list[str], list[str]]:
    """The run folder that `key=…` names, the packages that `trust=…` names, and the other arguments."""
    given = {a.partition("=")[0]: a.partition("=")[2] for a in arguments}
    trust = [part for part in given.get("trust", "").split(",") if part]
    others = [a for a in arguments if a.partition("=")[0] not in (key, "trust")]
    return Path(path_text(given[key])).expanduser().resolve(), trust, others


def _given(arguments: list[str], key: str) -> bool:
    return any(a.startswith(f"{key}=") and a != f"{key}=null" for a in arguments)


def _resume_sweep(arguments: list[str]) -> None:
    from src.sweep.resume import arguments_to_resume

    sys.argv[1:] = arguments_to_resume(cli.written_out(arguments), _MAY_CHANGE)


def main() -> None:
    arguments = sys.argv[1:]
    if _given(arguments, "resume"):
        cli.report_user_errors(lambda: _resume(arguments))
    elif _given(arguments, "like"):
        cli.report_user_errors(lambda: _like(arguments))
    else:
        if any(a.startswith("sweep.resume=") for a in arguments):
            cli.report_user_errors(lambda: _resume_sweep(arguments))
        cli.start("train", _task, check)


if __name__ == "__main__":
    main()
