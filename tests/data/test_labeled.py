"""Which training samples are labelled: by a share, or by the names in a file, as the published splits have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.cli.command import compose
from src.data.labeled import split_by_label
from src.data.sources import innermost
from src.errors import UserError
from src.evaluate import evaluate
from src.train import train
from src.training.build import build_data
from tests.conftest import SMALL, settings
from tests.data.formats.test_folder import NAMES, write


def names_of(root: Path, *overrides: str) -> tuple[list[str], list[str]]:
    """Names of the labelled samples of a small folder, and of the others."""
    node = compose("train", ["data=folder", f"data.root={root}", f"data.dataset.names=[{','.join(NAMES)}]", *overrides])
    datamodule = build_data(node["data"], 0, use_unlabeled=True)
    labelled, rest = datamodule.source("train"), datamodule.unlabeled
    assert rest is not None
    return [labelled.name(i) for i in range(len(labelled))], [rest.name(i) for i in range(len(rest))]


@pytest.mark.parametrize("line", ["{}", "images/train/{}.jpg masks/train/{}.png", "x/{}_leftImg8bit.png", "  {}.png\r"])
def test_a_list_names_what_is_labelled(tmp_path: Path, line: str) -> None:
    root = write(tmp_path / "data")
    drawn, others = names_of(root, "data.labeled_fraction=1/2")
    every = sorted([*drawn, *others])
    chosen = every[:1]
    (tmp_path / "list.txt").write_text("# published\n\n" + "\n".join(line.format(name, name) for name in chosen) + "\n")
    labelled, rest = names_of(root, f"data.labeled_list={tmp_path}/list.txt")
    assert labelled == chosen and sorted(labelled + rest) == every


def test_a_list_that_fits_not_is_refused(tmp_path: Path) -> None:
    root, file = write(tmp_path / "data"), tmp_path / "list.txt"
    with pytest.raises(UserError, match=r"data.labeled_list: .*list.txt cannot be read .*; give another file"):
        names_of(root, f"data.labeled_list={file}")
    file.write_text("# nothing\n")
    with pytest.raises(UserError, match="names no sample; name one a line"):
        names_of(root, f"data.labeled_list={file}")
    file.write_text("\nnobody\n")
    with pytest.raises(UserError, match="line 2: there is no training sample 'nobody'; names are like '"):
        names_of(root, f"data.labeled_list={file}")


def test_a_run_learns_from_the_list_and_is_scored_without_it(tmp_path: Path) -> None:
    source = innermost(build_data(settings(tmp_path, *SMALL)["data"], 0).source("train"))
    named = [source.name(index) for index in (0, 3, 5, 6)]
    file = tmp_path / "list.txt"
    file.write_text("\n".join(named))
    assert len(split_by_label(source, None, 0, str(file))[0]) == 4
    outcome = train(settings(tmp_path / "run", *SMALL, f"data.labeled_list={file}", "model.semi=fixmatch"))
    assert len(outcome.datamodule.source("train")) == 4 and outcome.datamodule.unlabeled is not None
    file.unlink()
    scores = evaluate(compose("evaluate", [f"ckpt={tmp_path}/run", "splits=[val]", f"paths.output_dir={tmp_path}"]))
    assert scores["val"]["miou"] == outcome.metrics["val"]["miou"]
