"""The page on which a checkpoint is tried: what its function gives, in its own process, and how it looks in Chromium."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.cli.command import compose
from src.demo import Demo
from src.errors import UserError
from src.train import train
from tests.conftest import command, environment, settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        seed = f"seed={1 + (name == 'b')}"
        train(settings(folder / name, "~logger", "test=false", "trainer.max_epochs=1", seed))
    return [folder / "a", folder / "b"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 72, 3), np.uint8)).save(file)
    return file


@pytest.fixture(scope="module")
def page(runs: list[Path], photo: Path) -> Iterator[str]:
    """The address of a page with two checkpoints and an image."""
    started = subprocess.Popen(
        command("src.demo", f"ckpt={runs[0]}", f"ckpt_b={runs[1]}", f"input={photo}", "port=null", "device=cpu"),
        env=environment(), cwd=photo.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert started.stdout is not None
    said = ""
    for line in started.stdout:
        said += line
        if (found := re.search(r"open (http://127\.0\.0\.1:\d+/) in a browser", line)) is not None:
            break
    else:
        raise AssertionError(said)
    yield found[1]
    started.terminate()
    started.wait(60)


@pytest.mark.slow
def test_what_the_page_computes(page: str, runs: list[Path], photo: Path) -> None:
    from gradio_client import Client, handle_file

    from src import load

    opened: Any = Client(page, verbose=False)
    overlay, mask, shares, entropy, pair, differ = opened.predict(handle_file(photo), 0.25, api_name="/segment")
    a, b = (load(run, device="cpu").predict(photo) for run in runs)
    palette = np.array(a.colors, np.uint8)
    assert np.array_equal(np.asarray(Image.open(mask).convert("RGB")), palette[a.mask])
    assert np.array_equal(np.asarray(Image.open(overlay).convert("RGB")), a.overlay(0.25))
    for one, shown in zip((a, b), pair, strict=True):
        assert np.array_equal(np.asarray(Image.open(shown).convert("RGB")), one.overlay(0.25))
    most = max(range(len(a.names)), key=lambda number: float((a.mask == number).mean()))
    assert a.names[most] in shares and f"{float((a.mask == most).mean()):.1%}" in shares
    assert f"in {float((a.mask == b.mask).mean()):.1%} of the pixels" in shares
    assert Image.open(entropy).size == Image.open(differ).size == (72, 48)


@pytest.mark.slow
def test_the_page_asks_nobody_else(page: str) -> None:
    with urllib.request.urlopen(page) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "http" not in policy


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(page: str, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    asked = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1300,900",
        "--virtual-time-budget=20000",
    ]
    for _ in range(3):  # on a busy machine the first look may come too soon
        subprocess.run([*map(str, asked), f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", page], check=True,
                       capture_output=True, timeout=200)  # fmt: skip
        dom = subprocess.run([*map(str, asked), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page], check=True,
                             capture_output=True, text=True, timeout=200).stdout  # fmt: skip
        if "where they differ" in dom:
            break
        time.sleep(2)
    assert all(
        word in dom for word in ("opacity of the colours", "where they differ", "uncertainty", "see the same class")
    )
    assert 'class="shares"' in dom
    colors = len(np.unique(np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3), axis=0))
    assert colors > 500  # the image is random


def test_the_package_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "gradio" else find(name, *more)
    )
    with pytest.raises(
        UserError, match=r'gradio is needed for src.demo and is not installed; .*: pip install -e "\.\[demo\]"'
    ):
        Demo.of(compose("demo", ["ckpt=x"]))


@pytest.mark.parametrize("overrides", [["port=0"], ["port=70000"], ["opacity=1"]])
def test_a_bad_key(overrides: list[str]) -> None:
    with pytest.raises(Exception, match=overrides[0].partition("=")[0]):
        Demo.of(compose("demo", ["ckpt=x", *overrides]))
