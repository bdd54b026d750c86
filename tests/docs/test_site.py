"""The pages as a visitor finds them: the site builds, links lead somewhere, and what files say of each other is so."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.test_architecture import COMMANDS

README = (ROOT / "README.md").read_text(encoding="utf-8")
OUTSIDE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
LATER: set[str] = set()
GROUPS = ("data", "model", "network", "discriminator", "loss", "optimizer", "scheduler", "trainer", "tasks", "debug",
          "sweep")  # fmt: skip
PLACEHOLDERS = {"group"}
# Keys and options that are another project's, or that a page adds.
THEIRS = {
    "docs/coming-from.md": {"model.decode_head.channels", "fdr"},
    "docs/extend/index.md": {"two_scales", "nadam"},
    "docs/extend/network.md": {"two_scales"},
    "docs/extend/loss.md": {"brier", "loss.sharpness"},
    "docs/extend/data-format.md": {"archives"},
    "docs/extend/task.md": {"foreground"},
}


def test_the_site_builds_and_takes_nothing_from_elsewhere(tmp_path: Path) -> None:
    """Strict: a link to a page or a heading that is not there ends it."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("mkdocs")), "build", "--strict"],
        cwd=tmp_path, text=True, capture_output=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "build/docs"
    built = {page.relative_to(site).with_suffix("") for page in site.rglob("*.html")} - {Path("404")}
    assert built == {page.relative_to(ROOT / "docs").with_suffix("") for page in (ROOT / "docs").rglob("*.md")}
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)', page.read_text(encoding="utf-8"))
        fetched += re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="(https?:[^"]+)', page.read_text())
        assert fetched == []
    assert not list(site.rglob("*.py"))


def test_every_page_is_in_the_contents() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(re.findall(r"[\w/-]+\.md", nav)) == sorted(pages)


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_lead_to_files_and_headings(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text(encoding="utf-8")):
        if "://" not in target and target not in LATER:
            assert (ROOT / target).exists(), f"{name}: {target}"


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len(README.split()) <= 800
    for command in COMMANDS:
        assert f"{command}.py" in README
    tree = README.partition("## What is where")[2].partition("## ")[0]
    for room in (f.name for f in (ROOT / "src").iterdir() if f.is_dir() and f.name != "__pycache__"):
        assert f"{room}/" in tree, room
    for group in (f.name for f in (ROOT / "conf").iterdir() if f.is_dir()):
        assert f"{group}/" in tree, group


def test_commands_and_make_targets_that_pages_name_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for page in [*(ROOT / name for name in OUTSIDE), *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        if page.name == "CHANGELOG.md":  # tells of names that were
            continue
        assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets, page
        named = set(re.findall(r"python (?:-P )?-m src\.(\w+)", text)) - {"COMMAND"}
        assert named <= COMMANDS | ({"parameters"} if page.name == "command.md" else set()), page
        for benchmark in re.findall(r"benchmarks/\w+\.py", text):
            assert (ROOT / benchmark).is_file(), page
        assert set(re.findall(r'pip install -e "\.\[(\w+)\]"', text)) <= extras.keys(), page
        assert "pip install pixelwise" not in text and 'pip install "pixelwise' not in text, page


def known_keys() -> set[str]:
    """Keys as they are said on a command line, with the nodes that hold them."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference").glob("*.md"))
    keys = set(re.findall(r"^\| `([\w.]+)` \|", pages, flags=re.MULTILINE)) | set(re.findall(r"`\+([\w.]+)`", pages))
    parents = {key.rpartition(".")[0] for key in keys}
    parents |= {"metrics.my", "metrics.my._target_", "metrics.wrong._target_"}  # names are the user's
    return keys | parents | {"hydra.run.dir", "hydra.sweep.dir", "sweep.resume", "sweep.pruner", "sweep.sampler"}


@pytest.mark.parametrize(
    "page", [*OUTSIDE, *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))]
)
def test_keys_and_options_that_pages_name_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\_", "_")
    known = known_keys() | THEIRS.get(page, set())
    named = set(re.findall(r"(?<![\w./$-])([a-z]+(?:\.\w+)+)=", text))
    assert {key for key in named if key.partition(".")[0] not in PLACEHOLDERS} <= known
    chosen = re.findall(r"(?<![\w./])(" + "|".join(GROUPS) + r")=((?:[a-z]\w*,?)+)", text)
    for group, values in chosen:
        options = {file.stem for file in (ROOT / "conf" / group).glob("*.yaml")} | THEIRS.get(page, set())
        assert {value for value in values.split(",") if value} <= options, f"{group}={values}"


def test_messages_that_troubleshooting_quotes_are_said() -> None:
    """What stands between the `…` of a quoted message is text of the program's own."""
    said = {
        node.value
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    rows = re.findall(
        r"^\| (`.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    quoted = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 10
    for quote in quoted:
        if quote != "No module named src.train":  # Python's own
            for part in quote.split("…"):
                assert any(part.strip() in text for text in said), f"{quote}: nobody says {part!r}"


def test_recipes_that_pages_name_are_there_and_all_are_named() -> None:
    files = (ROOT / "conf/experiment").glob("*.yaml")
    recipes = {file.stem for file in files if "Planned by python -m src.plan" not in file.read_text(encoding="utf-8")}
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    assert all(recipe in text for recipe in recipes)
    for page in (ROOT / "docs").glob("*.md"):
        named = set(re.findall(r"experiment=(\w+)", page.read_text(encoding="utf-8"))) - {"x", "a", "planned"}
        assert named <= recipes, page


def test_figures_of_recipes_are_those_of_their_files() -> None:
    """A figure that is published twice is changed in both places."""
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    for file in (ROOT / "conf/experiment").glob("*.yaml"):
        comment = "\n".join(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
        for figure in re.findall(r"\b0\.\d{3}\b", comment.partition("Measured")[2]):
            assert figure in text, f"{file.name}: {figure}"


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_continuous_integration_calls_what_everyone_calls() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make lint", "make test", "make docs"]
    classes = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert classes == ">=3.11,<3.14"
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert form.name == "config.yml" or {"name", "description", "body"} <= content.keys()
