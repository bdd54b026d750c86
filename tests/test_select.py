"""Photos are proposed for labelling."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from src.cli.command import compose
from src.errors import UserError
from src.select import Selection, select
from src.train import train
from src.training.build import build_data
from tests.conftest import settings

COUNT = 12


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("selecting") / "run"
    train(settings(run_dir, "trainer.max_epochs=1", "network=small", "network.encoder=resnet18"))
    return run_dir


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    source = build_data(settings(tmp_path)["data"], seed=0).source("train")
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for at in range(COUNT):
        picture = Image.fromarray(source.read(at)[0].permute(1, 2, 0).numpy())
        picture.save(folder / ("more" if at > 8 else ".") / f"{at:02}.png")
    return folder


def asked(*arguments: str) -> Selection:
    return Selection.of(compose("select", ["device=cpu", *arguments]))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "selection.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_all_are_listed_and_as_many_as_wanted_are_named(trained: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["recursive=true", "n=3", f"output={out}"]
    assert select(asked(f"ckpt={trained}", f"input={photos}", *given)) == []
    found = rows(out)
    scores = [float(row["entropy"]) for row in found]
    assert len(found) == COUNT and scores == sorted(scores, reverse=True) and 0 < scores[0] < 1
    assert [row["chosen"] for row in found] == ["1", "2", "3", *[""] * (COUNT - 3)]
    assert (out / "selected.txt").read_text().split() == [row["image"] for row in found[:3]]
    assert all(Path(row["file"]).is_file() for row in found)
    select(asked(f"ckpt={trained}", f"input={photos}", "diverse=true", *given))
    diverse = (out / "selected.txt").read_text().split()
    assert diverse[0] == found[0]["image"] and len(set(diverse)) == 3
    assert diverse != [row["image"] for row in found[:3]]


def test_disagreement_needs_several(trained: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"by: mutual_information is the disagreement .*ckpt=\[RUN1,RUN2,RUN3\]"):
        select(asked(f"ckpt={trained}", f"input={photos}", "by=mutual_information"))
    given = [f"ckpt=[{trained},{trained}/checkpoints/last.ckpt]", "by=mutual_information", f"output={tmp_path}/out"]
    assert select(asked(f"input={photos}", *given)) == []
    assert {float(row["mutual_information"]) for row in rows(tmp_path / "out")} == {0.0}  # both are one


def test_what_cannot_be_read_stops_no_other(trained: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    failed = select(asked(f"ckpt={trained}", f"input={photos}", f"output={tmp_path}/out", "n=99"))
    assert len(failed) == 1 and "bad.png" in failed[0]
    assert len(rows(tmp_path / "out")) == 9
    with pytest.raises(UserError, match=r"input: no image could be read; the first: .*bad\.png"):
        select(asked(f"ckpt={trained}", f"input={photos}/bad.png", f"output={tmp_path}/none"))
