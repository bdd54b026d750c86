"""Runs compared: the table, the CSV and the page."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from src.cli.command import compose
from src.cli.request import named
from src.errors import UserError
from src.report import report
from tests.conftest import ROOT, environment
from tests.reporting.folders import write
from tests.reporting.test_compare import completed

Run = Callable[..., subprocess.CompletedProcess[str]]
NASTY = """<script>alert("1")</script>&'日本"""


def settings(folder: Path, *overrides: str) -> dict[str, Any]:
    return compose("report", [*named([str(folder)]), *overrides])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "some runs"
    for seed, score in ((1, 0.5), (2, 0.6)):
        write(
            root / f"sweep/{seed}", [f"seed={seed}"], curves={"val/miou": [0.1, score], "train/loss": [2, 1]}, color="red",
            **completed(score, train={"images_per_second": 100.0 * seed}, memory={"process_gib": 0.5, "gpu_gib": 2.0}),
        )  # fmt: skip
    write(root / "best", [f"+note={NASTY}"], config={"note": NASTY}, **completed(0.7))
    write(root / "bad", ["seed=3"], status="failed", error=f"data.root: no {NASTY}")
    write(root / "new", ["seed=4"], curves={"val/miou": [0.2, 0.3, float("nan")]}, color="blue")
    return root


def test_the_csv_holds_everything_best_first(runs: Path) -> None:
    report(settings(runs))
    rows = list(csv.DictReader((runs / "report.csv").open(encoding="utf-8")))
    assert [row["run"] for row in rows] == ["best", "sweep/2", "sweep/1", "new", "bad"]
    assert [row["status"] for row in rows] == ["completed", "completed", "completed", "running", "failed"]
    assert [row["best_val"][:5] for row in rows] == ["0.7", "0.6", "0.5", "0.300", ""]
    assert [row["note"] for row in rows] == [NASTY, "", "", "", ""]
    assert rows[1]["val/miou/mean"] == rows[2]["val/miou/mean"] == "0.55"
    assert float(rows[1]["test/miou/std"]) == pytest.approx(0.0707, abs=1e-4)
    assert (rows[1]["completed_seeds"], rows[1]["seconds"], rows[1]["memory_gib"]) == ("2", "60.0", "2.0")
    assert rows[4]["error"].startswith("data.root: no <script>")


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        (["sort=images_per_second"], "sweep/2"),
        (["sort=seed"], "sweep/1"),
        (["sort=run"], "bad"),
        (["sort=test"], "best"),
    ],
)
def test_sorting(runs: Path, tmp_path: Path, overrides: list[str], first: str) -> None:
    report(settings(runs, *overrides, f"output={tmp_path}/out"))
    rows = list(csv.DictReader((tmp_path / "out/report.csv").open(encoding="utf-8")))
    assert rows[0]["run"] == first
    assert not (runs / "report.csv").exists()


class _Page(HTMLParser):
    """Elements, what they refer to, and whether tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.elements: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.links += [
            value or "" for key, value in attrs if key in ("src", "href", "srcset", "action", "data", "poster")
        ]
        assert not any(key.startswith("on") for key, _ in attrs)
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_holds_all_it_shows_and_runs_nothing_that_a_run_says(runs: Path) -> None:
    report(settings(runs))
    text = (runs / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.elements.count("script") == 1  # the page's own
    assert "&lt;script&gt;alert(" in text
    assert len(page.links) == 3
    assert all(link.startswith("data:image/webp;base64,") for link in page.links)
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(|https?://", text)
    assert page.elements.count("polyline") > 4
    assert "nan" not in re.findall(r'points="([^"]*)"', text)
    assert "0.5500 ± 0.0707" in text


def test_one_run_alone(tmp_path: Path) -> None:
    write(tmp_path / "run", curves={"val/miou": [0.5]}, **completed(0.5))
    report(settings(tmp_path / "run"))
    text = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "Over seeds" not in text
    assert "<circle" in text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["metric=moiu"], "metric: no run has a score 'moiu', did you mean 'miou'?; there are: miou"),
        (["sort=sed"], "sort: the table has no column 'sed', did you mean 'seed'?"),
        (["samples=-1"], "samples: should be greater than or equal to 0"),
    ],
)
def test_mistakes_are_named(runs: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        report(settings(runs, *overrides))


def test_a_plain_argument_is_the_folder(tmp_path: Path) -> None:
    odd = tmp_path / "lr=0.1,it's [1]"
    odd.mkdir()
    composed = compose("report", named([str(odd), "metric=dice"]))
    assert (composed["dir"], composed["metric"]) == (str(odd), "dice")
    assert named(["--cfg", "job", "logs"]) == ["--cfg", "job", "dir='logs'"]


def test_as_a_user_starts_it_and_without_torch(runs: Path, run: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "src.report", str(runs)]
    result = subprocess.run(command, text=True, capture_output=True, cwd=tmp_path, env=environment(), timeout=60)
    assert result.returncode == 0, result.stderr[-500:]
    imported = set(re.findall(r"\|\s+(\S+)$", result.stderr, flags=re.MULTILINE))
    assert "jinja2" in imported
    assert not imported & {"torch", "lightning"}
    assert "0.5500 ± 0.0707" in result.stdout
    assert f"bad: data.root: no {NASTY}" in result.stdout
    assert str(runs / "report.html") in result.stdout
    nothing = run("src.report", str(ROOT / "conf"))
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("error: dir: no run folder in or below")
