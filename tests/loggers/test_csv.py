"""The table of all figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.errors import UserError
from src.loggers.csv import CSV


def test_a_step_is_a_row_and_later_ones_are_dropped_where_a_run_goes_on(tmp_path: Path) -> None:
    table = CSV(str(tmp_path / "csv"))
    table.log_metrics({"train/loss": 0.5}, step=3)
    table.log_metrics({"val/miou": 0.25}, step=7)
    table.save()
    table.log_metrics({"learning_rate/head": 0.1}, step=3)
    table.show("val/a", np.zeros((2, 2, 3), np.uint8), 3)
    table.finalize("success")
    file = tmp_path / "csv/metrics.csv"
    assert file.read_text().splitlines() == ["step,learning_rate/head,train/loss,val/miou", "3,0.1,0.5,", "7,,,0.25"]

    again = CSV(str(tmp_path / "csv"), resumed_at=5)
    assert len(file.read_text().splitlines()) == 3  # nothing is lost before there is something new
    again.log_metrics({"train/loss": 0.75}, step=5)
    again.close("completed")
    assert file.read_text().splitlines() == ["step,learning_rate/head,train/loss", "3,0.1,0.5", "5,,0.75"]


def test_the_hyper_parameters(tmp_path: Path) -> None:
    CSV(str(tmp_path)).conclude({"network": "tiny", "crop": [1, 2]}, {"val/miou": 0.5}, 3)
    assert (tmp_path / "hparams.yaml").read_text() == "network: tiny\ncrop: '[1, 2]'\nbest/val/miou: 0.5\n"


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step,a\nx,1\n", "step,a\n1,x\n"])
def test_a_table_of_another_kind(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(UserError, match=r"logger.csv: .*metrics.csv is damaged"):
        CSV(str(tmp_path), resumed_at=3)
