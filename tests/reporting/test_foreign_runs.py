"""A report over folders that a stranger has made: the other runs are shown, and what is wrong with these is a line."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from src.cli.command import compose
from src.cli.request import named
from src.errors import UserError
from src.report import report
from src.reporting import events, read
from src.reporting.tables import as_csv
from tests.reporting.folders import write
from tests.reporting.test_compare import completed

Spoil = Callable[[Path], object]


def good(folder: Path) -> Path:
    return write(folder, ["seed=1"], curves={"val/miou": [0.1, 0.5]}, color="red", **completed(0.5))


def put(name: str, content: str | bytes) -> Spoil:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda run: (run / name).write_bytes(data)


def replaced(name: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(run: Path) -> None:
        at = run / name
        at.rename(run.parent.parent / "moved") if at.exists() else None
        at.parent.mkdir(parents=True, exist_ok=True)
        make(at)

    return spoil


def secret(at: Path) -> Path:
    file = at
    while file.name != "tree":
        file = file.parent
    return file.parent / "secret"


def linked(name: str) -> Spoil:
    return replaced(name, lambda at: at.symlink_to(secret(at)))


def metrics(**changed: Any) -> Spoil:
    return put("metrics.json", json.dumps({"status": "completed", "val": {"miou": 0.5}, **changed}))


def record(**content: Any) -> bytes:
    return framed(Event(**content).SerializeToString())


def framed(data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q4x", len(data) if length is None else length) + data + bytes(4)


def scalar(value: float, step: int = 0, wall_time: float = 1.0, tag: str = "val/miou") -> bytes:
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    return record(step=step, wall_time=wall_time, summary=summary)


def picture(encoded: bytes) -> bytes:
    image = Summary.Image(height=8, width=8, colorspace=3, encoded_image_string=encoded)
    return record(step=9, wall_time=1.0, summary=Summary(value=[Summary.Value(tag="val/00", image=image)]))


def png_bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(13_000 * 1626), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def sparse(file: Path, begin: bytes, size: int) -> None:
    file.write_bytes(begin)
    os.truncate(file, size)


def large(run: Path) -> None:
    sparse(run / EVENTS, struct.pack("<Q4x", 70 << 20), 80 << 20)


EVENTS = "tensorboard/events.out.tfevents.9"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n{ } loop\n"
SPOILT: dict[str, tuple[Spoil, str]] = {
    # what is done to a run, and what is said of it; "" for nothing
    **{
        f"{name} a link": (linked(name), "is a link")
        for name in ("metrics.json", ".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra", "tensorboard", EVENTS)
    },
    "metrics.json a pipe": (replaced("metrics.json", os.mkfifo), "no regular file"),
    "config.yaml a pipe": (replaced(".hydra/config.yaml", os.mkfifo), "no regular file"),
    "events a pipe": (replaced(EVENTS, os.mkfifo), "no regular file"),
    "config.yaml without end": (replaced(".hydra/config.yaml", lambda at: at.symlink_to("/dev/zero")), "is a link"),
    "config.yaml large": (put(".hydra/config.yaml", "#" * (5 << 20)), "bytes, more than"),
    "config.yaml a folder": (replaced(".hydra/config.yaml", os.mkdir), "no regular file"),
    "nested": (put("metrics.json", "[" * 5000 + "]" * 5000), "damaged or no JSON"),
    "nested YAML": (put(".hydra/config.yaml", "{a: " * 3000 + "1" + "}" * 3000), "nested more than"),
    "aliases": (put(".hydra/config.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True))), "more than"),
    "many digits": (metrics(epochs=int("9" * 400)), "hexadecimal digits"),
    "digits without end": (put("metrics.json", '{"epochs": ' + "9" * 5000 + "}"), "damaged or no JSON"),
    "no JSON": (put("metrics.json", '{"status": "completed", "val"'), "damaged or no JSON"),
    "no UTF-8": (put("metrics.json", b"\xff\xfe\x00"), "no UTF-8"),
    "a list": (put("metrics.json", "[1, 2]"), ""),
    "numbers for keys": (put(".hydra/config.yaml", "1: 2\n"), "which is no text"),
    "many keys": (put(".hydra/config.yaml", yaml.safe_dump({f"k{i}": i for i in range(3000)})), "more than 2,000"),
    "many scores": (metrics(val={f"iou/{i}": 0.5 for i in range(3000)}), "more than 2,000"),
    "texts for numbers": (metrics(val={"miou": "0.5"}, epochs="x", wall_seconds=[1], train=3, memory={"gpu_gib": "1"}), ""),
    "no numbers": (put("metrics.json", '{"status": "completed", "val": {"miou": NaN}, "wall_seconds": Infinity}'), ""),
    "vast numbers": (metrics(val={"miou": 1.7e308}, wall_seconds=1.7e308, memory={"gpu_gib": 1.7e308}), ""),
    "negative": (metrics(val={"miou": -5}, wall_seconds=-1e300, epochs=-3), ""),
    "another status": (metrics(status=["completed"]), ""),
    "a seed of its own": (put(".hydra/config.yaml", "seed: [1]\nmonitor: {a: 1}\n"), ""),
    "control characters": (metrics(status="failed", error="\x1b]0;owned\x07\x1b[2J\r\n"), ""),
    "a length that lies": (put(EVENTS, scalar(0.5) + framed(b"", 2**63)), ""),
    "a length beyond": (put(EVENTS, framed(b"", 2**64 - 1)), ""),
    "a large record": (large, "has a record of"),
    "zeros": (lambda run: sparse(run / EVENTS, b"", 1 << 40), ""),
    "not an event": (put(EVENTS, framed(b"\xff" * 40)), ""),
    "not a number": (put(EVENTS, scalar(math.nan) + scalar(math.inf, 1) + scalar(0.2, 2, math.nan)), ""),
    "steps far apart": (put(EVENTS, scalar(1e38, 2**62) + scalar(-1e38, -(2**62), -1e300) + scalar(1e-45, 1, 1e300)), ""),
    "tags of a kind": (put(EVENTS, scalar(0.5, tag="val/\x1b[2J<script>") + scalar(0.5, tag="")), ""),
    "a picture that is a bomb": (put(EVENTS, picture(png_bomb())), ""),
    "a picture that is a program": (put(EVENTS, picture(EPS)), ""),
    "a picture cut off": (put(EVENTS, picture(png_bomb()[:60])), ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILT)
def test_one_bad_run_hides_no_other(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = SPOILT[kind]
    (tmp_path / "secret").write_text("password: hunter2\n")
    root = tmp_path / "tree"
    good(root / "good")
    spoil(good(root / "bad"))
    report(compose("report", named([str(root)])))
    printed = capsys.readouterr().out
    rows = {row["run"]: row for row in csv.DictReader((root / "report.csv").open(encoding="utf-8"))}
    assert rows["good"]["best_val"] == "0.5" and "bad" in rows
    html = (root / "report.html").read_text(encoding="utf-8")
    assert ("not read:" in printed) is (said != "") and said in printed.replace("\n", "")
    assert ("Not read" in html) is (said != "")
    assert not any(c in text for text in (printed, html, str(rows)) for c in ("hunter2", "\x1b", "\x07", "\r"))


def test_points_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_MOST", 5)
    run = good(tmp_path / "run")
    (run / EVENTS).write_bytes(b"".join(scalar(0.1, step) for step in range(100, 120)))
    found = read.read(run, "run").events
    assert max(found.scalars["val/miou"]) < 105 and "more than 5 values" in found.problems[0]


def test_folders_without_end_are_left(tmp_path: Path) -> None:
    at = good(tmp_path / "run")
    deep = at
    for _ in range(300):
        deep = deep / "a"
    deep.mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [run.name for run in read.find(tmp_path)] == ["run"]


def test_no_text_of_a_run_is_a_formula(tmp_path: Path) -> None:
    texts = [
        "=HYPERLINK(1)",
        "+1+1",
        "-2+3",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        " =1",
        "＝1",
        "-1e-3",
        "-5",
        "+2",
        "a=1",
        "-inf",
    ]
    runs = [read.read(good(tmp_path / "good"), "good")]
    for i, text in enumerate(texts):
        write(tmp_path / f"{i}", [f"+note={text}"], config={"note": text, "=k": 1}, **completed(0.5, error=text))
        runs.append(read.read(tmp_path / f"{i}", text))
    from src.reporting.compare import by_seed, differences

    different = differences(runs)
    rows = list(csv.reader(io.StringIO(as_csv(runs, different, by_seed(runs, different), "miou"))))
    assert "'=k" in rows[0]
    note = rows[0].index("note")
    assert [row[note] for row in rows[2:]] == [
        "'=HYPERLINK(1)", "'+1+1", "'-2+3", "'@SUM(1)", "\\t=1", "\\r=1", "' =1", "'＝1", "-1e-3", "-5", "+2", "a=1", "'-inf",
    ]  # fmt: skip
    assert all(cell == "" or not cell.startswith(("=", "@")) for row in rows for cell in row)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    good(tmp_path / "tree/run")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"output: .*file: cannot be read or written"):
        report(compose("report", named([str(tmp_path / "tree"), f"output={tmp_path}/file"])))


def test_pictures_are_png_and_no_larger_than_ours(tmp_path: Path) -> None:
    from src.reporting.page import inlined

    for form in ("GIF", "TIFF", "BMP", "PPM"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, form)
        assert inlined(stream.getvalue()) is None
    assert inlined(png_bomb()) is None and inlined(EPS) is None and len(png_bomb()) < 30_000
