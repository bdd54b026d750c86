"""A packed run has nothing of whose machine it was made on, and works where it is unpacked."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch.utils.tensorboard import SummaryWriter

from src.cli.command import compose
from src.data.trained_on import CHECKPOINT_KEY
from src.errors import UserError
from src.evaluate import evaluate
from src.pack import pack
from src.predict import predict
from src.provenance.private import Private
from src.storage import run_folder
from src.storage.checkpoints import read
from src.storage.trust import OWN
from src.train import train
from src.verify import verify
from tests.conftest import settings
from tests.data.formats.test_folder import NAMES, write

USER = "qxalicia"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's home, with a run and its data in it."""
    home = tmp_path_factory.mktemp("machines") / "home" / USER
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("HOME", str(home)), ("USER", USER), ("LOGNAME", USER), ("USERNAME", USER)):
            patch.setenv(name, value)
        for split in ("train", "val"):
            write(home / "my data/streets", split)
        run = home / "project/logs/run"
        given = ["data=folder", f"data.root='{home}/my data/streets'", f"data.dataset.names=[{','.join(NAMES)}]",
                 "network=tiny", "trainer=cpu", "trainer.max_epochs=1", "data.batch_size=1", "data.num_workers=0",
                 "data.crop=[16,16]"]  # fmt: skip
        (run / ".hydra").mkdir(parents=True)
        config = settings(run, *given, small=False)
        (run / run_folder.CONFIG).write_text(yaml.safe_dump(config))
        (run / run_folder.OVERRIDES).write_text(yaml.safe_dump(given))
        (run / run_folder.HYDRA).write_text(
            yaml.safe_dump({"hydra": {"runtime": {"cwd": f"{home}/project", "output_dir": str(run)}}})
        )
        (run / run_folder.LOG).write_text(
            f'run folder: {run}\nFile "/opt/venv/lib/torch.py" of {USER}, at val/miou 0.5\n'
        )
        train(config, trust=OWN)
        with SummaryWriter(str(run / run_folder.TENSORBOARD)) as writer:
            writer.add_text("of", f"{home}/my data/streets of {USER}")
            writer.add_hparams({"data.root": f"{home}/my data/streets", "lr": 0.1}, {"best/miou": 0.5})
            writer.add_image(f"of {USER}", np.zeros((3, 8, 8), np.uint8))
        yield home


@pytest.fixture
def unpacked(home: Path, tmp_path: Path) -> Path:
    archive = pack(compose("pack", [f"run={home}/project/logs/run", f"output={tmp_path}/a.zip"]))
    with zipfile.ZipFile(archive) as content:
        content.extractall(tmp_path / "there")
    return tmp_path / "there/run"


def everything(content: bytes) -> Iterator[bytes]:
    yield content
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            yield from (inner.read(name) for name in inner.namelist())


def test_no_byte_of_it_names_the_home_or_the_user(home: Path, unpacked: Path) -> None:
    run = home / "project/logs/run"
    had = {
        file.relative_to(run).as_posix() for file in run.rglob("*")
        if file.is_file() and any(USER.encode() in part for part in everything(file.read_bytes()))
    }  # fmt: skip
    assert {run_folder.BEST, run_folder.CONFIG, run_folder.OVERRIDES, run_folder.LOG} <= had
    assert any("tfevents" in name for name in had)
    for file in unpacked.rglob("*"):
        assert USER not in str(file.relative_to(unpacked))
        for part in everything(file.read_bytes()) if file.is_file() else ():
            for word in (USER, str(home), str(home.parent), "/opt/venv", "project/logs"):
                assert not any(word.encode(coding) in part for coding in ("utf-8", "utf-16-le", "utf-32-le")), (
                    file,
                    word,
                )


def test_what_belongs_to_a_run_is_there(
    home: Path, unpacked: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in (run_folder.BEST, run_folder.METRICS, run_folder.CONFIG, run_folder.PROVENANCE, run_folder.LOG):
        assert (unpacked / name).is_file(), name
    for name in (run_folder.LAST, run_folder.ROOT, "checkpoints/.lock"):
        assert not (unpacked / name).exists(), name
    assert (unpacked / run_folder.LOG).read_text() == 'run folder: .\nFile "torch.py" of someone, at val/miou 0.5\n'
    config: Any = read(unpacked / run_folder.BEST)[CHECKPOINT_KEY]["config"]
    assert config["data"]["root"] == "streets"
    assert config["callbacks"]["checkpoint"]["run_dir"] == "."
    assert yaml.safe_load((unpacked / run_folder.CONFIG).read_text())["data"]["root"] == "streets"
    again = pack(compose("pack", [f"run={home}/project/logs/run", f"output={tmp_path}/b.zip", "resumable=true"]))
    with zipfile.ZipFile(again) as content:
        assert f"run/{run_folder.LAST}" in content.namelist()


def test_the_same_run_gives_the_same_archive(home: Path, tmp_path: Path) -> None:
    first, second = (
        pack(compose("pack", [f"run={home}/project/logs/run", f"output={tmp_path}/{n}.zip"])) for n in "ab"
    )
    assert first.read_bytes() == second.read_bytes()


def test_tensorboard_reads_the_curves_still(unpacked: Path) -> None:
    tags, bad = set(), 0
    for file in (unpacked / run_folder.TENSORBOARD).rglob("events*"):
        for event in LegacyEventFileLoader(str(file)).Load():
            tags |= {value.tag for value in event.summary.value}
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack("<Q", content[at : at + 8])
            at += length + 16
        bad += at != len(content)
    assert "val/miou" in tags and "of/text_summary" in tags and not bad


def test_it_works_where_it_is_unpacked(
    home: Path, unpacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"data\.root: must be given"):
        verify(compose("verify", [f"run={unpacked}", "trainer=cpu"]))
    shutil.copytree(home / "my data/streets", tmp_path / "elsewhere")
    assert verify(compose("verify", [f"run={unpacked}", f"data.root={tmp_path}/elsewhere", "trainer=cpu"]))
    said = capsys.readouterr().out
    assert said.startswith("verified: ") and "different" not in said
    composed = compose("evaluate", [f"ckpt={unpacked}", f"data.root={tmp_path}/elsewhere", "trainer=cpu"])
    composed["paths"]["output_dir"] = str(tmp_path / "out")
    metrics = run_folder.read_metrics(unpacked)
    assert metrics is not None and evaluate(composed)["val"] == metrics["val"]
    photo = tmp_path / "elsewhere/images/val/00.png"
    assert (
        predict(compose("predict", [f"ckpt={unpacked}", f"input={photo}", f"output={tmp_path}/p", "device=cpu"])) == []
    )
    assert Image.open(tmp_path / "p/masks/00.png").size == Image.open(photo).size


def test_what_cannot_be_cleared_stays_and_is_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(home / "project/logs/run", run)
    np.savez_compressed(run / "names.npz", ids=np.array([f"{home}/a", "b"]))
    (run / "thing.bin").write_bytes(b"\x00" + USER.encode() + b"\x00")
    pack(compose("pack", [f"run={run}", f"output={tmp_path}/a.zip"]))
    said = capsys.readouterr().out
    assert "left out: names.npz (has " in said and "left out: thing.bin (has " in said
    with zipfile.ZipFile(tmp_path / "a.zip") as content:
        assert not {"run/names.npz", "run/thing.bin"} & set(content.namelist())
    (run / "link").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="link: is a link"):
        pack(compose("pack", [f"run={run}", f"output={tmp_path}/b.zip"]))
    assert not (tmp_path / "b.zip").exists()


def test_mistakes_are_one_line(home: Path, tmp_path: Path) -> None:
    run = home / "project/logs/run"
    with pytest.raises(UserError, match=r"no run folder"):
        pack(compose("pack", [f"run={tmp_path}"]))
    with pytest.raises(UserError, match=r"is a zip file"):
        pack(compose("pack", [f"run={run}", "output=a.tar.gz"]))
    with pytest.raises(UserError, match=r"in the run folder itself"):
        pack(compose("pack", [f"run={run}", f"output={run}/a.zip"]))


def test_a_users_name_that_is_a_word_of_the_configs_is_taken_out_of_paths_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/max")
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "max")
    private = Private.of(tmp_path, [{"data": {"root": "/mnt/max/set"}}])
    cleared = private.plain(
        {"monitor_mode": "max", "root": "/mnt/max/set", "cache": "/home/max/c", "text": "/srv/w.pth"}
    )
    assert cleared == {"monitor_mode": "max", "root": "set", "cache": "c", "text": "w.pth"}
