"""The main job as a user runs it: what it writes, what it says, and that it repeats itself."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.errors import UserError
from src.storage import run_folder
from src.train import train
from tests.conftest import SMALL, settings
from tests.data.formats.test_folder import NAMES, write
from tests.same import assert_same

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run with pictures."""
    run_dir = tmp_path_factory.mktemp("finished")
    outcome = train(settings(run_dir, "callbacks.pictures={_target_: src.callbacks.pictures.Pictures, samples: 2}"))
    assert outcome.status == "completed"
    return run_dir


def test_metrics_json(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["status"] == "completed"
    assert (metrics["seed"], metrics["epochs"], metrics["steps"]) == (42, 2, 12)
    assert metrics["train"]["images_per_second"] > 0
    assert metrics["train"]["loss"] > 0
    for stage in ("val", "test"):
        scores = metrics[stage]
        assert {"loss", "miou", "pixel_accuracy", "mean_accuracy", "dice", "fw_iou", "iou/background"} <= scores.keys()
        assert all(0 <= value <= 1 for key, value in scores.items() if key != "loss")
        classes = [value for key, value in scores.items() if key.startswith("iou/")]
        assert scores["miou"] == pytest.approx(sum(classes) / len(classes), abs=1e-12)


def test_checkpoints_are_plain_and_named_cleanly(finished: Path) -> None:
    for name in (run_folder.BEST, run_folder.LAST):
        content = torch.load(finished / name, weights_only=True)
        assert content["global_step"] in (6, 12)
        assert {key.split(".")[0] for key in content["state_dict"]} == {"network", "normalization"}
        assert content["segmenter"]["label_set"]["names"][0] == "background"


def test_what_tensorboard_shows(finished: Path) -> None:
    events = EventAccumulator(str(finished / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    scalars = {"train/loss", "val/loss", "val/miou", "val/iou/ring", "train/gradient_norm", "test/miou"}
    scalars |= {"train/images_per_second", "learning_rate/head", "best/val/miou", "best/test/miou"}
    assert scalars <= set(tags["scalars"])
    assert {"val/confusion", "test/confusion"} <= set(tags["images"])
    assert sum(tag.startswith("val/") and tag != "val/confusion" for tag in tags["images"]) == 2
    assert any(tag.startswith("config") for tag in tags["tensors"])
    assert [event.step for event in events.Scalars("val/miou")] == [5, 11]  # once an epoch, at its last step
    metrics = run_folder.read_metrics(finished)
    assert metrics is not None
    assert events.Scalars("best/val/miou")[-1].value == pytest.approx(metrics["val"]["miou"], abs=1e-6)
    assert max(e.value for e in events.Scalars("val/miou")) == pytest.approx(metrics["val"]["miou"], abs=1e-6)


def test_the_same_config_gives_the_same_bits_and_another_seed_does_not(tmp_path: Path, finished: Path) -> None:
    def weights(run_dir: Path) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = torch.load(run_dir / run_folder.LAST, weights_only=True)["state_dict"]
        return state

    train(settings(tmp_path / "again", "test=false"))
    train(settings(tmp_path / "other", "test=false", "seed=43"))
    assert_same(weights(tmp_path / "again"), weights(finished))  # with pictures or without
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(tmp_path / "other").values(), weights(finished).values(), strict=True)
    )


def test_a_command_line_run_says_where_it_is_and_what_came_out(run: Run, tmp_path: Path) -> None:
    result = run("src.train", *SMALL, "debug=fast")
    assert result.returncode == 0, result.stderr
    assert "mIoU" in result.stdout
    assert "tensorboard --logdir" in result.stdout
    (run_dir,) = (tmp_path / "logs/train/runs").iterdir()
    left = {f.name for f in run_dir.iterdir()} - {run_folder.PATCH}  # of a checkout with changes
    assert left == {".hydra", "checkpoints", "tensorboard", "train.log", "metrics.json", "provenance.json"}
    assert "Warning" not in result.stderr, result.stderr
    (event_dir,) = {f.parent for f in run_dir.rglob("events.out.*")}
    assert event_dir == run_dir / "tensorboard"


@pytest.mark.slow
def test_a_sweep_gives_each_job_its_folder(run: Run, tmp_path: Path) -> None:
    result = run("src.train", "-m", *SMALL, "debug=fast", "init_from=null,/none.ckpt", "launcher.jobs=2")
    assert result.returncode == 1, result.stderr
    (sweep,) = (tmp_path / "logs/train/multiruns").iterdir()
    good, bad = (run_folder.read_metrics(sweep / job) for job in ("0", "1"))
    assert good is not None and good["status"] == "completed"
    assert bad is not None and bad["status"] == "failed" and "there is no file /none.ckpt" in bad["error"]
    assert {"completed", "failed"} == {job["status"] for job in json.loads((sweep / "sweep.json").read_text())["jobs"]}
    assert "Traceback" not in (sweep / "1/stderr.txt").read_text()


def test_overfitting_one_batch(tmp_path: Path) -> None:
    overrides = ["debug=overfit", "trainer.max_epochs=80", "network.width=16", "optimizer.lr=0.02"]
    outcome = train(settings(tmp_path, *overrides))
    assert outcome.metrics["train"]["loss"] < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("debug", ["fast", "overfit", "profile"])
def test_debug_presets(run: Run, debug: str) -> None:
    epochs = ["trainer.max_epochs=12"] if debug == "overfit" else []
    result = run("src.train", *SMALL, f"debug={debug}", *epochs)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_compiled_network_trains_and_keeps_clean_keys(tmp_path: Path) -> None:
    train(settings(tmp_path, "compile=true", "debug=fast"))
    keys = torch.load(tmp_path / run_folder.LAST, weights_only=True)["state_dict"]
    assert not any("_orig_mod" in key for key in keys)


@pytest.mark.slow
def test_a_diverged_loss_ends_the_run_with_the_step_and_the_last_good_checkpoint(run: Run, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    result = run(
        "src.train", *SMALL, "optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=3", "scheduler=constant",
        "callbacks.checkpoint.every_n_steps=1", f"hydra.run.dir={run_dir}",
    )  # fmt: skip
    assert result.returncode == 2
    assert "the training loss became NaN or infinite in step" in result.stderr
    assert "the last good checkpoint is" in result.stderr
    assert "Traceback" not in result.stderr
    metrics = run_folder.read_metrics(run_dir)
    assert metrics is not None
    assert metrics["status"] == "failed"
    assert "NaN or infinite" in metrics["error"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["monitor=val/iou/dog"], "monitor: no class is called 'dog'; classes: background, disk"),
        (["model.class_weights=[1,2]"], "model.class_weights: 2 for 6 classes"),
        (["network=unet", "network.encoder=resnet-18"], "did you mean"),
        (["network=unet", "network.encoder_weights=/none.pth"], "there is no file"),
        (["scheduler=poly", "scheduler.warmup_steps=1000"], "warmup_steps"),
        (["trainer=gpu"], "there is no GPU here; take trainer=cpu"),
        (["init_from=/none.ckpt"], "there is no file"),
    ],
)
def test_what_only_a_started_run_can_tell(tmp_path: Path, overrides: list[str], said: str) -> None:
    if overrides == ["trainer=gpu"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError) as caught:
        train(settings(tmp_path, *overrides))
    assert said in str(caught.value)
    metrics = run_folder.read_metrics(tmp_path)
    assert metrics is not None
    assert metrics["status"] == "failed"


@pytest.mark.slow
def test_a_bad_data_set_ends_in_one_line(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, "train", 6)
    write(root, "val", 3)
    options = ["data=folder", f"data.root={root}", f"data.dataset.names=[{','.join(NAMES)}]", "data.crop=[16,16]"]
    options += ["network=tiny", "data.batch_size=2", "data.num_workers=1", "trainer=cpu", "debug=fast"]
    good = run("src.train", *options)
    assert good.returncode == 0, good.stderr
    (root / "images/val/01.png").write_bytes(b"x")
    bad = run("src.train", *options)
    assert bad.returncode == 2
    assert bad.stderr.startswith(f"error: {root}/images/val/01.png: cannot be read as an image")
    assert len(bad.stderr.strip().splitlines()) <= 2


def test_balanced_weights_are_kept_and_travel(tmp_path: Path) -> None:
    train(settings(tmp_path, "model.class_weights=balanced", "debug=fast"))
    counts = [
        int(line) for line in (tmp_path / "class_counts.txt").read_text().splitlines() if not line.startswith("#")
    ]
    weights = torch.load(tmp_path / run_folder.BEST, weights_only=True)["segmenter"]["class_weights"]
    frequent = max(range(len(counts)), key=counts.__getitem__)
    assert len(weights) == len(counts) == 6
    assert weights[frequent] == min(w for w in weights if w > 0)


def test_fine_tuning_starts_from_given_weights(tmp_path: Path, finished: Path) -> None:
    outcome = train(settings(tmp_path, f"init_from={finished}", "optimizer.lr=1e-9", "debug=fast", "test=false"))
    before = torch.load(finished / run_folder.BEST, weights_only=True)["state_dict"]["network.core.0.weight"]
    after = outcome.model.state_dict()["network.core.0.weight"]
    assert torch.allclose(before, after, atol=1e-6)
    assert math.isfinite(outcome.metrics["train"]["loss"])
