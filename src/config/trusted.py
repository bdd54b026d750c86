"""What a config may build that someone else may have written: a checkpoint's, and that of a run folder to resume.

A `_target_` is called with whatever the config says, so it is as good as code. Such a config may name the program's own
classes, its builders, and a few of PyTorch's and Lightning's; nothing of them does more than a training run does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src import run_folder
from src.config.signatures import own_signature
from src.errors import UserError

_LIBRARIES = re.compile(
    r"lightning\.(pytorch\.)?Trainer"
    r"|lightning\.pytorch\.loggers\.(TensorBoardLogger|CSVLogger)"
    r"|lightning\.pytorch\.(callbacks|strategies|plugins\.environments)\.[A-Z]\w*"
    r"|torch\.optim\.[A-Z]\w*|torch\.optim\.lr_scheduler\.[A-Z]\w*"
)
# A function of the program is a builder if code gives it the first of its parameters.
_BUILDERS = {"src.networks.": "num_classes", "src.discriminators.": "num_classes", "src.schedulers.": "optimizer"}
_WRITING = ("callbacks", "logger")  # groups whose parts write files


def run_config(run_dir: Path, key: str, trust: Sequence[str] = ()) -> dict[str, Any]:
    """The config that a run was started with, with its output folder put in.

    The folder may be a stranger's: only this program's parts may be built, and written to is only the folder itself.

    Args:
        key: what the user named the folder with, for errors.
        trust: packages or dotted paths that may be built too.

    Raises:
        UserError: the folder is no run folder, or its config would build or write anything else.
    """
    file = run_dir / run_folder.CONFIG
    if not file.is_file():
        raise UserError(f"{key}: {run_dir} is no run folder (no {run_folder.CONFIG} in it)")
    try:
        config = OmegaConf.load(file)
        OmegaConf.update(config, "paths.output_dir", str(run_dir))
        plain = OmegaConf.to_container(config, resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{key}: {file} is damaged ({' '.join(str(error).split())[:160]})") from error
    if not isinstance(plain, dict):
        raise UserError(f"{key}: {file} is damaged (it holds a {type(plain).__name__})")
    settings = {str(k): v for k, v in plain.items()}
    check_targets(settings, f"{key}: {file}", "if you trust it, name its package: trust=…", trust)
    check_paths(settings, f"{key}: {file}", run_dir)
    return settings


def check_targets(node: Any, of: str, mend: str, also: Sequence[str] = ()) -> None:
    """Checks that nothing but known classes and builders would be built from a config.

    Args:
        node: plain containers, interpolations resolved.
        of: whose config it is, for the error.
        mend: what the user can do if they know better.
        also: further packages or dotted paths that the user trusts.

    Raises:
        UserError: the first `_target_` that is not allowed.
    """
    for path, mapping in _mappings(node):
        for key in mapping:
            if key.startswith("_") and key not in ("_target_", "_partial_"):
                raise UserError(f"{of} has the key {path}{key}, which decides how things are built; refused")
        if "_target_" in mapping and not _allowed(mapping["_target_"], also):
            raise UserError(f"{of} wants to build {mapping['_target_']!r} ({path}_target_), which is none of this "
                            f"program's parts; {mend}")  # fmt: skip


def check_paths(config: Mapping[str, Any], of: str, inside: Path) -> None:
    """Checks that what writes files would write them into a folder only.

    Raises:
        UserError: the first path of a callback or logger that leads elsewhere.
    """
    for group in _WRITING:
        for path, text in _texts(config.get(group), group):
            if _leads_away(text, inside):
                raise UserError(f"{of} would write to {text!r} ({path}), which is not in the run folder; refused")


def find_path(node: Any, path: str = "") -> tuple[str, str] | None:
    """The first text that leads out of the folder that it is taken to lie in, and its key."""
    return next(((where, text) for where, text in _texts(node, path) if _leads_away(text, None)), None)


def _allowed(target: Any, also: Sequence[str]) -> bool:
    if not isinstance(target, str):
        return False
    if any(target == trusted or target.startswith(f"{trusted}.") for trusted in also):
        return True
    if not target.startswith("src."):
        return _LIBRARIES.fullmatch(target) is not None
    signature = own_signature(target) if "._" not in target else None
    if signature is None:
        return False
    given = next((first for room, first in _BUILDERS.items() if target.startswith(room)), None)
    is_class = target.rpartition(".")[2][:1].isupper()
    return is_class or (given is not None and next(iter(signature.parameters), None) == given)


def _leads_away(text: str, inside: Path | None) -> bool:
    path = PurePath(text)
    if not (path.is_absolute() or ".." in path.parts or text.startswith("~")):
        return False
    return inside is None or not Path(text).expanduser().resolve().is_relative_to(inside.resolve())


def _mappings(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping in a config with the path of its keys, `group.` say."""
    if isinstance(node, Mapping):
        yield path, node
    for key, value in _parts(node):
        yield from _mappings(value, f"{path}{key}.")


def _texts(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield path, node
    for key, value in _parts(node):
        yield from _texts(value, f"{path}.{key}" if path else str(key))


def _parts(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Mapping):
        yield from node.items()
    elif isinstance(node, list):
        yield from enumerate(node)
