"""The garbage collector rests while torch is imported, and only then."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from src.cli.imports import importing_torch
from tests.conftest import ROOT


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("without_torch")
def test_it_rests_while_torch_is_imported() -> None:
    with importing_torch():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count()


@pytest.mark.usefixtures("without_torch")
def test_it_works_again_where_the_import_fails() -> None:
    with pytest.raises(ImportError), importing_torch():
        raise ImportError
    assert gc.isenabled()


def test_it_works_on_where_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", gc)
    frozen = gc.get_freeze_count()
    with importing_torch():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_what_was_imported_so_is_freed_at_the_end() -> None:
    """Bindings made by nanobind print what is still alive at a process's end as leaks, dozens of lines of it."""
    pytest.importorskip("triton")
    lines = "from src.cli.imports import importing_torch\nwith importing_torch():\n    import triton"
    done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
