"""Bad configs end in one line that names the key, what is wrong and the mend; good ones pass."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from src import cli
from src.config.check import check
from src.errors import UserError
from tests.conftest import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.mark.parametrize("group", ["network", "loss", "optimizer", "scheduler", "trainer"])
def test_every_option_passes(group: str) -> None:
    for name in names(group):
        check(cli.compose("train", [f"{group}={name}"]))


@pytest.mark.parametrize("name", names("experiment") + [f"debug:{n}" for n in names("debug")])
def test_every_recipe_passes(name: str) -> None:
    kind, _, choice = name.rpartition(":")
    overrides = [f"{kind or 'experiment'}={choice}"]
    composed = cli.compose("train", overrides)
    if "root" in composed["data"]:
        composed = cli.compose("train", [*overrides, "data.root=/somewhere"])
    check(composed)


BAD = {
    "+model.lrr=1": "model.lrr: no such key",
    "+optimizer.momentun=0.9": "optimizer.momentun: no such key",
    "+nonsense=1": "nonsense: no such key",
    "optimizer.lr=abc": "optimizer.lr: should be a valid number, not 'abc'",
    "optimizer.lr=-1": "optimizer.lr: should be greater than 0, not -1",
    "optimizer.weight_decay=-0.1": "optimizer.weight_decay: should be greater than or equal to 0",
    "data.batch_size=0": "data.batch_size: should be greater than 0, not 0",
    "data.batch_size=2.5": "data.batch_size: should be a valid integer",
    "data.num_workers=-1": "data.num_workers: should be greater than or equal to 0",
    "data.crop=[100,128]": "data.crop: [100, 128] is no multiple of this network's stride 32; take e.g. data.crop=[96, 128]",
    "data.cache=disc": "data.cache: should be 'ram', not 'disc'",
    "data.augment.flip=1.5": "data.augment.flip: should be less than or equal to 1",
    "data.dataset.height=3": "data.dataset.height: should be greater than or equal to 32",
    "monitor=val/mIoU": "did you mean 'val/miou'?",
    "monitor_mode=biggest": "monitor_mode: should be 'min' or 'max'",
    "trainer.devices=3": "cannot be split evenly over 3 devices; take 9",
    "trainer.precision=fp16": "trainer.precision: should be",
    "trainer.max_epochs=0": "trainer.max_epochs: should be greater than or equal to 1",
    "trainer.max_epochs=null": "trainer.max_epochs: without it",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val: should be greater than or equal to 0",
    "seed=-1": "seed: should be greater than or equal to 0",
    "model.ema_decay=1": "model.ema_decay: should be less than 1",
    "model.class_weights=balance": "model.class_weights: should be 'balanced'",
    "loss._target_=src.losses.segmentation.Dise": "loss._target_: 'Dise' is not in segmentation.py",
    "network._target_=src.networks.nothing.net": "network._target_: there is no module 'src.networks.nothing'",
    "network.width=wide": "network.width: should be a valid integer",
    "data=camvid": "data.root: must be given; say data.root=…",
    "scheduler.power=two": "scheduler.power: should be a valid number",
}
EXTRA = {"network.width=wide": ["network=tiny"], "scheduler.power=two": ["scheduler=poly"]}


@pytest.mark.parametrize("override", BAD)
def test_a_bad_value_is_named(override: str) -> None:
    with pytest.raises(UserError) as caught:
        check(cli.compose("train", [*EXTRA.get(override, []), override]))
    message = str(caught.value)
    assert BAD[override] in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.lrr=1"], "model.lrr: no such key; keys of model: "),
        (["optimizer.weight_dacay=1"], "did you mean 'weight_decay'?"),
        (["network=fcm"], "network=fcm: no such option, did you mean 'fcn'?; choose one of: deeplabv3, "),
        (["+data.batch_size=4"], "data.batch_size: is there already; leave out the '+'"),
        (["optimizer.lr=[1"], "no viable alternative"),
    ],
)
def test_a_user_sees_one_line_and_status_2_and_nothing_is_left_behind(
    run: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    result = run("src.train", *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


def test_help_and_a_config_error_import_no_torch(run: Run) -> None:
    for arguments in (["--help"], ["--cfg", "job"], ["optimizer.lr=abc"]):
        result = subprocess.run(
            [*_python_with_import_times(), *arguments], text=True, capture_output=True, cwd=ROOT, timeout=60
        )
        imported = set(re.findall(r"\|\s+(\S+)$", result.stderr, flags=re.MULTILINE))
        assert "omegaconf" in imported
        assert not imported & {"torch", "lightning", "numpy", "timm"}


def _python_with_import_times() -> list[str]:
    import sys

    return [sys.executable, "-X", "importtime", "-m", "src.train"]


def test_the_composed_config_is_printed(run: Run) -> None:
    result = run("src.train", "--cfg", "job", "optimizer.lr=0.5")
    assert result.returncode == 0
    assert "lr: 0.5" in result.stdout
