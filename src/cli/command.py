"""How a command starts: Hydra composes its config once, the config is checked once, and the task gets it typed."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

import src.which_src  # first: it ends where another src is in the way
from src.cli.job_overrides import left_to_the_jobs, own_configs, search_path, split
from src.cli.overrides import parsed_as_text
from src.cli.request import Request, as_typed, written_out
from src.cli.user_errors import as_mistake, report_user_errors, shows_tracebacks
from src.config.explain import explain
from src.config.hydra_internals import apply_overrides, run_composed, run_main
from src.config.monitored import fill_monitor_mode
from src.config.moved import with_new_names
from src.config.parts import Config
from src.distributed import rendezvous
from src.errors import UserError
from src.storage import run_folder

CONFIG_DIR = src.which_src.CONFIG_DIR
LIKE = "like"  # the name, among Hydra's configs, of one that was taken from a run folder
_COMPLETION = Path(__file__).with_name("completion.bash")
_CHOICE = re.compile(r"\+?\w+=\w+")
T = TypeVar("T")


class Job(Generic[T]):
    """What Hydra calls with the config of a job.

    Args:
        request: what the command line asks for; a sweep's launcher finds it here.
        read: checks a config and makes it typed.
        task: what is to be done, of the typed config and of the one that Hydra composed.

    Attributes:
        mistakes: the user's that tasks have met; they are told at the end, so that the other jobs of a sweep go on.
    """

    def __init__(self, request: Request, read: Callable[[Config], T], task: Callable[[T, DictConfig], object]) -> None:
        self.request, self._read, self._task = request, read, task
        self._known: dict[str, T] = {}
        self._full = shows_tracebacks()
        self.mistakes: list[UserError] = []

    def know(self, config: Config, run_dir: str) -> None:
        """Checks the config that the job in a folder will have, before the folder is made."""
        self._known[run_dir] = self._read(config)

    def __call__(self, config: DictConfig) -> object:
        try:
            known = self._known.get(HydraConfig.get().runtime.output_dir)
            return self._task(self._read(plain(config)) if known is None else known, config)
        except Exception as error:
            mistake = as_mistake(error)
            if self._full or mistake is None:
                raise
            self.mistakes.append(mistake)
            return None


def start(
    command: str, task: Callable[[T, DictConfig], object], read: Callable[[Config], T], request: Request | None = None,
    like: Config | None = None, prepare_sweep: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Runs a task with the config that the command line composes from `conf/<command>.yaml`.

    A plain run's config is checked before its folder is made, so that a bad one leaves nothing behind; other ways to start
    (`-m`, `--config-name` …) are checked by the job itself.

    Args:
        command: name of the command.
        task: gets the typed config, and the composed one.
        read: checks a config, plain containers with interpolations resolved, and makes it typed.
        request: what is asked for; None reads this process's command line.
        like: what a run begins with instead of `conf/`: plain data, known to have no interpolations but the program's own,
            nor anything that says how to compose.
        prepare_sweep: is called first where there is one.
    """
    asked = Request.parse(command) if request is None else request
    config_name = command
    if like is not None:  # Hydra merges it and reads no file of it
        config_name = LIKE
        defaults = ["_self_", {"hydra": "default"}, {"sweep": "grid"}]
        ConfigStore.instance().store(LIKE, {"defaults": defaults, **like})
    job = Job(asked, read, task)
    makes_runs = command == "train" and (asked.is_one_run or asked.sweeps)
    report_user_errors(
        lambda: _run(config_name, job, prepare_sweep), lambda error: _message(config_name, asked, error), not makes_runs
    )


def _run(config_name: str, job: Job[T], prepare_sweep: Callable[[], None]) -> None:
    request, arguments = job.request, list(job.request.arguments)
    own_configs(arguments)  # is there, or that is said
    if any(argument.startswith("--experimental-rerun") for argument in arguments):
        raise UserError(
            "--experimental-rerun: opens a pickle, which can run code; python -m src.train like=RUN_DIR does it"
        )
    if arguments[:1] in (["-sc"], ["--shell-completion"]) and arguments[1:] == ["install=bash"]:
        print(_completion())  # Hydra's own knows no `python -m`
        return
    if request.is_one_run:
        _run_one(config_name, arguments, job)
    else:
        if request.sweeps:
            prepare_sweep()
            if config_name != LIKE:
                arguments = left_to_the_jobs(config_name, arguments)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands errors on instead of printing them
        run_main(job, arguments, CONFIG_DIR, config_name)
    if job.mistakes:
        raise job.mistakes[0]


def _run_one(config_name: str, arguments: Sequence[str], job: Job[T]) -> None:
    """Runs one job, its config composed once and checked once."""
    composed = _composed(config_name, arguments, with_hydra=True)
    config = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    wanted = _wanted_folder(arguments, composed)
    run_dir = "" if wanted is None else str(wanted.absolute())
    job.know(plain(config, output_dir=run_dir), run_dir)
    _folder(config_name, arguments, composed)
    with hydra.initialize_config_dir(str(CONFIG_DIR), config_name, version_base="1.3"):
        run_composed(composed, job)


def _completion() -> str:
    """The bash function that completes the commands, which are what `conf/` has a file for, and what follows them."""
    commands = " ".join(f"src.{file.stem}" for file in sorted(CONFIG_DIR.glob("*.yaml")))
    return _COMPLETION.read_text(encoding="utf-8").replace("@COMMANDS@", commands)


def _is_given(arguments: Sequence[str]) -> bool:
    return any(argument.startswith("hydra.run.dir=") for argument in arguments)


def _wanted_folder(arguments: Sequence[str], composed: DictConfig) -> Path | None:
    """The run's folder; None where it is made of what Hydra knows only later."""
    try:
        return Path(composed.hydra.run.dir)
    except OmegaConfBaseException:
        if _is_given(arguments) and rendezvous.place() is None:
            return None  # the run itself takes no other's folder either
        raise


def _folder(config_name: str, arguments: Sequence[str], composed: DictConfig) -> None:
    """Decides the run's folder: a new one of its own, also for runs that start in the same second, unless it is given; and
    for all processes of torchrun or srun that of rank zero, which alone writes its config."""
    if "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:  # started by rank zero, which gives it
        return
    place, given, run_dir = rendezvous.place(), _is_given(arguments), _wanted_folder(arguments, composed)
    if run_dir is None:
        return
    if place is None or place.rank == 0:
        if given and config_name in ("train", LIKE):
            run_folder.refuse_taken(run_dir)  # before Hydra writes its config there
        elif not given and run_dir != Path():
            run_dir = run_folder.make(run_dir)
    agreed = str(run_dir) if place is None else rendezvous.agree(str(run_dir.resolve()), place)
    with read_write(composed.hydra), open_dict(composed.hydra):
        composed.hydra.run.dir = agreed.replace("${", "\\${")
        if place is not None and place.rank > 0:
            composed.hydra.output_subdir = None


def compose(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """The config as plain containers, interpolations resolved, without starting a job (so without a run folder)."""
    return plain(_from_known(config_name, overrides) or _composed(config_name, overrides), output_dir="")


def _from_known(config_name: str, overrides: Sequence[str]) -> DictConfig | None:
    """The config that Hydra would compose, from one that it composed before of the same choices of groups: it changes values
    last, and they cost it little. None where it must be asked, also for its words of what is wrong."""
    options, given = split(overrides)
    given = written_out(given, config_name)
    changes = [override for override in given if _changes_value(override)]
    choices = tuple(override for override in given if not _changes_value(override))
    if options or not all(_CHOICE.fullmatch(choice) for choice in choices):
        return None
    try:
        parsed = OverridesParser.create().parse_overrides(changes)
        if any(override.is_sweep_override() for override in parsed):
            return None
        config = copy.deepcopy(_chosen(config_name, choices, _state()))
        apply_overrides(config, parsed)
    except (HydraException, OmegaConfBaseException, UserError):
        return None
    return config


def _changes_value(override: str) -> bool:
    key = override.partition("=")[0].lstrip("+~")
    return re.fullmatch(r"(?!hydra\.)\w+(\.\w+)*", key) is not None and not (CONFIG_DIR / key).is_dir()


@functools.lru_cache(maxsize=64)
def _chosen(config_name: str, choices: Sequence[str], state: object) -> DictConfig:
    return _composed(config_name, choices)


def _state() -> tuple[tuple[str, int, int], ...]:
    """What tells whether a file of `conf/` has changed."""
    files = sorted(CONFIG_DIR.rglob("*.yaml"))
    return tuple((str(file), (at := file.stat()).st_mtime_ns, at.st_size) for file in files)


def _composed(config_name: str, overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    given = split(overrides)[1]
    with hydra.initialize_config_dir(str(CONFIG_DIR), config_name, version_base="1.3"):
        try:
            return hydra.compose(
                config_name, [*search_path(overrides), *written_out(given, config_name)], return_hydra_config=with_hydra
            )
        except ValueError as error:  # Hydra's word for group=null
            group = next((o.partition("=")[0] for o in overrides if o.endswith("=null") and "." not in o), None)
            if group is None:
                raise UserError(f"an override should be key=value ({error})") from None
            raise UserError(f"{group}: a group cannot be null; leave it out with ~{group}") from None


def plain(config: DictConfig, output_dir: str | None = None) -> dict[str, object]:
    """Plain containers with interpolations resolved; `output_dir` stands in for the run folder where there is none yet."""
    if output_dir is not None and "paths" in config and OmegaConf.is_interpolation(config.paths, "output_dir"):
        OmegaConf.update(config, "paths.output_dir", output_dir.replace("${", "\\${"))
    fill_monitor_mode(config)
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in with_new_names(container).items()}


def _message(config_name: str, request: Request, error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if (found := re.search(r"Could not override '(\w+)'\. No match in the defaults list", str(error))) is not None:
        return _not_taken(found[1], config_name)

    def compose(groups: list[str]) -> DictConfig:
        beside = request.options if own_configs(request.arguments) is not None else []
        return _composed(config_name, [*beside, *groups] if config_name != LIKE else [], with_hydra=True)

    return in_words(error, request.arguments, compose)


def _not_taken(group: str, config_name: str) -> str:
    """What is said of a group that a command has no use for."""
    if not (CONFIG_DIR / group).is_dir():
        return f"{group}: no such key (python -m src.{config_name} --help lists them)"
    of_checkpoint = config_name in ("evaluate", "predict", "export", "publish", "audit", "select")
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
        return as_typed(said)
    keys: object = None
    with contextlib.suppress(Exception):
        groups = [o for o in overrides if "=" in o and (CONFIG_DIR / o.partition("=")[0]).is_dir() and "," not in o]
        keys = OmegaConf.to_container(compose(groups), resolve=False)
    return as_typed(explain(error, keys if isinstance(keys, Mapping) else None))


def task_overrides() -> list[str]:
    """The overrides that this run was started with, where Hydra started it."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
