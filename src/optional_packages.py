"""Packages that only some options need: imported when such an option is taken, named with their extra where missing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from src.errors import UserError


def needs(module: str, extra: str) -> Any:
    """The module, imported.

    Raises:
        UserError: its package is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(
            f"{package} is needed for this and cannot be imported ({error}); in the project's folder: "
            f'pip install -e ".[{extra}]"'
        ) from None


def check_installed(module: str, extra: str, what: str) -> None:
    """Checks that a package is there without importing it.

    Args:
        what: the key that needs it.

    Raises:
        UserError: it is not; names the extra that brings it.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f'{module} is needed for {what} and is not installed; in the project\'s folder: pip install -e ".[{extra}]"'
        )
