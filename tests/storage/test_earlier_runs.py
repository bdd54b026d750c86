"""A run of version 0.1, made before the modules moved, is gone on with, scored and predicted from as if they had not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import yaml
from PIL import Image

from src.cli.command import compose
from src.config.moved import MOVED, RENAMED, renamed, with_new_names
from src.config.signatures import own_signature
from src.evaluate import evaluate
from src.predict import predict
from src.storage import run_folder
from tests.conftest import ROOT, settings
from tests.data.layouts import photo

EARLIER = Path(__file__).with_name(
    "run_of_0_1"
)  # made by the commit before the move: 16 shapes of 32 pixels, one epoch


@pytest.mark.parametrize("model", ["cnn", pytest.param("gan", marks=pytest.mark.slow)])
def test_a_run_is_scored_predicted_from_and_gone_on_with(
    model: str, tmp_path: Path, run: Callable[..., CompletedProcess[str]]
) -> None:
    run_dir = Path(shutil.copytree(EARLIER / model, tmp_path / "run"))
    before = run_folder.read_metrics(run_dir)
    assert before is not None and before["epochs"] == 1

    composed = compose("evaluate", [f"ckpt={run_dir}"])
    composed["paths"]["output_dir"] = str(tmp_path / "scores")
    scores = evaluate(composed)
    for split in ("val", "test"):
        assert scores[split] == pytest.approx(before[split], abs=1e-4), split

    photo(tmp_path / "a.png")
    predict(compose("predict", [f"ckpt={run_dir}", f"input={tmp_path}/a.png", f"output={tmp_path}/out", "device=cpu"]))
    with Image.open(tmp_path / "out/masks/a.png") as mask:
        assert np.asarray(mask).max() < 6

    gone_on = run("src.train", f"resume={run_dir}", "trainer.max_epochs=2")
    assert gone_on.returncode == 0, gone_on.stderr
    after = run_folder.read_metrics(run_dir)
    assert after is not None and (after["status"], after["epochs"], after["steps"]) == ("completed", 2, 4)


@pytest.mark.slow
def test_a_new_run_begins_with_its_config(tmp_path: Path, run: Callable[..., CompletedProcess[str]]) -> None:
    anew = run("src.train", f"like={EARLIER}/cnn", f"hydra.run.dir={tmp_path}/new")
    assert anew.returncode == 0, anew.stderr
    written = yaml.safe_load((tmp_path / "new/.hydra/config.yaml").read_text(encoding="utf-8"))
    assert written["data"]["augment"]["_target_"] == "src.data.augment.transforms.Augment"


def test_every_part_that_moved_is_found_again() -> None:
    listed = [
        "Shapes",
        "Folder",
        "CamVid",
        "Cityscapes",
        "Coco",
        "Dicom",
        "GeoTiff",
        "HuggingFace",
        "Nifti",
        "Outlines",
    ]
    listed += ["Streaming", "VOC"]
    earlier = [f"src.data.{name.lower()}.{name}" for name in listed]
    earlier += ["src.data.transforms.Augment", "src.data.transforms.Strong"]
    earlier += [f"src.discriminators.{name}" for name in ("fcn", "patchgan", "pixel")]
    earlier += [f"src.schedulers.{name}" for name in ("constant", "cosine", "onecycle", "poly")]
    assert {name.rpartition(".")[0] for name in earlier} == set(MOVED)
    losses = ("CrossEntropy", "CrossEntropyDice", "CrossEntropyLovasz", "Dice", "Focal", "Lovasz", "Ohem")
    apart = [f"src.losses.segmentation.{name}" for name in losses]
    apart += ["src.models.semi.Semi", "src.tasks.tasks.Tasks"]
    assert set(apart) == set(RENAMED)
    for name in earlier + apart:
        assert renamed(name) != name and own_signature(renamed(name)) is not None, name


def test_own_yaml_may_still_use_the_earlier_names() -> None:
    node = {
        "a": [{"_target_": "src.data.folder.Folder", "root": "src.data.folder.Folder"}],
        "_target_": "torch.nn.ReLU",
    }
    now = {
        "a": [{"_target_": "src.data.formats.folder.Folder", "root": "src.data.folder.Folder"}],
        "_target_": "torch.nn.ReLU",
    }
    assert with_new_names(node) == now
    assert (
        compose("train", ["data.augment._target_=src.data.transforms.Augment"])["data"]
        == settings(Path("x"), small=False)["data"]
    )
    for file in (ROOT / "conf").rglob("*.yaml"):  # which themselves use the names of now
        assert with_new_names(content := yaml.safe_load(file.read_text(encoding="utf-8"))) == content, file
