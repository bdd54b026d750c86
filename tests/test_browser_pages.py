"""TensorBoard and the report's page as a browser shows them, of a real run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, opened
from tests.conftest import SMALL, command, environment

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    pictures = "callbacks.pictures={_target_: src.callbacks.pictures.Pictures, samples: 1}"
    for lr in ("0.01", "0.02"):
        given = [*SMALL, pictures, f"optimizer.lr={lr}", f"hydra.run.dir={folder}/lr_{lr}"]
        subprocess.run(command("src.train", *given), env=environment(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def tensorboard(runs: Path) -> Iterator[str]:
    """The address of TensorBoard over the runs."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--port", "0", "--host", "localhost"],
        text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert started.stderr is not None
    found = next(match for line in started.stderr if (match := re.search(r"http://localhost:\d+/", line)))
    yield found[0]
    started.terminate()
    started.wait(30)


PAGES = {
    "scalars": ("best/val/miou", "best/test/miou", "learning_rate"),  # it opens the first group alone
    "custom_scalars": ("scores (dice is over all classes, dice_foreground without background)", "IoU by class"),
    "images": ("val/confusion", "test/confusion"),
    "hparams": ("best/val/miou", "network", "lr"),
    "text": ("config", "src.networks.tiny"),
}


@pytest.mark.parametrize("page", PAGES)
def test_tensorboard(tensorboard: str, tmp_path: Path, page: str) -> None:
    words = ("lr_0.01", "lr_0.02", *PAGES[page])
    with opened(f"{tensorboard}#{page}", tmp_path / "profile") as tab:
        text = tab.text_with(*words)
        assert [word for word in words if word not in text] == []
        shown = np.asarray(Image.open(tab.picture(tmp_path / f"{page}.png")).convert("RGB"))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 50


def test_the_reports_page(runs: Path, tmp_path: Path) -> None:
    subprocess.run(command("src.report", str(runs), f"output={tmp_path}"), env=environment(), cwd=tmp_path, check=True)
    (file,) = tmp_path.glob("*.html")
    with opened(file.as_uri(), tmp_path / "profile") as tab:
        text = tab.text_with("lr_0.01", "lr_0.02", "mIoU")
        assert all(word in text for word in ("lr_0.01", "lr_0.02", "mIoU", "optimizer.lr"))
        assert tab.count("svg") > 0 or tab.count("img") > 0
        tab.picture(tmp_path / "report.png")
