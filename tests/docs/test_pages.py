"""The pages that say how to add a part: each is followed to the letter, and the part is looked for in what came out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, environment

PAGES = ROOT / "docs/extend"
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.MULTILINE | re.DOTALL)
_RUN = "Try it"


@dataclass(frozen=True)
class Page:
    """What a page has its reader do.

    Attributes:
        files: what they write, by name.
        commands: what they then run.
    """

    files: dict[str, str]
    commands: list[str]


def read(name: str) -> Page:
    blocks = _BLOCK.findall((PAGES / f"{name}.md").read_text(encoding="utf-8"))
    files = {title: body for _, title, body in blocks if title and title != _RUN}
    return Page(files, [body for language, title, body in blocks if language == "sh" and title == _RUN])


def follow(page: Page, folder: Path) -> str:
    """Does what a page says in an empty folder, or in a copy of the project where it writes there; gives what was printed."""
    in_the_project = any(name.startswith("src/") for name in page.files)
    for part in ("src", "conf") if in_the_project else ():
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, body in page.files.items():
        file = folder / name
        assert in_the_project or not (ROOT / name).exists(), f"{name} is the project's own"
        assert not file.exists(), f"{name} is there already"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    around = {**environment(), "PATH": path} | ({"PYTHONPATH": str(folder)} if in_the_project else {})
    printed = ""
    for command in page.commands:
        done = subprocess.run(
            ["bash", "-eu", "-c", command], cwd=folder, env=around, text=True, capture_output=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    return printed


def built(page: Page, folder: Path) -> dict[str, float]:
    """The test scores of the one run that a page ends with, which has built every part that the page's YAML files name."""
    (metrics,) = folder.glob("logs/train/runs/*/metrics.json")
    content = json.loads(metrics.read_text(encoding="utf-8"))
    assert content["status"] == "completed"
    config = (metrics.parent / ".hydra/config.yaml").read_text(encoding="utf-8")
    targets = re.findall(
        r"(?:mypackage|torch\.optim|lightning)\.[\w.]+",
        "\n".join(body for name, body in page.files.items() if name.endswith(".yaml")),
    )
    assert targets
    assert all(target in config for target in targets)
    scores: dict[str, float] = content["test"]
    assert 0 <= scores["miou"] <= 1
    return scores


def test_every_page_is_followed_by_a_test() -> None:
    of_parts = {file.stem for file in PAGES.glob("*.md")} - {"index"}  # which has a test too
    assert of_parts == {"network", "loss", "metric", "data-format", "task", "command"}
    listed = (PAGES / "index.md").read_text(encoding="utf-8")
    assert all(f"]({name}.md)" in listed for name in of_parts)
    assert all(read(name).files and read(name).commands for name in of_parts)


@pytest.mark.slow
def test_a_network(tmp_path: Path) -> None:
    page = read("network")
    follow(page, tmp_path)
    built(page, tmp_path)
    (config,) = tmp_path.glob("logs/train/runs/*/.hydra/config.yaml")
    network = yaml.safe_load(config.read_text(encoding="utf-8"))["network"]
    assert network == {"_target_": "mypackage.networks.two_scales", "width": 24}


@pytest.mark.slow
def test_a_metric(tmp_path: Path) -> None:
    page = read("metric")
    assert "wrong" in follow(page, tmp_path)
    (metrics,) = tmp_path.glob("logs/train/runs/*/metrics.json")
    scores = json.loads(metrics.read_text(encoding="utf-8"))["test"]
    assert scores["wrong"] == pytest.approx(1 - scores["pixel_accuracy"], abs=1e-6)


@pytest.mark.slow
def test_what_needs_no_code(tmp_path: Path) -> None:
    page = read("index")
    follow(page, tmp_path)
    built(page, tmp_path)
    (table,) = tmp_path.glob("logs/train/runs/*/csv/metrics.csv")
    assert "val/miou" in table.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_loss(tmp_path: Path) -> None:
    page = read("loss")
    follow(page, tmp_path)
    assert 0 < built(page, tmp_path)["loss"] < 2  # a Brier score is
    done = subprocess.run(
        [sys.executable, "-m", "src.train", "--config-dir", "conf", "loss=brier", "loss.sharpness=0"],
        cwd=tmp_path, env=environment(), text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    said = done.stderr.removeprefix("error: ").strip()
    assert said == "loss.sharpness: should be greater than 0, not 0"
    assert said in (PAGES / "loss.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_data_format(tmp_path: Path) -> None:
    page = read("data-format")
    printed = follow(page, tmp_path)
    assert "window" in printed and "16" in printed  # what src.inspect says
    assert "16 train, 4 val samples in chunks" in printed
    assert "iou/window" in built(page, tmp_path)


@pytest.mark.slow
def test_a_task(tmp_path: Path) -> None:
    page = read("task")
    printed = follow(page, tmp_path)
    scores = built(page, tmp_path)
    assert {"foreground_f1", "foreground_iou", "boundary_f1"} <= scores.keys()
    assert "foreground f1" in printed


@pytest.mark.slow
def test_a_command(tmp_path: Path) -> None:
    printed = follow(read("command"), tmp_path)
    # three convolutions with batch norm, then a classifier of 64 channels and 6 classes
    weights = 3 * 32 * 9 + 32 * 64 * 9 + 64 * 64 * 9 + 2 * (32 + 64 + 64) + 64 * 6 + 6
    assert f"{weights:,} parameters" in printed
    assert "Counts the parameters of a network." in printed
