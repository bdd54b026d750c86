"""Folds of the training split: who is held out, with whom, and that each class is in every fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from src.cli.command import compose
from src.config.check import checked
from src.config.settings import Trained
from src.data.folds import Folds, HeldOut, is_held_out, stratified
from src.data.labels import LabelSet
from src.data.sources import Source, Subset, digest
from src.data.trained_on import check_unseen
from src.errors import UserError
from src.evaluate import evaluate
from src.evaluation import matrices
from src.evaluation.scores import data_set_miou
from src.storage import run_folder
from src.storage.checkpoints import samples_of
from src.train import train
from src.training.build import build_data
from src.training.ensembles import files_of
from tests.conftest import settings
from tests.data.formats.test_folder import NAMES, write


class Slices:
    """Samples of volumes, those of subjects: `p1_a_003` is a slice of volume `p1_a` of the patient `p1`."""

    label_set = LabelSet(("background", "organ", "lesion"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    channels, intensity, split = 1, (0.0, 255.0), "train"

    def __init__(self, names: list[str], shown: np.ndarray[Any, Any] | None = None) -> None:
        self.names, self.shown, self.reads = names, shown, 0

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def whole(self, index: int) -> str:
        return self.names[index][:4]

    def subject(self, index: int) -> str | None:
        return None if self.names[index].startswith("x") else self.names[index][:2]

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads += 1
        mask = torch.zeros(3, 1, dtype=torch.uint8)
        if self.shown is not None:
            mask[:, 0] = torch.from_numpy(np.where(self.shown[index], np.arange(3), 255).astype(np.uint8))
        return torch.zeros(1, 3, 1, dtype=torch.uint8), mask


def held_out(source: Source, **keys: Any) -> list[set[str]]:
    """The names that each fold holds out."""
    found = []
    for k in range(keys["n"]):
        train, test = Folds(**keys, k=k).split(source)
        names = [{part.name(i) for i in range(len(part))} for part in (train, test)]
        assert not names[0] & names[1] and len(names[0] | names[1]) == len(source)
        found.append(names[1])
    return found


def test_each_fold_shows_each_class_as_often_as_the_others() -> None:
    generator = np.random.default_rng(0)
    shown = generator.random((503, 6)) < [1.0, 0.5, 0.2, 0.1, 0.03, 0.012]
    names = [f"i{i}" for i in range(503)]
    fold = stratified(shown, names, 5, 0)
    counts = np.stack([shown[fold == k].sum(0) for k in range(5)])
    assert (np.ptp(counts[:, 3:], axis=0) <= 1).all(), counts  # the rare ones, as evenly as they go
    assert (np.ptp(counts, axis=0) <= 4).all(), counts
    assert np.ptp(np.bincount(fold)) <= 4
    by_chance = np.array_split(generator.permutation(503), 5)
    assert max(np.ptp([shown[part].sum(0) for part in by_chance], axis=0)) > 10


def test_the_same_whatever_the_order_and_others_by_another_seed() -> None:
    shown = np.random.default_rng(1).random((60, 4)) < 0.3
    names = [f"i{i}" for i in range(60)]
    fold, again = stratified(shown, names, 4, 7), np.random.default_rng(2).permutation(60)
    assert np.array_equal(stratified(shown[again], [names[i] for i in again], 4, 7), fold[again])
    assert not np.array_equal(stratified(shown, names, 4, 8), fold)


def test_groups_stay_together_and_are_dealt_by_their_size() -> None:
    generator = np.random.default_rng(3)
    groups = [f"g{g}" for g in np.repeat(np.arange(40), generator.integers(1, 30, 40))]
    shown = generator.random((len(groups), 3)) < [0.9, 0.3, 0.05]
    fold = stratified(shown, groups, 4, 0)
    assert all(len(set(fold[np.array(groups) == group])) == 1 for group in set(groups))
    assert np.bincount(fold).min() > len(groups) / 4 * 0.8


def test_no_fold_is_empty_and_there_are_enough_groups() -> None:
    groups = ["big"] * 50 + ["a", "b", "c", "d"]
    for classes in (0, 2):
        fold = stratified(np.ones((54, classes), np.bool_), groups, 5, 0)
        assert sorted(set(fold)) == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match=r"data.folds.n: 6 folds of 5 groups of 54 training images; take fewer folds"):
        stratified(np.ones((54, 1), np.bool_), groups, 6, 0)
    with pytest.raises(UserError, match="3 folds of 2 training images"):
        stratified(np.ones((2, 1), np.bool_), ["a", "b"], 3, 0)


def test_groups_are_subjects_else_wholes_else_what_is_said() -> None:
    names = [f"{patient}_{volume}_{i:03}" for patient in ("p1", "p2", "p3", "x1") for volume in "ab" for i in range(4)]
    source = Slices(names)
    subjects = held_out(source, n=3, stratify=False)
    assert source.reads == 0
    assert all(len({fold for fold, held in enumerate(subjects) for n in held if n.startswith(p)}) == 1
               for p in ("p1", "p2", "p3"))  # fmt: skip
    for volume in ("x1_a", "x1_b"):  # of nobody that is known: the volume stays together
        assert len({fold for fold, held in enumerate(subjects) for n in held if n.startswith(volume)}) == 1
    said = held_out(source, n=2, group="_([ab])_", stratify=False)
    assert all(len({n[3] for n in held}) == 1 for held in said)
    with pytest.raises(UserError, match=r"data.folds.group: 'p\(.\)' does not fit the name 'x1_a_000'"):
        held_out(source, n=2, group="p(.)")


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"data.folds: two training samples are called 'p1_a_000'"):
        held_out(Slices(["p1_a_000", "p2_a_000", "p1_a_000"]), n=2)


def test_the_held_out_fold_is_the_test_split_and_val_stays(tmp_path: Path) -> None:
    def names(source: Source) -> list[str]:
        return [source.name(i) for i in range(len(source))]

    plain = build_data(settings(tmp_path)["data"], 0)
    node = settings(tmp_path, "data.folds.n=4", "data.folds.k=1", "data.limit=20", "data.labeled_fraction=1/3")["data"]
    data = build_data(node, 0, use_unlabeled=True)
    assert names(data.source("val")) == names(plain.source("val"))
    test = data.source("test")  # first of all
    assert (len(test), test.split, is_held_out(test), is_held_out(data.source("val"))) == (5, "test", True, False)
    unlabeled = data.unlabeled
    assert unlabeled is not None
    labelled = names(data.source("train"))
    assert len(labelled) == 5
    assert sorted([*labelled, *names(unlabeled), *names(test)]) == names(plain.source("train"))[:20]
    data.prepare()
    assert set(data.own_sources()) == {"train", "val", "test"}
    assert is_held_out(data.source("test"))
    assert data.batches_per_epoch() == 15 // 4


def test_the_group_of_the_data_set_is_the_folds(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    node = compose("train", [
        "data=folder", f"data.root={root}", f"data.dataset.names=[{','.join(NAMES)}]", "data.folds.n=2", "data.folds.k=0",
        "data.dataset.group='(.)$'", "data.dataset.val_fraction=0.2", "data.dataset.images='images/train/*'",
        "data.dataset.masks='masks/train/*'",
    ])["data"]  # fmt: skip
    data = build_data(node, 0)
    ends = [{part.name(i)[-1] for i in range(len(part))} for part in (data.source("train"), data.source("test"))]
    assert not ends[0] & ends[1]


def test_the_folds_share_one_cache_on_disk(tmp_path: Path) -> None:
    root = write(write(tmp_path / "data"), "val")
    given = ["data=folder", f"data.root={root}", f"data.dataset.names=[{','.join(NAMES)}]", "data.batch_size=1"]
    cache = ["data.cache=disk", f"data.cache_dir={tmp_path / 'cache'}", "data.folds.n=2"]
    for k in range(2):
        data = build_data(compose("train", [*given, *cache, f"data.folds.k={k}"])["data"], 0)
        data.prepare()
        plain = build_data(compose("train", [*given, "data.folds.n=2", f"data.folds.k={k}"])["data"], 0).source("test")
        held = data.source("test")
        assert [held.name(i) for i in range(len(held))] == [plain.name(i) for i in range(len(plain))]
        assert all(torch.equal(held.read(i)[0], plain.read(i)[0]) for i in range(len(held)))
    assert len(list((tmp_path / "cache").glob("*/*/samples.bin"))) == 2  # of the training split, and of val


@pytest.mark.parametrize(("overrides", "words"), [
    (["data.folds.n=5"], "data.folds: n says how many there are and k, from 0, which is held out"),
    (["data.folds.k=1"], "data.folds: n says how many there are and k"),
    (["data.folds.n=5", "data.folds.k=5"], "data.folds.k: 5 is none of 5 folds, which count from 0; take up to 4"),
    (["data.folds.n=1", "data.folds.k=0"], "data.folds.n"),
    (["data.folds.n=5", "data.folds.k=0", "test=false"], "test: the fold that is held out is scored by it"),
    (["data.folds.n=5", "data.folds.k=0", "model=synthesis"], "data.folds: model=synthesis predicts no classes"),
])  # fmt: skip
def test_keys_that_do_not_fit_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        checked(compose("train", overrides))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fold")
    return train(settings(folder, "data.folds.n=4", "data.folds.k=2", "trainer.max_epochs=1")).run_dir


def test_a_run_writes_what_it_says_of_the_fold(run: Path, tmp_path: Path) -> None:
    images = matrices.read(run / run_folder.EVALUATION / "test" / matrices.FILE)
    plain = build_data(settings(tmp_path)["data"], 0).source("train")
    expected = Folds(4, 2).split(plain)[1]
    assert list(images.ids) == [expected.name(i) for i in range(len(expected))]
    recorded = run_folder.read_metrics(run)
    assert recorded is not None
    assert float(data_set_miou(images.right.sum(0), images.true.sum(0), images.predicted.sum(0))) == pytest.approx(
        recorded["test"]["miou"], abs=1e-12
    )
    assert images.about["checkpoint"] == matrices.sha256(run / run_folder.BEST)
    composed = compose("evaluate", [f"ckpt={run}"])
    composed["paths"]["output_dir"] = str(tmp_path / "again")
    assert evaluate(composed)["test"] == recorded["test"]  # the fold again, out of the checkpoint alone


def test_an_ensemble_of_folds_is_scored_on_the_data_sets_own_splits(run: Path, tmp_path: Path) -> None:
    composed = compose("evaluate", [f"ckpt=[{run},{run}]", "metrics=[classes]", "bootstrap.samples=0"])
    composed["paths"]["output_dir"] = str(tmp_path)
    evaluate(composed)
    for split in ("val", "test"):
        ids = matrices.read(tmp_path / run_folder.EVALUATION / split / matrices.FILE).ids
        assert list(ids) == [f"{split}_{i:05d}" for i in range(5)]


def test_a_fold_of_other_images_is_not_scored(run: Path, tmp_path: Path) -> None:
    (file,) = files_of(str(run))
    known = samples_of(file)
    source = build_data(settings(tmp_path)["data"], 0).source("train")
    parts: dict[str, Source] = dict(zip(("train", "test"), Folds(4, 2).split(source), strict=True))
    assert known["training"] == [len(parts["train"]), digest(parts["train"])]
    assert check_unseen(parts.__getitem__, ["test"], known, str(file)) == []
    fewer = Subset(source, range(1, 24))
    others: dict[str, Source] = dict(zip(("train", "test"), Folds(4, 2).split(fewer), strict=True))
    assert isinstance(others["test"], HeldOut)
    with pytest.raises(UserError, match=r"the training data of .* has .* in training, and the split 'test' is drawn"):
        check_unseen(others.__getitem__, ["test"], known, str(file))


def test_earlier_checkpoints_have_no_folds() -> None:
    assert Trained.of({"data": {"_target_": "x"}}).data.folds is None
    assert not Folds().active
