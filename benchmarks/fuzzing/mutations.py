"""Seeded damage to files and to plain data: what chance, other programs and people of ill will make of them."""

from __future__ import annotations

import copy
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "MARK"  # stands in payloads for a file that only running their code would make
SECRET = "secret-of-the-victim"  # what the victim's files hold and no output may show
_INTERESTING = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1]
_NESTED: Any = 1
for _ in range(300):
    _NESTED = [_NESTED]

# What a value of a config, a description or an index becomes.
HOSTILE: list[Any] = [
    None, True, -1, 0, 10**9, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x" * 100_000,
    "ü\x1b[2J\x00\r", "???", "null",
    "../../victim", "/etc/passwd", "~/victim", "file:///etc/passwd", "local:///tmp/x", "s3://bucket/x",
    "http://169.254.169.254/latest",
    "${oc.env:HOME}", "\\${oc.env:HOME}", "${oc.create:{_target_:os.system,command:'touch MARK'}}", "${hydra:job.name}",
    "${seed}",
    "=HYPERLINK(\"http://x\")", [], {}, [[[]]], {"a": {"b": 1}}, _NESTED, ["x"] * 5000,
    {"_target_": "os.system", "command": "touch MARK"}, {"_target_": "builtins.eval", "_args_": ["open('MARK','w')"]},
    {"_target_": "subprocess.Popen", "args": ["touch", "MARK"]},
    {"_target_": "src.training.build.make", "node": {"_target_": "os.system"}},
    {"_target_": "src.data.formats.streaming.Streaming"}, {"_target_": "torch.hub.load", "repo_or_dir": "x/y", "model": "z"},
    {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "../victim", "save_top_k": 1},
    {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "../victim"},
    {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "save_dir": "local:///../victim"},
    {"_target_": "src.callbacks.checkpoint.RunCheckpoint", "run_dir": "../victim"},
    {"_target_": "src.networks.tiny.tiny", "width": 10**7},
]  # fmt: skip
KEYS: list[Any] = [
    "defaults",
    "hydra",
    "_target_",
    "_args_",
    "_partial_",
    "_convert_",
    "<<",
    "",
    "x" * 300,
    "a.b",
    "\x1b[2J",
    "../x",
]
YAML_TEXTS = [
    "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n"
    "e: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f]\n",
    "a: &a [*a]\n", "? [a, b]\n: c\n", "1: 2\n", "x: !!python/object/apply:os.system ['touch MARK']\n",
    "defaults: [/etc/passwd]\n",
    "defaults:\n  - other\n  - _self_\n", "hydra:\n  run: {dir: ../victim}\n  job: {env_set: {A: b}}\n", "[" * 4000,
    "\x00\x01", "a: " + "9" * 400,
    "- a\n- b\n", "just text\n", "",
]  # fmt: skip


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """A file's bytes with a few bits, bytes or runs of bytes changed, lost, doubled or put in."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 4, 16])):
        if not data:
            return bytes(draw.randrange(256) for _ in range(20))
        at = (
            draw.randrange(len(data)) if draw.random() < 0.5 else draw.randrange(min(len(data), 512))
        )  # headers matter most
        kind = draw.randrange(8)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at] = draw.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + draw.choice([1, 4, 100])]
        elif kind == 4:
            data[at:at] = data[at : at + draw.choice([1, 8, 1000])]
        elif kind == 5:
            size = draw.choice(["<H", ">H", "<I", ">I", "<Q", ">Q"])
            number = draw.choice(_INTERESTING) & (256 ** struct.calcsize(size) - 1)
            data[at : at + struct.calcsize(size)] = struct.pack(size, number)
        elif kind == 6:
            data[at : at + 64] = bytes(64)
        else:
            data += bytes(draw.randrange(256) for _ in range(draw.choice([1, 100, 10_000])))
    return bytes(data)


def damaged_data(content: Any, draw: random.Random) -> Any:
    """Plain data in which a value or two became hostile, were lost, or got company."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        places = _places(content)
        if not places:
            return draw.choice(HOSTILE)
        holder, key = draw.choice(places)
        kind = draw.random()
        if kind < 0.65:
            holder[key] = copy.deepcopy(draw.choice(HOSTILE))
        elif kind < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw.choice(KEYS)] = copy.deepcopy(draw.choice(HOSTILE))
        else:
            holder.append(copy.deepcopy(draw.choice(HOSTILE)))
    return content


def damaged_place(file: Path, victim: Path, draw: random.Random) -> str:
    """Puts something else where a file or folder is; returns what."""
    kinds: dict[str, Callable[[], object]] = {
        "link to a victim's file": lambda: file.symlink_to(victim / "file"),
        "link to a victim's folder": lambda: file.symlink_to(victim),
        "link to nothing": lambda: file.symlink_to(victim / "new"),
        "link to itself": lambda: file.symlink_to(file.name),
        "pipe": lambda: os.mkfifo(file),
        "link to /dev/zero": lambda: file.symlink_to("/dev/zero"),
        "folder": file.mkdir,
        "nothing": lambda: None,
        "empty file": file.touch,
        "ten gigabytes of nothing": lambda: _sparse(file),
    }
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)
    kind = draw.choice(sorted(kinds))
    kinds[kind]()
    return kind


def _sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(10 << 30)


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every value in plain data, as its holder and its key there."""
    found: list[tuple[Any, Any]] = []
    todo = [content]
    while todo:
        holder = todo.pop()
        pairs = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, value in pairs:
            found.append((holder, key))
            if isinstance(value, dict | list):
                todo.append(value)
    return found
