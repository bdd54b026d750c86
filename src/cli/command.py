"""How a command starts: Hydra composes, the config is checked, a user's mistake is one line and exit status 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import src.which_src  # first: it ends where another src is in the way
from src.cli.job_overrides import in_order, left_to_the_jobs, own_configs, search_path, split
from src.cli.output import Steady, steady, was_read
from src.cli.overrides import literal, parsed_as_text, with_paths_quoted
from src.config.check import explain
from src.config.class_values import classes_by_name
from src.config.monitored import fill_monitor_mode
from src.config.moved import with_new_names
from src.distributed import rendezvous
from src.errors import Interrupted, UserError, absent_package, of_a_file
from src.files.untrusted import shown
from src.storage import run_folder

CONFIG_DIR = src.which_src.CONFIG_DIR
LIKE = "like"  # the name, among Hydra's configs, of one that was taken from a run folder
_COMPLETION = Path(__file__).with_name("completion.bash")
USER_ERROR_STATUS = 2
_LONGEST = 4000  # characters of a message, some of which list all options
INTERRUPTED_STATUS = 130
# With one of these Hydra does more (or less) than run one job: the config is then not composed ahead.
_HYDRA_FLAGS = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-m", "--multirun", "-i", "--info", "-sc",
                "--shell-completion", "-cp", "--config-path", "-cn", "--config-name", "-p", "-r",
                "--package", "--run", "--resolve", "--experimental-rerun")  # fmt: skip
# A method chosen by the name of its node: `model.semi=fixmatch` keeps the node's other keys.
_SHORT = {"model.semi": "model.semi.method", "launcher": "hydra/launcher", "sweep.dir": "hydra.sweep.dir",
          "sweep.subdir": "hydra.sweep.subdir", "sweep/sampler": "hydra/sweeper/sampler",
          "sweep/pruner": "hydra/sweeper/pruner"}  # fmt: skip
# What the launchers and sweepers of Hydra are told.
_SHORT_PREFIXES = {"launcher.": "hydra.launcher.", "sweep.": "hydra.sweeper."}


like_arguments: list[str] = []  # of this process's `Like`, for the jobs of a sweep


@dataclass(frozen=True)
class Like:
    """What a run begins with instead of `conf/train.yaml`.

    Attributes:
        config: plain data, known to have no interpolations but the program's own, nor anything that says how to compose.
        arguments: what of the command line leads here again, in another process.
    """

    config: Mapping[str, Any]
    arguments: list[str]

    def register(self) -> str:
        """Makes the values known to Hydra, under the name that is returned: it merges them and reads no file of them."""
        defaults = ["_self_", {"hydra": "default"}, {"sweep": "grid"}]
        ConfigStore.instance().store(LIKE, {"defaults": defaults, **self.config})
        like_arguments[:] = self.arguments
        return LIKE


def start(
    config_name: str, task: Callable[[DictConfig], Any], check: Callable[[Mapping[str, Any]], None],
    like: Like | None = None, prepare_sweep: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Runs `task` with the config that the command line composes from `conf/<config_name>.yaml`, or that it makes of `like`.

    A plain run's config is checked before Hydra makes a folder, so that a bad one leaves nothing behind; other ways to
    start (`-m`, `--config-name` …) are checked by the task itself. `prepare_sweep` is called first where `-m` is given.
    """
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    if like is not None:
        config_name = like.register()
    overrides = written_out(sys.argv[1:])
    if any(o.startswith("sweep=") for o in overrides) and not {"-m", "--multirun", "hydra.mode=RUN"} & set(overrides):
        overrides.insert(0, "-m")
    overrides = in_order(overrides)  # anywhere for the user, first for argparse
    sys.argv[1:] = overrides

    def run() -> None:
        own_configs(overrides)
        if any(o.startswith("--experimental-rerun") for o in overrides):
            raise UserError(
                "--experimental-rerun: opens a pickle, which can run code; python -m src.train like=RUN_DIR does it"
            )
        if overrides[:1] in (["-sc"], ["--shell-completion"]) and overrides[1:] == ["install=bash"]:
            print(_completion())  # Hydra's own knows no `python -m`
            return
        if {"-m", "--multirun"} & set(overrides):
            prepare_sweep()
        arguments = overrides
        if {"-m", "--multirun"} & set(overrides) and like is None:
            arguments = left_to_the_jobs(CONFIG_DIR, config_name, overrides)
        if not any(o.partition("=")[0] in _HYDRA_FLAGS for o in overrides):
            composed = _composed(config_name, overrides, with_hydra=True)
            check(
                plain(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]), output_dir="")
            )
            arguments = [*overrides, *_folder(config_name, overrides, composed)]
        sys.argv[1:] = arguments
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands errors on instead of printing them
        mistakes: list[UserError] = []

        def job(config: DictConfig) -> Any:
            sys.argv[1:] = [
                *(like.arguments if like is not None else []),
                *arguments,
            ]  # for ranks that Lightning starts
            try:
                return task(config)
            except Exception as error:  # told once, at the end; the other jobs of a sweep go on
                mistake = error if isinstance(error, UserError) else of_a_file(error) or absent_package(error)
                if full or mistake is None:
                    raise
                mistakes.append(mistake)
                return None

        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(job)()
        if mistakes:
            raise mistakes[0]

    sweeps = {"-m", "--multirun"} & set(overrides)
    runs = config_name in ("train", LIKE) and (
        sweeps or not any(o.partition("=")[0] in _HYDRA_FLAGS for o in overrides)
    )
    report_user_errors(run, lambda error: _message(config_name, error), only_prints=not runs)


def _completion() -> str:
    """The bash function that completes the commands, which are what `conf/` has a file for, and what follows them."""
    commands = " ".join(f"src.{file.stem}" for file in sorted(CONFIG_DIR.glob("*.yaml")))
    return _COMPLETION.read_text(encoding="utf-8").replace("@COMMANDS@", commands)


def _folder(config_name: str, overrides: list[str], composed: DictConfig) -> list[str]:
    """Overrides that name the run's folder: a new one of its own, also for runs that start in the same second, unless it is
    given; and for all processes of torchrun or srun that of rank zero, which alone writes its config."""
    if "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:  # started by rank zero, which gives it
        return []
    place, given = rendezvous.place(), any(o.startswith("hydra.run.dir=") for o in overrides)
    try:
        run_dir = Path(composed.hydra.run.dir)
    except OmegaConfBaseException:
        if (
            given and place is None
        ):  # made of what Hydra knows only later; the run itself takes no other's folder either
            return []
        raise
    if place is None or place.rank == 0:
        if given and config_name in ("train", LIKE):
            run_folder.refuse_taken(run_dir)  # before Hydra writes its config there
        elif not given and run_dir != Path():
            run_dir = run_folder.make(run_dir)
    if place is None:
        return [] if given or run_dir == Path() else [f"hydra.run.dir={literal(str(run_dir))}"]
    folder = f"hydra.run.dir={literal(rendezvous.agree(str(run_dir.resolve()), place))}"
    return [folder] if place.rank == 0 else [folder, "hydra.output_subdir=null"]


def written_out(overrides: list[str]) -> list[str]:
    """Overrides with short keys in their long form, and paths in quotes."""
    parts = [override.partition("=") for override in overrides]
    long = [
        classes_by_name(f"{_long(key)}{equals}{_listed(value) if key == 'trust' else value}")
        for key, equals, value in parts
    ]
    return with_paths_quoted(long)


def _listed(value: str) -> str:
    """`a,b` as a list, which is not a sweep."""
    return value if value.startswith("[") or value == "null" else f"[{value}]"


def _long(key: str) -> str:
    if key.startswith("metrics."):  # which has no keys yet
        return f"++{key}"
    if key in _SHORT or key == "sweep.resume":
        return _SHORT.get(key, key)
    prefix = next((short for short in _SHORT_PREFIXES if key.startswith(short)), "")
    return _SHORT_PREFIXES.get(prefix, "") + key.removeprefix(prefix)


def report_user_errors(
    action: Callable[[], None], say: Callable[[Exception], str] = str, only_prints: bool = False
) -> None:
    """Runs `action`; an error that the user can mend is printed in words, without a traceback, and ends with status 2.

    Output that cannot be written ends nothing. A reader that has gone (`| head`) has seen enough; any other cause is said.

    Args:
        only_prints: whether what is printed is what the command is for: lost, it ends with status 1.
    """
    src.which_src.hand_on()
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    with steady() as (out, _):
        try:
            action()
            _say_if_lost(out, only_prints)
        except SystemExit as end:  # of Hydra's, after --help
            if not end.code:
                _say_if_lost(out, only_prints)
            raise
        except (UserError, HydraException, OmegaConfBaseException) as error:
            if full:
                raise
            print(f"error: {shown(say(error), _LONGEST)}", file=sys.stderr)
            sys.exit(USER_ERROR_STATUS)
        except Interrupted as stop:
            print(f"interrupted ({stop})", file=sys.stderr)
            sys.exit(INTERRUPTED_STATUS)
        except Exception as error:
            told = of_a_file(error) or absent_package(error)
            if full or told is None:
                raise
            print(f"error: {shown(str(told), _LONGEST)}", file=sys.stderr)
            sys.exit(USER_ERROR_STATUS)
        finally:
            if not full:
                os.environ.pop("HYDRA_FULL_ERROR", None)


def _say_if_lost(out: Steady, only_prints: bool) -> None:
    out.flush()
    if not was_read(out):
        print(
            f"{'error' if only_prints else 'warning'}: what was printed is lost, since standard output cannot be written "
            f"({getattr(out.lost, 'strerror', out.lost)}); all else is done",
            file=sys.stderr,
        )
        if only_prints:
            sys.exit(1)


def compose(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """The config as plain containers, interpolations resolved, without starting a job (so without a run folder)."""
    return plain(_composed(config_name, overrides), output_dir="")


def _composed(config_name: str, overrides: list[str], with_hydra: bool = False) -> DictConfig:
    given = split(overrides)[1]
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            return hydra.compose(
                config_name, [*search_path(overrides), *written_out(given)], return_hydra_config=with_hydra
            )
        except ValueError as error:  # Hydra's word for group=null
            group = next((o.partition("=")[0] for o in overrides if o.endswith("=null") and "." not in o), None)
            if group is None:
                raise UserError(f"an override should be key=value ({error})") from None
            raise UserError(f"{group}: a group cannot be null; leave it out with ~{group}") from None


def plain(config: DictConfig, output_dir: str | None = None) -> dict[str, Any]:
    """Plain containers with interpolations resolved; `output_dir` stands in for the run folder where there is none yet."""
    if output_dir is not None and "paths" in config and OmegaConf.is_interpolation(config.paths, "output_dir"):
        OmegaConf.update(config, "paths.output_dir", output_dir)
    fill_monitor_mode(config)
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in with_new_names(container).items()}


def _message(config_name: str, error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if (found := re.search(r"Could not override '(\w+)'\. No match in the defaults list", str(error))) is not None:
        return _not_taken(found[1], config_name)

    def compose(groups: list[str]) -> DictConfig:
        beside = split(sys.argv[1:])[0] if own_configs(sys.argv[1:]) is not None else []
        return _composed(config_name, [*beside, *groups] if config_name != LIKE else [], with_hydra=True)

    return in_words(error, sys.argv[1:], compose)


def _not_taken(group: str, config_name: str) -> str:
    """What is said of a group that a command has no use for."""
    if not (CONFIG_DIR / group).is_dir():
        return f"{group}: no such key (python -m src.{config_name} --help lists them)"
    of_checkpoint = config_name in ("evaluate", "predict", "export")
    if group == "trainer":
        why = "what it does it does on the CPU"
    elif of_checkpoint and group in ("model", "network", "discriminator", "loss", "tasks", "data"):
        why = "that is as the checkpoint says"
    else:
        why = "that is of training alone"
    return f"{group}: python -m src.{config_name} takes none, for {why}; leave it out"


def in_words(error: Exception, overrides: Sequence[str], compose: Callable[[list[str]], DictConfig]) -> str:
    """What a user is told of an error of Hydra's or OmegaConf's that these overrides led to.

    Args:
        compose: the config that such overrides as choose an option of a group make, to tell which keys there are.
    """
    if isinstance(error, HydraException) and (said := parsed_as_text(error)) is not None:
        return _short(said)
    try:
        groups = [o for o in overrides if "=" in o and (CONFIG_DIR / o.partition("=")[0]).is_dir() and "," not in o]
        keys: Any = OmegaConf.to_container(compose(groups), resolve=False)
    except Exception:
        keys = None
    return _short(explain(error, keys))


def _short(text: str) -> str:
    """A message with the keys as the user wrote them."""
    for short, long in _SHORT_PREFIXES.items():
        text = text.replace(long, short).replace(f"{long.rstrip('.')}:", f"{short.rstrip('.')}:")
    return text
