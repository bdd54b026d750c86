"""Scoring and predicting with nothing but a checkpoint."""

from __future__ import annotations

import pickle
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.errors import HydraException
from PIL import Image

from src.cli.command import compose
from src.config.settings import Trained
from src.errors import UserError
from src.evaluate import evaluate
from src.predict import predict
from src.storage import run_folder
from src.storage.checkpoints import read
from src.train import train
from src.training.build import model_from_checkpoint
from src.training.scored_on import trainer_of
from tests.conftest import SMALL, settings
from tests.data.formats.test_folder import NAMES, write

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("trained")
    train(settings(run_dir, "model.ema_decay=0.5", "model.class_weights=balanced"))
    return run_dir


def evaluation(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    composed = compose("evaluate", list(overrides))
    composed["paths"]["output_dir"] = str(tmp_path)
    return composed


def prediction(*overrides: str) -> dict[str, Any]:
    return compose("predict", ["device=cpu", *overrides])


def test_the_same_figures_to_the_last_digit(trained: Path, tmp_path: Path) -> None:
    results = evaluate(evaluation(tmp_path, f"ckpt={trained}"))
    metrics = run_folder.read_metrics(trained)
    assert metrics is not None
    assert results["val"] == metrics["val"]
    assert results["test"] == metrics["test"]
    written = run_folder.read_metrics(tmp_path)
    assert written is not None
    assert written["test"] == metrics["test"]


@pytest.mark.slow
def test_two_ranks_give_the_same_counts_on_an_odd_split(trained: Path, run: Run, tmp_path: Path) -> None:
    """The split has 5 images, evaluated 2 at a time: one rank gets 3, the other 2."""
    measured = ["metrics=[classes,cases]", "bootstrap.samples=0"]
    arguments = ["trainer.devices=2", "trainer.strategy=ddp", f"hydra.run.dir={tmp_path}/two", f"output={tmp_path}/two"]
    result = run("src.evaluate", f"ckpt={trained}", *arguments, *measured)
    assert result.returncode == 0, result.stderr
    evaluate(evaluation(tmp_path / "one", f"ckpt={trained}", *measured, f"output={tmp_path}/one"))
    for file in (f"evaluation/{split}/cases.csv" for split in ("val", "test")):
        assert (tmp_path / "two" / file).read_text() == (tmp_path / "one" / file).read_text()
    alone, both = run_folder.read_metrics(trained), run_folder.read_metrics(tmp_path / "two")
    assert alone is not None
    assert both is not None
    for split in ("val", "test"):
        loss, expected = both[split].pop("loss"), alone[split].pop("loss")
        assert both[split] == alone[split]
        assert loss == pytest.approx(expected, rel=1e-6)


def test_what_two_ranks_record_is_what_their_checkpoint_gives(run: Run, tmp_path: Path) -> None:
    """Also where each rank's batch norms see other images and are not synchronised."""
    options = [*SMALL, "trainer=ddp_cpu", "trainer.max_epochs=1", "model.ema_decay=0.9"]
    result = run("src.train", *options, f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    again = evaluate(evaluation(tmp_path / "again", f"ckpt={tmp_path}/run"))
    recorded = run_folder.read_metrics(tmp_path / "run")
    assert recorded is not None
    for split in ("val", "test"):
        assert again[split] == pytest.approx(recorded[split], rel=1e-6), split


def test_other_data_must_have_the_same_classes(trained: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / "data", split)
    options = ["data=folder", f"data.root={tmp_path}/data", f"data.dataset.names=[{','.join(NAMES)}]"]
    with pytest.raises(UserError, match=r"knows 6 classes .* the data has 3"):
        evaluate(evaluation(tmp_path, f"ckpt={trained}", *options))


def test_predicting_a_folder(trained: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 50)), ("b ü.jpg", (33, 65))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(photos / name)
    (photos / "bad.png").write_bytes(b"no image")
    (photos / "notes.txt").write_text("not looked at")
    failed = predict(prediction(f"ckpt={trained}", f"input={photos}", f"output={tmp_path}/out"))
    assert len(failed) == 1
    assert str(photos / "bad.png") in failed[0]
    model, _ = model_from_checkpoint(trained / run_folder.BEST)
    with Image.open(tmp_path / "out/masks/a.png") as mask, Image.open(photos / "a.png") as photo:
        assert mask.mode == "P"
        assert mask.size == (50, 40)
        image = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)
        with torch.inference_mode():
            expected = model.logits(image[None]).argmax(dim=1)[0].numpy()
        assert np.array_equal(np.asarray(mask), expected)
        assert mask.getpalette()[:6] == [70, 70, 70, 230, 60, 60]  # type: ignore[index]
    with Image.open(tmp_path / "out/overlays/b ü.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (65, 33))


@pytest.mark.slow
def test_on_the_devices_that_there_are_and_without_noise(trained: Path, run: Run, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    predicted = run("src.predict", f"ckpt={trained}", f"input={tmp_path}/a.png", "output=out")
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert (tmp_path / "out/masks/a.png").is_file()
    evaluated = run("src.evaluate", f"ckpt={trained}", "splits=[val]")
    assert (evaluated.returncode, evaluated.stderr) == (0, "")


def test_no_image_is_an_error(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="input: no image at"):
        predict(prediction(f"ckpt={trained}", f"input={tmp_path}/*.png", f"output={tmp_path}/out"))


class _Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    cases = {"text.ckpt": b"hello", "empty.ckpt": b"", "pickle.ckpt": pickle.dumps(_Payload(mark))}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save({"state_dict": _Payload(mark)}, tmp_path / "payload.ckpt")
    for name in (*cases, "foreign.ckpt", "payload.ckpt", "none.ckpt"):
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "builtins.eval", "source": "1"},
        {"_target_": "src.networks.weights.Path"},
        {"_target_": "src.networks.tiny.tiny", "width": {"_target_": "os.getcwd"}},
        {"_target_": "src.networks.weights._torch_load", "file": "x"},
        {"_target_": "src.networks.tiny.tiny", "_partial_": True},
        {"_target_": "src.networks.tiny.nn.Linear"},
    ],
)
def test_a_strangers_checkpoint_builds_only_networks(trained: Path, tmp_path: Path, node: dict[str, Any]) -> None:
    content = torch.load(trained / run_folder.BEST, weights_only=True)
    content["segmenter"]["config"]["network"] = node
    torch.save(content, tmp_path / "stranger.ckpt")
    with pytest.raises(UserError):
        model_from_checkpoint(tmp_path / "stranger.ckpt")


def test_a_checkpoint_of_another_network_than_the_data_shall_train(trained: Path, tmp_path: Path) -> None:
    options = [
        "data=folder",
        f"data.root={tmp_path}/data",
        f"data.dataset.names=[{','.join(NAMES)}]",
        "data.crop=[32,32]",
    ]
    for split in ("train", "val"):
        write(tmp_path / "data", split)
    composed = settings(
        tmp_path / "run", "network=small", "data.batch_size=2", *options, f"init_from={trained}", small=False
    )
    with pytest.raises(UserError, match=r"init_from: the weights in .* do not fit this network"):
        train(composed)


@pytest.mark.slow
def test_options_of_trainer_mean_the_same(trained: Path, run: Run, tmp_path: Path) -> None:
    """On two ranks by the name that training knows; what is of training alone is taken and changes nothing."""
    options = ["trainer=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=3", f"hydra.run.dir={tmp_path}/two"]
    result = run("src.evaluate", f"ckpt={trained}", *options)
    assert result.returncode == 0, result.stderr
    alone = evaluate(evaluation(tmp_path / "one", f"ckpt={trained}", "trainer=cpu"))
    both = run_folder.read_metrics(tmp_path / "two")
    assert both is not None
    for split in ("val", "test"):
        loss, expected = both[split].pop("loss"), alone[split].pop("loss")
        assert both[split] == alone[split]
        assert loss == pytest.approx(expected, rel=1e-6)


def test_what_an_evaluation_takes_of_a_trainer(trained: Path) -> None:
    before = Trained.of({"trainer": {"precision": "bf16-mixed", "limit_val_batches": 0.5, "max_epochs": 9}})
    chosen = compose("evaluate", ["ckpt=x", "trainer=ddp_cpu", "trainer.limit_test_batches=2"])["trainer"]
    taken = trainer_of(before, chosen, trained).node
    assert (taken["accelerator"], taken["devices"], taken["strategy"]) == ("cpu", 2, "ddp")
    assert (taken["precision"], taken["limit_val_batches"], taken["timeout_minutes"]) == ("32-true", 0.5, 10)
    assert not {"max_epochs", "limit_test_batches", "accumulate_grad_batches"} & set(taken)
    assert trainer_of(before, chosen, trained, ["trainer.limit_test_batches"]).limit_test_batches == 2
    as_trained = trainer_of(before, compose("evaluate", ["ckpt=x"])["trainer"], trained)
    assert (as_trained.precision, as_trained.devices) == ("bf16-mixed", 1)


def test_options_of_trainer_in_a_prediction(trained: Path, tmp_path: Path) -> None:
    """A processor and a precision; what is for several devices is refused with what to take instead."""
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    given = [f"ckpt={trained}", f"input={tmp_path}/a.png"]
    masks = {}
    for name, options in {
        "device": ["device=cpu"],
        "trainer": ["trainer=cpu"],
        "bf16": ["trainer=cpu", "trainer.precision=bf16-mixed", "uncertainty=true"],
    }.items():
        assert predict(compose("predict", [*given, f"output={tmp_path}/{name}", *options])) == []
        folder = tmp_path / name / ("uncertainty" if name == "bf16" else "masks")
        with Image.open(next(folder.iterdir())) as mask:
            masks[name] = np.asarray(mask)
    assert np.array_equal(masks["device"], masks["trainer"])
    assert predict(compose("predict", [*given, f"output={tmp_path}/exact", "trainer=cpu", "uncertainty=true"])) == []
    with Image.open(next((tmp_path / "exact/uncertainty").iterdir())) as exact:
        off = np.abs(np.asarray(exact).astype(int) - masks["bf16"]).max()
    assert 0 < off < 16
    for wrong, said in {
        (
            "trainer=ddp_cpu",
        ): "trainer: ddp is for several devices, and predicting takes one; take trainer=gpu or trainer=cpu",
        ("trainer.devices=2",): "trainer: devices=2 is for several devices",
        ("trainer=cpu", "device=cpu"): "device: cpu and trainer.accelerator=cpu both say where; give one",
        ("trainer=cpu", "trainer.precision=64-true"): "trainer.precision: predicting in 64-true is not possible",
        ("trainer=cpu", "trainer.precision=16-mixed"): "trainer.precision: 16-mixed needs a GPU",
        ("trainer.max_epochs=2",): "trainer.max_epochs",
    }.items():
        with pytest.raises((UserError, HydraException), match=re.escape(said)):
            predict(compose("predict", [*given, f"output={tmp_path}/out", *wrong]))


@pytest.mark.parametrize(("command", "group", "said"), [
    ("evaluate", "network=unet", "network: python -m src.evaluate takes none, for that is as the checkpoint says; leave it "
     "out"),
    ("evaluate", "trainer=deepspeed", "trainer.strategy: deepspeed cuts optimizer states into shards, and evaluating has none; "
     "take trainer=ddp"),
    ("export", "trainer=gpu", "trainer: python -m src.export takes none, for what it does it does on the CPU; leave it out"),
    ("predict", "optimizer=sgd", "optimizer: python -m src.predict takes none, for that is of training alone; leave it out"),
])  # fmt: skip
def test_a_group_without_a_meaning_is_refused_in_words(run: Run, command: str, group: str, said: str) -> None:
    result = run(f"src.{command}", "ckpt=x", group, *(["output=y"] if command != "evaluate" else []))
    assert (result.returncode, result.stderr) == (2, f"error: {said}\n")
