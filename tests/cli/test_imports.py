"""The garbage collector rests while torch is imported, and only then."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from src.cli.imports import importing_torch


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
