"""What a command line asks for, read once: `Request.parse` is the one place that takes `sys.argv` apart."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from src.cli.job_overrides import in_order, own_configs, split
from src.cli.overrides import literal, path_text, with_paths_quoted
from src.config.class_values import classes_by_name, parts_by_name
from src.config.moved import recipes_renamed
from src.errors import UserError
from src.storage.trust import split_packages

# With one of these Hydra does more (or less) than run one job: the config is then not composed ahead.
_FLAGS = frozenset({
    "-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-m", "--multirun", "-i", "--info", "-sc",
    "--shell-completion", "-cp", "--config-path", "-cn", "--config-name", "-p", "-r",
    "--package", "--run", "--resolve", "--experimental-rerun",
})  # fmt: skip
_SWEEPS = frozenset({"-m", "--multirun"})
# A method chosen by the name of its node: `model.semi=fixmatch` keeps the node's other keys.
_SHORT = {"model.semi": "model.semi.method", "launcher": "hydra/launcher", "sweep.dir": "hydra.sweep.dir",
          "sweep.subdir": "hydra.sweep.subdir", "sweep/sampler": "hydra/sweeper/sampler",
          "sweep/pruner": "hydra/sweeper/pruner"}  # fmt: skip
# By command: keys that are a path or a list of paths; and what is a list there, while Hydra takes its name for a group's.
_LISTED_PATHS = {
    "compare": ("a", "b"), "evaluate": ("ckpt",), "predict": ("ckpt",), "audit": ("ckpt",), "select": ("ckpt",),
}  # fmt: skip
_LISTS = {"evaluate": {"metrics": "metrics.of"}}
# By command: the key that a plain argument, which is a folder, is the value of.
_PLAIN = {"report": "dir", "verify": "run", "pack": "run"}
# What the launchers and sweepers of Hydra are told.
_SHORT_PREFIXES = {"launcher.": "hydra.launcher.", "sweep.": "hydra.sweeper."}
# Of training: which run or sweep is gone on with or begun from, and whom it trusts.
_OF_TRAINING = ("resume", "like", "sweep.resume", "trust")


@dataclass(frozen=True)
class Request:
    """What a command line asks of a command.

    Attributes:
        command: its name, "train" say; also that of its config.
        arguments: what Hydra is told: its options first, then overrides with keys in their long form and paths in quotes.
        resume: the run folder that training goes on in.
        like: the run folder whose config training starts with.
        sweep: the folder of the sweep that is gone on with.
        trust: packages that a run folder's or checkpoint's config may name, beside this program.
        said: of a sweep that is gone on with, keys of the jobs' configs that the command line gives.
    """

    command: str
    arguments: tuple[str, ...] = ()
    resume: Path | None = None
    like: Path | None = None
    sweep: Path | None = None
    trust: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    @classmethod
    def parse(cls, command: str, arguments: Sequence[str] | None = None) -> Self:
        """The request of a command line, which is this process's if none is given.

        Raises:
            UserError: `trust=` names no packages.
        """
        given = list(sys.argv[1:] if arguments is None else arguments)
        if command in _PLAIN:
            given = named(given, _PLAIN[command])
        taken: dict[str, str] = {}
        if command == "train":
            pairs = [argument.partition("=") for argument in given]
            taken = {
                key: value for key, _, value in pairs if key == "trust" or (key in _OF_TRAINING and value != "null")
            }
            given = [a for a, (key, _, _) in zip(given, pairs, strict=True) if key not in taken]
            given = _folded(given)
        given = written_out(given, command)
        if any(o.startswith("sweep=") for o in given) and not (_SWEEPS | {"hydra.mode=RUN"}) & set(given):
            given.insert(0, "-m")
        return cls(
            command,
            tuple(in_order(given)),
            _folder(taken.get("resume")),
            _folder(taken.get("like")),
            _folder(taken.get("sweep.resume")),
            split_packages(taken.get("trust")),
        )

    @property
    def overrides(self) -> list[str]:
        return split(self.arguments)[1]

    @property
    def options(self) -> list[str]:
        """Hydra's options, with the values of those that have one."""
        return split(self.arguments)[0]

    @property
    def own_configs(self) -> Path | None:
        """The folder that `--config-dir` names.

        Raises:
            UserError: there is no such folder.
        """
        return own_configs(self.arguments)

    @property
    def sweeps(self) -> bool:
        return not _SWEEPS.isdisjoint(self.arguments)

    @property
    def is_one_run(self) -> bool:
        """Whether it is a job and nothing but a job that is asked for."""
        return not any(argument.partition("=")[0] in _FLAGS for argument in self.arguments)

    @property
    def origin(self) -> list[str]:
        """What of the command line makes another process begin with the same run folder's config."""
        if self.like is None:
            return []
        return [f"like={self.like}", *([f"trust={','.join(self.trust)}"] if self.trust else [])]

    def with_arguments(self, arguments: Sequence[str]) -> Self:
        """The same with other words for Hydra."""
        return replace(self, arguments=tuple(arguments))


def _folded(arguments: list[str]) -> list[str]:
    """The arguments with `folds=N` as the sweep that it is short for.

    Raises:
        UserError: another sweep is asked for too.
    """
    said = [argument for argument in arguments if argument.startswith("folds=")]
    if not said:
        return arguments
    if other := next((a for a in arguments if a.startswith("sweep=") and a != "sweep=folds"), None):
        raise UserError(
            f"folds: is a sweep of its own, and {other} another; leave one out (seed=1,2,3 goes with folds)"
        )
    rest = [argument for argument in arguments if argument not in said and argument != "sweep=folds"]
    return [*rest, "sweep=folds", f"sweep.n={said[-1].partition('=')[2]}"]


def named(arguments: list[str], key: str = "dir") -> list[str]:
    """The arguments with a plain one, which is a folder, as `dir=…`, or another key, in the grammar of overrides."""
    result: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        plain = argument[:1] not in ("-", "+", "~") and "=" not in argument and not before.startswith("-")
        if plain or _is_folder(argument):
            argument = f"{key}={literal(argument)}"
        result.append(argument)
    return result


def _is_folder(argument: str) -> bool:
    try:
        return Path(argument).expanduser().is_dir()
    except OSError:  # no folder's name is so long
        return False


def written_out(overrides: Sequence[str], command: str = "train") -> list[str]:
    """Overrides with short keys in their long form, and paths in quotes; applied twice it changes nothing more.

    Args:
        command: whose they are; of some, a key that is a group in training is a list.
    """
    parts = [override.partition("=") for override in overrides]
    lists = _LISTS.get(command, {})
    parts = [(lists.get(key, key), equals, value) for key, equals, value in parts]
    long = [classes_by_name(f"{long_key(key)}{equals}{_long_value(key, value)}") for key, equals, value in parts]
    long = parts_by_name(long)
    return with_paths_quoted(long, _LISTED_PATHS.get(command, ()))


def as_typed(text: str) -> str:
    """A message with the keys as the user wrote them."""
    for short, long in _SHORT_PREFIXES.items():
        text = text.replace(long, short).replace(f"{long.rstrip('.')}:", f"{short.rstrip('.')}:")
    return text


def long_key(key: str) -> str:
    """A key as the config has it."""
    if key.startswith("metrics."):  # which has no keys yet
        return f"++{key}"
    if key in _SHORT or key == "sweep.resume":
        return _SHORT.get(key, key)
    prefix = next((short for short in _SHORT_PREFIXES if key.startswith(short)), "")
    return _SHORT_PREFIXES.get(prefix, "") + key.removeprefix(prefix)


def _long_value(key: str, value: str) -> str:
    if key.lstrip("+") == "experiment":
        return recipes_renamed(value)
    return _listed(value) if key == "trust" else value


def _listed(value: str) -> str:
    """`a,b` as a list, which is not a sweep."""
    return value if value.startswith("[") or value == "null" else f"[{value}]"


def _folder(text: str | None) -> Path | None:
    return None if text is None else Path(path_text(text)).expanduser().resolve()
