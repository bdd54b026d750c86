"""Run folders that a stranger has made: what is a link, a pipe or a device in them is left alone."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from src import train
from src.cli.command import _composed, _folder
from src.data.augment.rare_classes import pixels_by_class
from src.data.formats.shapes import Shapes
from src.data.sources import Source
from src.errors import UserError
from src.files.foreign_folders import find_foreign, open_to_append, open_to_write
from src.storage import checkpoints, run_folder
from src.training.class_weights import class_weights

# What a command opens, writes or removes in a run folder; a folder's name ends with /.
PLACES = [
    "checkpoints/.lock", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "checkpoints/previous.ckpt", "train.log",
    "metrics.json", "class_counts.txt", "pixels_by_class.npz", ".hydra/config.yaml", ".hydra/overrides.yaml",
    "tensorboard/hparams.yaml", "csv/metrics.csv", "tensorboard/", "checkpoints/", ".hydra/", "stdout.txt", "stderr.txt",
]  # fmt: skip


def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "file").write_text("dear\n")
    (folder / ".last.ckpt.mine").write_text("dear\n")
    return folder


def untouched(folder: Path) -> bool:
    return {file.name: file.read_text() for file in folder.iterdir()} == {"file": "dear\n", ".last.ckpt.mine": "dear\n"}


def linked(run_dir: Path, place: str, to: Path) -> None:
    at = run_dir / place.rstrip("/")
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(to if place.endswith("/") else to / "file")


def with_config(run_dir: Path) -> Path:
    (run_dir / ".hydra").mkdir(parents=True)
    (run_dir / run_folder.CONFIG).write_text("seed: 1\n")
    return run_dir


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_resumed_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, dear = tmp_path / "run", victim(tmp_path)
    if not place.startswith(".hydra"):
        with_config(run_dir)
    linked(run_dir, place, dear)
    monkeypatch.setattr("sys.argv", ["src/train.py", f"resume={run_dir}"])
    with pytest.raises(SystemExit) as end:
        train.main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and f"{run_dir / place.rstrip('/')}: is a link" in said and len(said.splitlines()) == 1
    assert untouched(dear)


@pytest.mark.parametrize("place", [p for p in PLACES if not p.startswith(("csv", "std"))])
def test_no_new_run_takes_a_folder_that_leads_elsewhere(tmp_path: Path, place: str) -> None:
    linked(tmp_path / "run", place, dear := victim(tmp_path))
    with pytest.raises(UserError, match="is a link"):
        run_folder.refuse_taken(tmp_path / "run")
    given = [f"hydra.run.dir={tmp_path / 'run'}"]
    composed = _composed("train", given, with_hydra=True)
    with pytest.raises(UserError, match="is a link"):
        _folder("train", given, composed)
    assert untouched(dear)


@pytest.mark.parametrize("place", ["checkpoints/best.ckpt", "checkpoints/"])
def test_no_checkpoint_is_found_through_a_link(tmp_path: Path, place: str) -> None:
    linked(tmp_path / "run", place, victim(tmp_path))
    with pytest.raises(UserError, match="is a link"):
        checkpoints.find(str(tmp_path / "run"))


@pytest.mark.parametrize("place", ["checkpoints/.lock", "checkpoints/", "tensorboard/", "metrics.json"])
def test_what_is_cleared_and_locked_is_the_folders_own(tmp_path: Path, place: str) -> None:
    """Without the check at the entrance too."""
    run_dir, dear = tmp_path / "run", victim(tmp_path)
    linked(run_dir, place, dear)

    def begin() -> None:
        with run_folder.locked(run_dir):
            run_folder.clear(run_dir, resume=False)
            run_folder.read_metrics(run_dir)

    if place == "metrics.json":  # a link in its place is removed, what it leads to is not
        begin()
    else:
        with pytest.raises(UserError, match="is a link"):
            begin()
    assert untouched(dear)


def test_pipes_and_devices_are_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.json")
    with pytest.raises(UserError, match=r"metrics\.json: is a pipe"):
        run_folder.check_own(tmp_path)
    with pytest.raises(UserError, match=r"is a pipe|cannot be written"):
        open_to_append(tmp_path, "metrics.json")
    with pytest.raises(UserError, match="no regular file"):
        run_folder.read_metrics(tmp_path)


def test_the_folder_itself_may_be_a_link_and_a_logger_have_its_own(tmp_path: Path) -> None:
    disk = with_config(tmp_path / "disk/run")
    (disk / "wandb").mkdir()
    (disk / "wandb/latest").symlink_to(tmp_path)
    (tmp_path / "logs").symlink_to(tmp_path / "disk")
    run_folder.check_own(tmp_path / "logs/run")
    assert find_foreign(disk) == (disk / "wandb/latest", "a link")
    run_folder.check_own(tmp_path / "not there")
    with run_folder.locked(tmp_path / "logs/run"):
        assert "process" in (disk / "checkpoints/.lock").read_text()


def test_writing_makes_folders_and_follows_none(tmp_path: Path) -> None:
    dear = victim(tmp_path)
    for opened in (open_to_append, open_to_write):
        with opened(tmp_path, "a/b/c.txt") as file:
            file.write(b"1")
        for name in ("link", "linked/file"):
            (tmp_path / "link").unlink(missing_ok=True)
            (tmp_path / "link").symlink_to(dear / "file")
            (tmp_path / "linked").unlink(missing_ok=True)
            (tmp_path / "linked").symlink_to(dear)
            with pytest.raises(UserError, match="is a link"):
                opened(tmp_path, name)
        with pytest.raises(UserError, match="leads out"):
            opened(tmp_path, "../x")
    assert (tmp_path / "a/b/c.txt").read_bytes() == b"1"
    assert untouched(dear)


@pytest.mark.parametrize(
    "kept", ["# x\nno number\n", "-1\n1\n1\n1\n1\n", "1\n2\n", "0\n0\n0\n0\n0\n", f"{10**400}\n" * 5, "\x00"]
)  # fmt: skip
def test_counts_that_are_none_are_counted_again(tmp_path: Path, kept: str) -> None:
    source = cast("Source", Shapes("train", train_length=2))
    file = tmp_path / run_folder.CLASS_COUNTS
    weights = class_weights("balanced", source, file)
    counted = file.read_text()
    file.write_text(kept)
    again = class_weights("balanced", source, file)
    assert weights is not None and again is not None and weights.equal(again)
    assert file.read_text() == counted


def test_pixels_that_are_none_are_counted_again(tmp_path: Path) -> None:
    source = cast("Source", Shapes("train", train_length=2))
    file = tmp_path / run_folder.PIXELS_BY_CLASS
    pixels = pixels_by_class(source, file)
    whole = file.read_bytes()
    bomb, other = io.BytesIO(), io.BytesIO()
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as parts,
        parts.open("pixels.npy", "w", force_zip64=True) as part,
    ):
        for _ in range(64):
            part.write(bytes(1 << 20))
    np.savez(other, pixels=np.array([object()]), names="[]")
    for content in (b"", b"PK", whole[:-20], whole[:100], bomb.getvalue(), other.getvalue()):
        file.write_bytes(content)
        assert (pixels_by_class(source, file) == pixels).all()
        assert len(file.read_bytes()) == len(whole)
    file.unlink()
    shutil.copy(__file__, tmp_path / "dear")
    file.symlink_to(tmp_path / "dear")
    with pytest.raises(UserError, match="is a link"):
        pixels_by_class(source, file)
