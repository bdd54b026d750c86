"""Groups of a sweep that differ in one key, compared over seeds and over images."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from src.evaluation import matrices
from src.report import report
from src.reporting import compare, one_key, read
from src.reporting.read import Run
from src.storage import run_folder
from tests.evaluation.images import cells, per_image, predicted, random_truths
from tests.reporting.folders import write
from tests.reporting.test_compare import completed
from tests.test_report import settings


def sweep(root: Path, with_images: bool) -> list[Run]:
    """Two rates by three seeds, and a run that differs from the first rate's in two keys."""
    truths = random_truths(40, 0)
    for lr, skill in (("0.1", 0.6), ("0.01", 0.7)):
        for seed in (1, 2, 3):
            folder = root / f"{lr}_{seed}"
            write(
                folder,
                [f"seed={seed}", f"optimizer.lr={lr}"],
                **completed(skill + seed / 100 + (lr == "0.01") * seed**2 / 900),
            )
            if with_images:
                made = predicted(truths, seed, skill)
                matrices.write(folder / "evaluation/val/images.npz", per_image(made), cells(made))
    write(root / "other", ["optimizer.lr=0.5"], network="small", **completed(0.1))
    return read.find(root)


def pairs(runs: list[Run]) -> list[one_key.Pair]:
    found, more = one_key.pairs(compare.by_seed(runs, compare.differences(runs)), "val", "miou")
    assert more == 0
    return found


def test_only_groups_that_differ_in_one_key_are_compared(tmp_path: Path) -> None:
    (pair,) = pairs(sweep(tmp_path, with_images=True))
    assert (pair.key, {pair.a, pair.b}) == ("optimizer.lr", {"0.1", "0.01"})
    scores = {lr: [run.score("val", "miou") for run in read.find(tmp_path) if run.name.startswith(f"{lr}_")]
              for lr in (pair.a, pair.b)}  # fmt: skip
    assert pair.seeds.paired and pair.seeds.p == pytest.approx(stats.ttest_rel(scores[pair.a], scores[pair.b]).pvalue)
    assert pair.images is not None and pair.images.differs and pair.images.images == 40
    assert pair.images.data_set.by.value * pair.seeds.mean > 0


def test_without_files_or_with_those_of_earlier_weights_seeds_alone_speak(tmp_path: Path) -> None:
    (pair,) = pairs(sweep(tmp_path / "bare", with_images=False))
    assert pair.images is None
    runs = sweep(tmp_path / "stale", with_images=True)
    best = runs[0].folder / run_folder.BEST
    best.parent.mkdir()
    best.write_bytes(b"other weights")
    (pair,) = pairs(runs)
    assert pair.images is None
    assert one_key.cells(pair)[-3:] == ["–", "–", "–"]


def test_the_report_says_it_and_takes_no_evaluation_for_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = sweep(tmp_path, with_images=True)
    (tmp_path / "0.1_1/evaluation/val/metrics.json").write_text('{"split": "val"}')
    assert [run.name for run in read.find(tmp_path)] == [run.name for run in runs]
    report(settings(tmp_path))
    printed, page = capsys.readouterr().out, (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (printed, page):
        assert "roups that differ in one key" in text and "optimizer.lr: 0.01 to 0.1" in text
    assert "python -m src.compare a=RUN b=RUN evaluates" not in printed
