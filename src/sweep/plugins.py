"""The launchers and sweepers as Hydra wants them: in a module below `hydra_plugins`, where installed plugins live.

Ours come with the program and need no package of their own: when a sweep starts, this module is made known there under
the name that `conf/hydra/launcher` and `conf/hydra/sweeper` give as `_target_`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from hydra.core.plugins import Plugins

from src.sweep.folds import FoldsSweeper
from src.sweep.launcher import NAMESPACE, ProcessLauncher
from src.sweep.library_launchers import JoblibLauncher, SubmititLauncher
from src.sweep.search import OptunaSweeper
from src.sweep.sweepers import GridSweeper, SeedsSweeper


def register() -> None:
    parent_name, _, name = NAMESPACE.partition(".")
    try:
        parent = importlib.import_module(parent_name)
    except ImportError:  # no other plugin is installed
        parent = sys.modules[parent_name] = ModuleType(parent_name)
        parent.__path__ = []
    sys.modules[NAMESPACE] = sys.modules[__name__]
    setattr(parent, name, sys.modules[__name__])
    for plugin in (
        ProcessLauncher,
        JoblibLauncher,
        SubmititLauncher,
        GridSweeper,
        SeedsSweeper,
        FoldsSweeper,
        OptunaSweeper,
    ):
        Plugins.instance().register(plugin)
