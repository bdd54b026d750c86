"""A command line written as a recipe: what a file in `conf/experiment` says to do the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from src.errors import UserError
from src.files.untrusted import shown
from src.which_src import CONFIG_DIR

_PACKAGE = "# @package _global_"  # Hydra reads it in the first line alone
_NOT_OF_A_RECIPE = ("debug", "sweep", "hydra", "launcher", "logger")  # of one call, not of what is trained


def recipe_of(overrides: Sequence[str]) -> tuple[list[object], dict[str, Any]]:
    """The defaults list and the keys of a recipe that says what these overrides do.

    Raises:
        UserError: one cannot stand in a recipe.
    """
    defaults: list[object] = []
    keys: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        name, said = override.key_or_group, str(override.input_line)
        if (
            override.is_sweep_override()
            or override.is_delete()
            or name.partition(".")[0].partition("/")[0] in _NOT_OF_A_RECIPE
        ):
            raise UserError(
                f"{said}: cannot stand in a recipe; plan without it, and give it to src.train beside experiment="
            )
        value = _plain(override.value())
        if name == "experiment":
            defaults[:0] = value if isinstance(value, list) else [value]
        elif (CONFIG_DIR / name).is_dir() and isinstance(value, str | list):
            defaults.append({f"{'' if override.is_add() else 'override '}/{name}": value})
        else:
            put(keys, name, value)
    return defaults, keys


def put(keys: dict[str, Any], name: str, value: object) -> None:
    """Sets a key by its whole name, e.g. `data.batch_size`, in nested keys."""
    *parents, last = name.split(".")
    for parent in parents:
        keys = keys.setdefault(parent, {})
    keys[last] = value


def _plain(value: object) -> object:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def recipe_text(comments: Sequence[str], defaults: list[object], keys: dict[str, Any]) -> str:
    """A recipe as YAML, with comments in front."""
    parts: list[object] = [{"defaults": defaults}] if defaults else []
    written = (
        yaml.safe_dump(part, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        for part in [*parts, keys] if part
    )  # fmt: skip
    return "\n".join([_PACKAGE, *(shown(line, 2000).replace("\n", " ") for line in comments), *written])
