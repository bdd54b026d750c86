"""A wheel holds all that the program reads, and runs with nothing of the checkout beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL


@pytest.mark.slow
def test_a_wheel_works(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"  # the build writes beside its sources
    copy.mkdir()
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "logs"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(tmp_path), str(copy)]
    subprocess.run([*pip, *build], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    configs = {f"src/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    assert (
        configs
        | {
            "src/py.typed",
            "src/cli/completion.bash",
            "src/reporting/page.html",
            "src/reporting/comparison.html",
            "src/reporting/style.html",
        }
        <= names
    )
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {name.partition("/")[0] for name in names} == {"src", f"pixelwise-{version}.dist-info"}
    site = tmp_path / "site"
    install = ["install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([*pip, *install], check=True, cwd=tmp_path)
    shutil.rmtree(copy)
    (site / "conf").mkdir()  # of another project that is installed

    def run(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        command = [sys.executable, "-m", *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=200)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "network: bisenetv2, ddrnet, deeplabv3" in run("src.train", "--help")
    run("src.train", *SMALL, "trainer.max_epochs=1", "hydra.run.dir=run")
    run("src.evaluate", "ckpt=run", "trainer=cpu")
    run("src.report", "run")
    assert (tmp_path / "run/report.html").is_file()
