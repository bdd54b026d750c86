"""A run of one's own knows where its data lie; nobody else's does."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from src.cli.command import compose
from src.errors import UserError
from src.evaluate import evaluate
from src.files.untrusted import read_json
from src.storage import ownership, run_folder
from src.train import train
from tests.conftest import settings
from tests.data.formats.test_folder import NAMES, write

Made = tuple[Path, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run folder and the root of its data."""
    folder = tmp_path_factory.mktemp("mine")
    for split in ("train", "val"):
        write(folder / "my data", split)
    options = ["data=folder", f"data.root='{folder}/my data'", f"data.dataset.names=[{','.join(NAMES)}]", "test=false"]
    more = ["network=tiny", "trainer=cpu", "trainer.max_epochs=1", "data.batch_size=2", "data.crop=[16,16]"]
    run_dir = train(settings(folder / "run", *options, *more, "data.num_workers=0", small=False)).run_dir
    return run_dir, folder / "my data"


def scores(ckpt: Path, tmp_path: Path) -> dict[str, Any]:
    composed = compose("evaluate", [f"ckpt='{ckpt}'", "splits=[val]"])
    composed["paths"]["output_dir"] = str(tmp_path)
    return evaluate(composed)


def asked(ckpt: Path, tmp_path: Path) -> str:
    with pytest.raises(UserError, match=r"^data\.root: must be given") as caught:
        scores(ckpt, tmp_path)
    return str(caught.value)


def test_the_readmes_command_alone(made: Made, tmp_path: Path) -> None:
    run_dir, _ = made
    metrics = run_folder.read_metrics(run_dir)
    assert metrics is not None
    for ckpt in (run_dir, run_dir / run_folder.BEST):
        assert scores(ckpt, tmp_path)["val"] == metrics["val"]
    shutil.copytree(run_dir, tmp_path / "moved")
    assert scores(tmp_path / "moved", tmp_path)["val"] == metrics["val"]


def test_a_lone_checkpoint_is_asked_for_the_whole_command(made: Made, tmp_path: Path) -> None:
    run_dir, root = made
    file = tmp_path / "a b.ckpt"
    shutil.copy(run_dir / run_folder.BEST, file)
    words = asked(file, tmp_path)
    assert words.endswith(f"python -m src.evaluate 'ckpt={file}' 'data.root={root}'")
    assert "\n" not in words


def _no_proof(run_dir: Path) -> None:
    (run_dir / run_folder.ROOT).unlink()


def _other_root(run_dir: Path) -> None:
    said = read_json(run_dir / run_folder.ROOT)
    (run_dir / run_folder.ROOT).write_text(json.dumps(said | {"root": "/"}))


def _other_checkpoint(run_dir: Path) -> None:
    import torch

    content = torch.load(run_dir / run_folder.BEST, weights_only=True)
    content["segmenter"]["config"]["data"]["root"] = "/"
    torch.save(content, run_dir / run_folder.BEST)


def _link(run_dir: Path) -> None:
    (run_dir / run_folder.ROOT).rename(run_dir / "proof")
    (run_dir / run_folder.ROOT).symlink_to(run_dir / "proof")


def _nonsense(run_dir: Path) -> None:
    (run_dir / run_folder.ROOT).write_text('["root", "proof"]')


def _not_text(run_dir: Path) -> None:
    (run_dir / run_folder.ROOT).write_text('{"root": {"a": 1}, "proof": "\\u00fc"}')


def _own_key(run_dir: Path) -> None:
    """A proof made with a key that came along."""
    said = read_json(run_dir / run_folder.ROOT)
    (run_dir / "key").write_bytes(b"k" * 32)
    proof = ownership._proof(b"k" * 32, said["root"], said["root"])
    (run_dir / run_folder.ROOT).write_text(json.dumps(said | {"proof": proof}))


@pytest.mark.parametrize(
    "spoil",
    [_no_proof, _other_root, _other_checkpoint, _link, _nonsense, _not_text, _own_key],
    ids=lambda s: s.__name__,
)
def test_no_strangers_folder_says_where_to_read(made: Made, tmp_path: Path, spoil: Any) -> None:
    shutil.copytree(made[0], tmp_path / "run")
    spoil(tmp_path / "run")
    asked(tmp_path / "run", tmp_path)


def test_another_user_is_asked(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (None, b"k" * 32, b"", b"k" * 31):
        if key is not None:
            (tmp_path / "pixelwise").mkdir(exist_ok=True)
            (tmp_path / "pixelwise/key").write_bytes(key)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        asked(made[0], tmp_path)


def test_the_key_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    ownership.sign(tmp_path, str(tmp_path))
    key = tmp_path / "conf/pixelwise/key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    first = key.read_bytes()
    assert ownership.root(tmp_path / run_folder.BEST, str(tmp_path)) == str(tmp_path)
    ownership.sign(tmp_path, str(tmp_path))
    assert key.read_bytes() == first
    assert first.hex() not in (tmp_path / run_folder.ROOT).read_text()
    ownership.sign(tmp_path, None)
    assert not (tmp_path / run_folder.ROOT).exists()


def test_a_run_goes_on_without_a_place_for_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    ownership.sign(tmp_path, str(tmp_path))
    assert not (tmp_path / run_folder.ROOT).exists()


def test_a_url_of_ones_own_is_taken(tmp_path: Path) -> None:
    given = "s3://bucket/chunks"
    ownership.sign(tmp_path, given)
    assert ownership.root(tmp_path / run_folder.BEST, given) == "s3://bucket/chunks"
    assert ownership.root(tmp_path / run_folder.BEST, "s3://other") is None


def test_data_that_are_gone_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    given = str(tmp_path / "data")
    ownership.sign(tmp_path, given)
    assert ownership.root(tmp_path / run_folder.BEST, given) is not None
    (tmp_path / "data").rmdir()
    assert ownership.root(tmp_path / run_folder.BEST, given) is None
