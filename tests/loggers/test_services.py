"""W&B offline, an MLflow store, a repository of Aim: what a run and its resumption leave there, read by the package itself."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src.config.check import check
from src.errors import UserError
from tests.conftest import SMALL, settings

_BLOCK = 1 << 15
Run = Callable[..., subprocess.CompletedProcess[str]]
GIVEN = ["src.train", *SMALL, "callbacks.pictures={_target_: src.callbacks.pictures.Pictures, samples: 1}",
         "data.dataset.train_length=8", "trainer.log_every_n_steps=1", "callbacks.checkpoint.every_n_steps=1"]  # fmt: skip
PICTURES = {"val/confusion", "test/confusion"}


def gone_on_with(run: Run, tmp_path: Path, *overrides: str) -> Path:
    """A run of two epochs that is gone on with for a third."""
    run_dir = tmp_path / "the run"
    first = run(*GIVEN, *overrides, f"hydra.run.dir={run_dir}")
    assert first.returncode == 0, first.stderr + first.stdout
    second = run("src.train", f"resume={run_dir}", "trainer.max_epochs=3")
    assert second.returncode == 0, second.stderr + second.stdout
    return run_dir


def known(run_dir: Path, logger: str) -> str:
    name: str = json.loads((run_dir / "loggers.json").read_text())[logger]
    return name


def records(file: Path) -> Iterator[bytes]:
    """The records of a file of W&B's: LevelDB's log, whose blocks of 32 KiB hold (checksum, length, kind, bytes)."""
    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole in this block, or its last part
            yield whole
            whole = b""


@pytest.mark.slow
def test_wandb_offline(run: Run, tmp_path: Path) -> None:
    Record = pytest.importorskip("wandb.proto.wandb_internal_pb2").Record  # made when it is imported

    run_dir = gone_on_with(run, tmp_path, "logger=wandb", "logger.wandb.mode=offline", "logger.wandb.tags=[a]")
    parts = sorted((run_dir / "wandb").glob("offline-run-*"))
    assert len(parts) == 2 and {part.name.rpartition("-")[2] for part in parts} == {known(run_dir, "wandb")}
    history: list[dict[str, Any]] = []
    told: dict[str, Any] = {}
    for part in parts:
        for data in records(next(part.glob("*.wandb"))):
            record = Record()
            record.ParseFromString(data)
            if record.run.run_id:
                assert (record.run.project, record.run.display_name) == ("pixelwise", "the run")
            for row in [record.history.item] if record.history.item else []:
                history.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in row})
            for update in (record.config.update, record.summary.update):
                told |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in update}
    assert [row["trainer/global_step"] for row in history if "val/miou" in row] == [1, 3, 5]
    assert told["config"]["trainer"]["max_epochs"] == 3 and told["network"] == "tiny"
    assert 0 <= told["best/test/miou"] <= 1
    pictures = {key.removesuffix("/_type") for row in history for key in row if key.endswith("/_type")}
    assert pictures > PICTURES
    assert list(parts[0].glob("files/media/images/val/*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_mlflow_store(run: Run, tmp_path: Path, devices: int) -> None:
    mlflow = pytest.importorskip("mlflow")
    ranks = ["trainer=ddp_cpu", f"trainer.devices={devices}"] if devices > 1 else []
    run_dir = gone_on_with(run, tmp_path, "logger=[csv,mlflow]", *ranks)
    client = mlflow.MlflowClient(f"sqlite:///{run_dir}/mlflow/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "pixelwise"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == known(run_dir, "mlflow") and found.info.run_name == "the run"
    assert found.info.status == "FINISHED"
    assert found.data.params["trainer.max_epochs"] == "2" and found.data.tags["trainer.max_epochs"] == "3"
    assert found.data.params["network"] == "tiny" and found.data.params["loss._target_"].startswith("src.losses.")
    assert 0 <= found.data.metrics["best/test/miou"] <= 1
    for key, steps in (("val/miou", [1, 3, 5]), ("train/loss", [0, 1, 2, 3, 4, 5])):
        assert sorted(point.step for point in client.get_metric_history(found.info.run_id, key)) == steps
    assert "config.yaml" in {file.path for file in client.list_artifacts(found.info.run_id)}
    images = {file.path for file in client.list_artifacts(found.info.run_id, "images")}
    assert {name.replace("/", "~") for name in PICTURES} < {Path(name).name.partition("+")[0] for name in images}


@pytest.mark.slow
def test_aim_repository(run: Run, tmp_path: Path) -> None:
    aim = pytest.importorskip("aim")
    from aim.storage.context import Context

    run_dir = gone_on_with(run, tmp_path, "logger=aim")
    # As `aim up` does before it shows anything.
    subprocess.run([Path(sys.executable).with_name("aim"), "storage", "--repo", run_dir, "reindex", "-y"], check=True)
    found = aim.Run(known(run_dir, "aim"), repo=str(run_dir), read_only=True)
    assert found.name == "the run" and found["hparams"]["network"] == "tiny" and found["status"] == "completed"
    assert found["config"]["trainer"]["max_epochs"] == 3
    assert 0 <= found["best"]["test/miou"] <= 1
    figures = {(one.context.to_dict().get("subset"), one.name): one for one in found.metrics()}
    assert figures["val", "miou"].data.indices_list() == [1, 3, 5]
    assert figures["train", "loss"].data.indices_list() == [0, 1, 2, 3, 4, 5]
    matrices = found.get_image_sequence("confusion", Context({"subset": "val"}))
    assert matrices.data.indices_list() == [1, 3, 5]


@pytest.mark.parametrize("logger", ["wandb", "mlflow", "aim"])
def test_a_package_that_is_not_there_is_named_at_once(
    logger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == logger else find(name, *more))
    said = rf'{logger} is needed for logger\.{logger} and is not installed; .*: pip install -e "\.\[{logger}\]"'
    with pytest.raises(UserError, match=said):
        check(settings(tmp_path, f"logger={logger}"))
