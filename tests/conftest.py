"""What many tests need: small runs, in this process or as a user starts them."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

# Two workers on two cores: with more threads each they would mostly wait for one another. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from src.cli.command import compose
from src.storage.run_config import read_config, settled, trust_in

ROOT = Path(__file__).resolve().parent.parent
# A run of seconds: 24 small samples, the smallest network, two epochs.
SMALL = [
    "network=tiny", "trainer=cpu", "trainer.max_epochs=2", "optimizer.lr=0.01", "callbacks.pictures=null",
    "data.dataset.train_length=24", "data.dataset.val_length=5", "data.dataset.test_length=5",
    "data.dataset.height=32", "data.dataset.width=48", "data.batch_size=4", "data.eval_batch_size=2",
]  # fmt: skip


def settings(run_dir: Path, *overrides: str, small: bool = True) -> dict[str, Any]:
    """The checked-out config of a run whose folder is `run_dir`, as plain containers."""
    composed = copy.deepcopy(_composed(Path.cwd(), (*(SMALL if small else []), *overrides)))
    composed["paths"]["output_dir"] = str(run_dir)
    for node in (*composed["callbacks"].values(), *(composed.get("logger") or {}).values()):
        for key in ("run_dir", "save_dir"):
            if node and key in node:
                node[key] = f"{run_dir}{node[key]}"
    return composed


@functools.cache
def _composed(_: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    return compose("train", [*overrides])


def run_config(run_dir: Path, key: str, trust: Sequence[str] = (), overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config that a run folder is gone on with: read, settled and checked."""
    return settled(read_config(run_dir, key), run_dir, trust_in(run_dir, key, trust, overrides), overrides)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def environment() -> dict[str, str]:
    """As this process, with the project on the path."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "0"}


@pytest.fixture(scope="session", autouse=True)
def _own_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No run of a test signs with the user's own key."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("configuration"))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m <arguments>` in an empty folder, as a user would, and returns what came out."""

    def start(*arguments: str, timeout: float = 300, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), cwd=cwd or tmp_path, env=environment(), text=True, capture_output=True, timeout=timeout
        )

    return start
