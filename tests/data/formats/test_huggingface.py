"""Data sets that the `datasets` library wrote, on this machine; what is not there is said in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from src.data.formats.huggingface import HuggingFace
from src.errors import UserError
from src.training.build import build_data
from tests.conftest import settings


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


NAMES = ["background", "road", "car"]
SIZE = (24, 32)


def pixels(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), np.uint8)


def values(seed: int, count: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, count, SIZE, np.uint8)


def rows(count: int, offset: int = 0, **columns: Any) -> datasets.Dataset:
    features = {"image": datasets.Image(), "mask": datasets.Image(), "key": datasets.Value("string")}
    content = {
        "image": [Image.fromarray(pixels(offset + i)) for i in range(count)],
        "mask": [Image.fromarray(values(offset + i)) for i in range(count)],
        "key": [f"k{offset + i}" for i in range(count)],
    }
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def saved(root: Path, **splits: datasets.Dataset) -> str:
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return str(root)


def test_a_saved_data_set_trains_like_any_other(tmp_path: Path) -> None:
    root = saved(tmp_path / "set", train=rows(6), validation=rows(3, offset=6))
    options = [
        "data=huggingface",
        f"data.root={root}",
        f"data.dataset.names=[{','.join(NAMES)}]",
        "data.dataset.id=key",
    ]
    node = settings(tmp_path, *options, "data.batch_size=2", "data.crop=[16,16]", "data.num_workers=2", small=False)
    datamodule = build_data(node["data"], seed=0)
    datamodule.prepare()
    train, val = datamodule.source("train"), datamodule.source("val")
    assert (len(train), len(val), datamodule.source("test")) == (6, 3, val)
    image, mask = val.read(1)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels(7)) and np.array_equal(mask.numpy(), values(7))
    assert sorted(name for batch in datamodule.train_dataloader() for name in batch["id"]) == [
        f"k{i}" for i in range(6)
    ]


def test_parquet_files_masks_as_arrays_and_names_in_the_feature(tmp_path: Path) -> None:
    label = datasets.List(datasets.List(datasets.ClassLabel(names=NAMES)))
    features = datasets.Features({"photo": datasets.Image(), "label": label})
    content = {
        "photo": [Image.fromarray(pixels(i)) for i in range(10)],
        "label": [values(i).tolist() for i in range(10)],
    }
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(content, features=features).to_parquet(str(tmp_path / "set/train.parquet"))
    sources = {split: HuggingFace(split, str(tmp_path / "set"), val_fraction=0.2) for split in ("train", "val")}
    assert {split: len(source) for split, source in sources.items()} == {"train": 8, "val": 2}
    assert sources["val"].label_set.names == tuple(NAMES)
    names = [source.name(i) for source in sources.values() for i in range(len(source))]
    assert len(set(names)) == 10
    for source in sources.values():
        assert np.array_equal(source.read(0)[1].numpy(), values(int(source.name(0))))
    again = HuggingFace("val", str(tmp_path / "set"), val_fraction=0.2)
    assert [again.name(i) for i in range(2)] == [sources["val"].name(i) for i in range(2)]


def test_names_beside_the_data_and_a_first_class_that_is_not_zero(tmp_path: Path) -> None:
    root = saved(tmp_path / "set", train=rows(2), val=rows(2))
    (tmp_path / "set/id2label.json").write_text(json.dumps({"0": "nothing", "1": "road", "2": "car"}))
    assert HuggingFace("train", root).label_set.names == ("nothing", "road", "car")
    without = HuggingFace("train", root, first=1)
    assert without.label_set.names == ("road", "car")
    expected = np.array([255, 0, 1])[values(0)]
    assert np.array_equal(without.read(0)[1].numpy(), expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "data.dataset.names: "),
        (
            {"names": NAMES, "image": "photo"},
            "data.dataset.image: there is no column 'photo'; columns: image, mask, key",
        ),
        ({"names": NAMES, "image": "key"}, "data.dataset.image: the column 'key' holds no images"),
        ({"names": NAMES, "id": "name"}, "data.dataset.id: there is no column 'name'"),
        (
            {"names": NAMES, "splits": {"train": "all"}},
            "data.dataset.splits: the data set has no split 'all', only train, x",
        ),
        ({"names": NAMES[:2]}, "row 0 (000000): mask: label 2 is out of range"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, given: Mapping[str, Any], said: str) -> None:
    root = saved(tmp_path / "set", train=rows(2), x=rows(1))
    with pytest.raises(UserError) as caught:
        HuggingFace("train", root, **given).read(0)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_data_set_without_val_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no split for val, only train; .*val_fraction"):
        HuggingFace("val", saved(tmp_path / "set", train=rows(2)), names=NAMES)


def test_neither_here_nor_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: object, **given: object) -> None:
        raise OSError("no route to host")

    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)  # put back at the end
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(
        UserError, match=r"data\.root: nobody/nothing-of-this-name cannot be loaded .*check the name and"
    ):
        HuggingFace("train", "nobody/nothing-of-this-name", names=NAMES)
    with pytest.raises(UserError, match=r"data\.root: there is no folder"):
        HuggingFace("train", f"{tmp_path}/none", names=NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cannot be loaded .*are there Parquet files in it"):
        HuggingFace("train", f"{tmp_path}/empty", names=NAMES)
