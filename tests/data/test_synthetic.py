"""`data.synthetic`: which samples are drawn, by what, and that it is the same whatever the workers, the order or a resume."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from src.data.labels import LabelSet
from src.data.synthetic import REAL, Synthetic, drawn_by_lot
from src.errors import UserError
from src.storage import run_folder
from src.storage.trust import OWN
from src.train import train
from src.training import helpers
from src.training.build import build_data
from tests.conftest import settings
from tests.models.test_synthesis import fit
from tests.same import assert_same

CLASSES = LabelSet(names=("a", "b"), colors=((0, 0, 0), (9, 9, 9)))


class Painter:
    """Paints the seed's last digit, and the mask."""

    label_set, channels, intensity = CLASSES, 1, (0.0, 255.0)

    def to(self, device: torch.device) -> Painter:
        return self

    def draw(self, mask: torch.Tensor, seeds: list[int], dtype: torch.dtype) -> torch.Tensor:
        return torch.stack([(one + seed % 10)[None] for one, seed in zip(mask, seeds, strict=True)]).to(dtype)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("generator") / "run"
    fit(run_dir, "~logger", "test=false", "trainer.max_epochs=1")
    return run_dir


def test_only_images_with_a_seed_are_drawn() -> None:
    image, mask = torch.full((3, 1, 2, 2), 77, dtype=torch.uint8), torch.ones(3, 2, 2, dtype=torch.uint8)
    batch = {"image": image, "mask": mask, "id": ["a", "b", "c"], "synthetic": torch.tensor([13, REAL, 2**62 + 4])}
    mixed = Synthetic(Painter(), "run", "digest").mixed(batch)  # type: ignore[arg-type]
    assert mixed["image"][:, 0, 0, 0].tolist() == [4, 77, (2**62 + 4) % 10 + 1]
    assert (image == 77).all() and torch.equal(mixed["mask"], mask)


def test_the_share_is_that_of_the_samples() -> None:
    seeds = [drawn_by_lot(0.25, 7, epoch, index) for epoch in range(40) for index in range(50)]
    drawn = [seed for seed in seeds if seed != REAL]
    assert 0.22 < len(drawn) / len(seeds) < 0.28 and len(set(drawn)) == len(drawn)
    assert {drawn_by_lot(0, 1, 0, i) for i in range(99)} == {REAL}
    assert REAL not in {drawn_by_lot(1, 1, 0, i) for i in range(99)}


def test_other_classes_or_images_are_refused() -> None:
    given = Synthetic(Painter(), "run", "digest")
    given.check(CLASSES, 1, (0.0, 255.0))
    for other in (
        (LabelSet(names=("a", "c"), colors=CLASSES.colors), 1, (0.0, 255.0)), (CLASSES, 3, (0.0, 255.0)),
        (CLASSES, 1, (0.0, 1.0)),
    ):  # fmt: skip
        with pytest.raises(UserError, match=r"data\.synthetic: run draws images with the"):
            given.check(*other)
    with pytest.raises(UserError, match="not the generator that the run began with"):
        given.check_same("another")


def test_what_it_names_is_read_as_a_strangers_checkpoint(generator: Path, tmp_path: Path) -> None:
    file = generator / run_folder.BEST
    content = torch.load(file, weights_only=True)
    content["segmenter"]["config"]["network"] = {"_target_": "os.system", "command": "true"}
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=r"data\.synthetic: .*wants to build 'os.system'"):
        helpers.synthetic(str(tmp_path / "evil.ckpt"), ())
    with pytest.raises(UserError, match=r"data\.synthetic: there is no file"):
        helpers.synthetic(str(tmp_path / "none.ckpt"), ())
    train(settings(tmp_path / "segmenter", "~logger", "test=false", "trainer.max_epochs=1"))
    with pytest.raises(UserError, match="draws no images; give a run of model=synthesis"):
        helpers.synthetic(str(tmp_path / "segmenter"), ())


def test_batches_are_the_same_with_any_number_of_workers(generator: Path, tmp_path: Path) -> None:
    batches = []
    for workers in (0, 2):
        given = settings(
            tmp_path, f"data.num_workers={workers}", "data.augment.rotation=1", "data.labeled_fraction=1/2"
        )
        data = build_data(given["data"], 3, synthetic=helpers.synthetic(str(generator), ()))
        batches.append([data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()])
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["synthetic"], other["synthetic"])
    drawn = torch.cat([batch["synthetic"] != REAL for batch in batches[0]])
    assert 0 < int(drawn.sum()) < len(drawn)


@pytest.mark.slow
def test_a_run_with_drawn_images_goes_on_to_the_same_bits_with_the_same_generator_only(
    generator: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "generator.ckpt"
    shutil.copy(generator / run_folder.BEST, copy)
    options = ["~logger", "test=false", "scheduler=constant", f"data.synthetic={copy}"]
    whole = train(settings(tmp_path / "whole", *options), trust=OWN).model.state_dict()
    plain = train(settings(tmp_path / "plain", *options[:-1]), trust=OWN).model.state_dict()
    assert any(not torch.equal(value, plain[key]) for key, value in whole.items())
    half = settings(tmp_path / "half", *options, "trainer.max_epochs=1")
    train(half, trust=OWN)
    half["trainer"]["max_epochs"] = 2
    assert_same(train(half, resume=True, trust=OWN).model.state_dict(), whole)
    content = torch.load(copy, weights_only=True)
    next(value for key, value in content["state_dict"].items() if key.startswith("network."))[0] += 1
    torch.save(content, copy)
    half["trainer"]["max_epochs"] = 3
    with pytest.raises(UserError, match="not the generator that the run began with"):
        train(half, resume=True, trust=OWN)
