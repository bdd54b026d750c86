"""`src.benchmark`: what is counted is right, every way is a row, and what cannot be run is a line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from src.benchmark import benchmark
from src.cli.command import compose
from src.errors import UserError
from src.sharing.cost import counted
from src.sharing.timing import Runners, peak
from src.training.build import make


def run(output: Path, *given: str) -> dict[str, Any]:
    return benchmark(compose("benchmark", [f"output={output}", "device=cpu", "rounds=2", *given]))


def test_what_is_counted() -> None:
    """Of three convolutions and a classifier it can be counted by hand."""
    network = make({"_target_": "src.networks.tiny.tiny", "width": 8}, "network", num_classes=5).eval()
    found = counted(network, 3, (16, 24))
    weights = 9 * (3 * 8 + 8 * 16 + 16 * 16) + 16 * 5
    assert found.parameters == weights + 2 * (8 + 16 + 16) + 5  # batch norms, a bias
    assert found.multiplications == weights * 16 * 24


def test_heads_that_only_train_do_not_count() -> None:
    node = {"_target_": "src.networks.smp_models.pspnet", "encoder": "resnet18"}
    with_head, without = (make({**node, "aux": aux}, "network", num_classes=5).eval() for aux in (True, False))
    assert sum(p.numel() for p in with_head.parameters()) > sum(p.numel() for p in without.parameters())
    assert counted(with_head, 3, (64, 64)) == counted(without, 3, (64, 64))


def test_table_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["network=tiny", "ways=[eager]", "sizes=[[32,48],[64,64]]", "batches=[1,2]", "classes=5"]
    found = run(tmp_path / "out", *given)
    rows = found["rows"]
    assert [(row["height"], row["batch"]) for row in rows] == [(32, 1), (32, 2), (64, 1), (64, 2)]
    for row in rows:
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["milliseconds"])
        assert row["failed"] is None and row["slowest"] >= row["milliseconds"]
    assert json.loads((tmp_path / "out/benchmark.json").read_text("utf-8")) == found
    table = (tmp_path / "out/benchmark.md").read_text("utf-8")
    assert table in capsys.readouterr().out
    assert re.search(r"^\| 64x64 \| 2 \| eager \| cpu \| [\d.]+ \| [\d.]+ \| [\d.]+ \| 1\.00 \|", table, re.MULTILINE)
    assert (tmp_path / "out/benchmark.svg").read_text("utf-8").count("<path") > 4


def test_what_cannot_be_run_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)  # not installed
    found = run(tmp_path, "network=tiny", "ways=[onnx,eager]", "sizes=[[32,32]]")
    onnx, eager = found["rows"]
    assert onnx["milliseconds"] is None and 'pip install -e ".[onnx]"' in onnx["failed"] and "\n" not in onnx["failed"]
    assert eager["milliseconds"] > 0
    told = capsys.readouterr().out
    assert "| onnx | cpu | could not be run: " in told and "Traceback" not in told


@pytest.mark.slow
def test_without_a_compiler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a C++ compiler torch.compile fails on the CPU."""
    from torch._inductor import config

    # torch's own patch: the second is another name of a setting elsewhere, which setattr's undoing would take away
    with config.patch({"cpp.cxx": (None, "/nowhere/no-compiler"), "force_disable_caches": True}):
        found = run(tmp_path, "network=tiny", "ways=[compiled,eager]", "sizes=[[32,32]]")
    compiled, eager = found["rows"]
    assert compiled["milliseconds"] is None and "ompiler" in compiled["failed"] and "\n" not in compiled["failed"]
    assert eager["milliseconds"] > 0
    told = capsys.readouterr().out
    assert "| compiled | cpu | could not be run: " in told and "Traceback" not in told


@pytest.mark.slow
def test_every_way(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = run(tmp_path, "network=tiny", "sizes=[[32,48],[64,64]]", "batches=[2]")
    assert [row["way"] for row in found["rows"]] == ["eager", "compiled", "onnx", "int8"] * 2
    assert [row["failed"] for row in found["rows"]] == [None] * 8
    assert all(row["milliseconds"] > 0 for row in found["rows"])


@pytest.mark.slow
def test_the_ways_give_the_same() -> None:
    pytest.importorskip("onnxruntime")
    from src.benchmark import Benchmark, _model

    model, named = _model(Benchmark.of(compose("benchmark", ["network=tiny"])))
    assert named == "tiny"
    runners = Runners(model, torch.device("cpu"), (32, 48), 1)
    image = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    with torch.inference_mode():
        eager, onnx = (runners.make(way)(image) for way in ("eager", "onnx"))
    assert torch.allclose(eager, onnx, atol=1e-4)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts it")
def test_peak_memory() -> None:
    with peak(torch.device("cpu")) as used:
        torch.ones(64 << 18)  # 64 MiB, given back at once
    first = used()
    assert first is not None and 60 < first < 90
    with peak(torch.device("cpu")) as used:
        pass
    assert (used() or 0) < 20


def test_what_is_asked_is_checked(tmp_path: Path) -> None:
    for words, given in (
        ("give a checkpoint or run folder, or network=", []), ("one of the two", ["ckpt=x", "network=tiny"]),
        ("network.width", ["network=tiny", "network.width=0"]), ("ways", ["network=tiny", "ways=[tensorrt]"]),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            run(tmp_path, *given)
