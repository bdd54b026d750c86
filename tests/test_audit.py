"""Labels that are likely wrong are found, listed and drawn."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.audit import Audit, audit
from src.cli.command import compose
from src.data.sources import Source
from src.errors import UserError
from src.train import train
from src.training.build import build_data
from tests.conftest import settings

SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("audited") / "run"
    train(settings(run_dir, "trainer.max_epochs=1"))
    return run_dir


def asked(*arguments: str) -> Audit:
    return Audit.of(compose("audit", [*arguments, "trainer.accelerator=cpu"]))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_image_is_listed_and_the_first_ones_are_drawn(trained: Path, tmp_path: Path) -> None:
    given = asked(f"ckpt={trained}", f"output={tmp_path}/out", "n=2", "smallest=4", "threshold=0.5")
    assert audit(given) == tmp_path / "out"
    images = rows(tmp_path / "out/images.csv")
    names = [row["image"] for row in images]
    assert len(names) == len(set(names)) == 5
    qualities = [float(row["quality"]) for row in images]
    assert qualities == sorted(qualities) and 0 <= qualities[0] < qualities[-1] <= 1
    assert (tmp_path / "out/review.txt").read_text().split() == names[:2]
    pictures = sorted(file.name for file in (tmp_path / "out/pictures").iterdir())
    assert len(pictures) == 2 and pictures[0].startswith(f"0001_{names[0].replace('/', '_')}")
    whole = json.loads((tmp_path / "out/audit.json").read_text())
    assert [one["image"] for one in whole["images"]] == names and whole["split"] == "val"
    regions = rows(tmp_path / "out/regions.csv")
    assert len(regions) == sum(int(row["regions"]) for row in images) > 0
    boxes = json.loads((tmp_path / "out/regions.json").read_text())
    assert len(boxes["annotations"]) == len(regions)
    assert all(one["area"] <= one["bbox"][2] * one["bbox"][3] for one in boxes["annotations"])


def test_train_and_its_own_words(trained: Path, tmp_path: Path) -> None:
    audit(asked(f"ckpt={trained}", f"output={tmp_path}", "n=0", "split=train"))
    assert len(rows(tmp_path / "images.csv")) == 24
    assert not (tmp_path / "pictures").exists()


def test_folds_are_each_asked_about_what_they_did_not_learn_from(tmp_path: Path) -> None:
    runs = []
    for k in range(2):
        runs.append(tmp_path / f"sweep/{k}")
        train(settings(runs[-1], "trainer.max_epochs=1", "data.folds.n=2", f"data.folds.k={k}"))
    combination = {"overrides": [], "pooled": {"miou": 0.1}, "folds": {"each": [{"run": "0"}, {"run": "1"}]}}
    (tmp_path / "sweep/folds.json").write_text(json.dumps({"n": 2, "combinations": [combination]}))
    with pytest.raises(UserError, match="split: val is for one run"):
        audit(asked(f"ckpt={tmp_path}/sweep", "split=val"))
    audit(asked(f"ckpt={tmp_path}/sweep", f"output={tmp_path}/out", "n=1"))
    names = {row["image"] for row in rows(tmp_path / "out/images.csv")}
    source = build_data(settings(tmp_path)["data"], seed=0).source("train")
    assert names == {source.name(index) for index in range(len(source))} and len(names) == 24


@pytest.mark.parametrize(("text", "said"), [
    ("{}", "is not what folds"), ('{"combinations": []}', "is not what folds"),
    ('{"combinations": [{"overrides": [], "pooled": {"miou": 1}, "folds": {"each": [{"run": "../x"}]}}]}', "leads out of"),
])  # fmt: skip
def test_a_strangers_list_of_folds(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(UserError, match=said):
        audit(asked(f"ckpt={tmp_path}"))


def spoilt(source: Source, root: Path, count: int, spoil: int) -> set[str]:
    """Writes samples as a data set whose first `spoil` labels are wrong: an object forgotten, of another class, or shifted."""
    for split in SPLITS:
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
    for at in range(count + 8):
        image, truth = source.read(at % len(source))
        mask = truth.numpy().copy()
        if at < spoil:
            first = min(np.unique(mask[mask > 0]))
            if at % 3 == 0:
                mask[mask == first] = 0
            elif at % 3 == 1:
                mask[mask == first] = first % 5 + 1
            else:
                mask = np.roll(mask, 10, axis=1)
        split = "val" if at < count else "train"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / f"images/{split}/{at:03}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / f"masks/{split}/{at:03}.png")
    return {f"{at:03}" for at in range(spoil)}


@pytest.mark.slow
def test_labels_that_were_spoilt_are_in_the_first_fifth(tmp_path: Path) -> None:
    config: dict[str, Any] = settings(tmp_path / "run", "trainer=cpu", "trainer.max_epochs=6", "callbacks.pictures=null",
                                      small=False)  # fmt: skip
    train(config)
    source = build_data(config["data"], seed=0).source("val")
    wrong = spoilt(source, tmp_path / "data", 100, 10)
    names = ["background", "disk", "rectangle", "ring", "line", "cross"]
    audit(asked(
        f"ckpt={tmp_path}/run", "data=folder", f"data.root={tmp_path}/data", f"data.dataset.names=[{','.join(names)}]",
        f"output={tmp_path}/out", "n=0",
    ))  # fmt: skip
    order = [row["image"].rpartition("/")[2] for row in rows(tmp_path / "out/images.csv")]
    assert len(wrong & set(order[: len(order) // 5])) >= 9
