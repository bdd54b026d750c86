"""The example project, as a researcher uses it: from its own folder, with this program as installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from src.storage import run_folder
from tests.conftest import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLE = ROOT / "examples/own_project"
OWN = ["--config-dir", "conf", "experiment=mine"]
TINY = [
    "trainer=cpu",
    "trainer.max_epochs=1",
    "data.dataset.length=16",
    "data.dataset.side=32",
    "callbacks.pictures=null",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__", "logs")))


@pytest.fixture
def own(run: Run, project: Path) -> Run:
    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, cwd=project)

    return start


def done(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stderr


def photo(project: Path) -> None:
    Image.fromarray(np.full((40, 50, 3), 150, np.uint8)).save(project / "a.png")


@pytest.mark.slow
def test_train_evaluate_and_predict(own: Run, project: Path) -> None:
    """Options of Hydra stand anywhere; the scores again are those of the run; without trust the whole command is said."""
    done(own("src.train", "experiment=mine", "--config-dir=conf", *TINY, "hydra.run.dir=run"))
    config = yaml.safe_load((project / "run" / run_folder.CONFIG).read_text())
    targets = [config["network"]["_target_"], config["loss"]["_target_"], config["data"]["dataset"]["_target_"]]
    assert targets == ["mypackage.network.dilated", "mypackage.loss.Tversky", "mypackage.dataset.Cracks"]
    done(own("src.evaluate", "ckpt=run", "trainer=cpu", "trust=mypackage", "hydra.run.dir=scores"))
    trained, again = run_folder.read_metrics(project / "run"), run_folder.read_metrics(project / "scores")
    assert trained is not None and again is not None
    assert (again["val"], again["test"]) == (trained["val"], trained["test"])
    photo(project)
    refused = own("src.predict", "ckpt=run", "input=a.png", "output=drawn")
    mend = "trust=mypackage (python -m src.predict ckpt=run input=a.png output=drawn trust=mypackage)\n"
    assert refused.returncode == 2 and refused.stderr.endswith(f"name its package: {mend}")
    done(own("src.predict", "ckpt=run", "input=a.png", "output=drawn", "trainer=cpu", "trust=mypackage"))
    assert (project / "drawn/masks/a.png").is_file()


def test_a_bad_config_beside_leaves_nothing(own: Run, project: Path, run: Run) -> None:
    result = own("src.train", *OWN, "network.widht=3", "hydra.run.dir=run")
    assert result.stderr.endswith(
        "network.widht: no such key, did you mean 'width'?; keys of network: _target_, depth, width\n"
    )
    result = own("src.train", *OWN, "network.width=wide", "hydra.run.dir=run")
    assert result.stderr == "error: network.width: should be a valid integer, not 'wide'\n"
    result = own("src.train", "--config-dir", "nowhere", "experiment=mine")
    assert result.stderr.startswith(
        f"error: --config-dir: there is no folder {project}/nowhere; a relative one counts from"
    )
    elsewhere = run("src.train", "--config-dir", "project/conf", "experiment=mine")
    assert "there is no package 'mypackage' (if it is yours: start in the folder that it lies in" in elsewhere.stderr
    assert elsewhere.returncode == result.returncode == 2
    assert not (project / "run").exists() and not (project / "logs").exists()


@pytest.mark.slow
def test_what_else_is_done_with_such_a_run(own: Run, project: Path) -> None:
    """Two ranks, resume, like, export; other data of one's own is evaluated on."""
    done(own("src.train", *OWN, *TINY, "trainer=ddp_cpu", "hydra.run.dir=run"))
    beside = own("src.train", "resume=run", "--config-dir", "conf", "trust=mypackage")
    assert beside.stderr.startswith("error: --config-dir: has no place beside resume=")
    done(own("src.train", "resume=run", "trainer.max_epochs=2", "trust=mypackage"))
    resumed = run_folder.read_metrics(project / "run")
    assert resumed is not None and resumed["epochs"] == 2
    done(own("src.train", "like=run", "seed=1", "trainer.devices=1", "trust=mypackage", "hydra.run.dir=like"))
    assert (project / "like" / run_folder.BEST).is_file()
    done(own("src.export", "ckpt=run", "output=model.pt2", "format=pt2", "trust=mypackage"))
    logits = torch.export.load(project / "model.pt2").module(check_guards=False)(
        torch.zeros(1, 3, 40, 50, dtype=torch.uint8)
    )
    assert logits.shape == (1, 2, 40, 50)
    other = ["--config-dir", "conf", "data=mine", "data.dataset.length=4", "hydra.run.dir=other"]
    done(own("src.evaluate", "ckpt=run", *other, "trainer=cpu", "trust=mypackage"))
    assert (project / "other" / run_folder.METRICS).is_file()


@pytest.mark.slow
def test_a_sweep(own: Run, project: Path) -> None:
    """Its jobs find the configs; what failed is run again, with the relative folder said again."""
    sweep = ["-m", *OWN, *TINY, "network.width=4,8", "hydra.sweep.dir=sweep"]
    done(own("src.train", *sweep))
    record = json.loads((project / "sweep/sweep.json").read_text())
    assert [job["status"] for job in record["jobs"]] == ["completed", "completed"]
    record["jobs"][1]["status"] = "failed"
    (project / "sweep/sweep.json").write_text(json.dumps(record))
    shutil.rmtree(project / "sweep/1/checkpoints")
    (project / "sweep/1" / run_folder.METRICS).unlink()
    again = ["--config-dir", "conf", "sweep.resume=sweep"]
    assert "trust=mypackage" in own("src.train", *again).stderr
    done(own("src.train", *again, "trust=mypackage"))
    assert (project / "sweep/1" / run_folder.BEST).is_file()
