"""Gives every command thousands of damaged and hostile files, and looks what it does with each.

A case takes a subject (a run folder, a checkpoint, photos, scenes, volumes, chunks …), damages it as its number in the seeded
series says, and runs one command on it in a process of its own with limits on time, memory and file sizes. Right is: the
command does its work, or says what is the matter and ends with status 1 or 2. Wrong is: a traceback, a crash, a hang, more
memory than `--memory`, a file written outside the folders that the command was given, a program or code that ran, a name that
was looked up in the network, text of a victim's file in what was written. Python's audit events tell (PEP 578), and marks
beside the case tell what happens below Python. Prints a table by subject; exits with 1 if anything was wrong.

    python benchmarks/fuzz.py [--cases 2000] [--seed 0] [--jobs 2] [--only SUBJECT …] [--case NUMBER] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "0"}

import torch
import yaml

from benchmarks.fuzzing.mutations import MARK, SECRET, YAML_TEXTS, damaged_bytes, damaged_data, damaged_place
from benchmarks.fuzzing.subjects import OTHERS, SUBJECTS, Subject
from benchmarks.fuzzing.watch import run_limited


@dataclass
class Result:
    """What came of one case."""

    number: int
    subject: str
    command: str
    damage: str
    status: int
    seconds: float
    wrong: list[str] = field(default_factory=list)
    said: str = ""


def damage(folder: Path, subject: Subject, read: list[str], victim: Path, draw: random.Random, place: bool) -> str:
    """Damages one file of a subject, one that the command reads; returns which, and how."""
    found = sorted({file for pattern in subject.files for file in folder.glob(pattern) if place or file.is_file()})
    found = [file for file in found if any(file.match(pattern) for pattern in read)] or found
    file = draw.choice(found)
    name = str(file.relative_to(folder))
    if place:
        return f"{name}: {damaged_place(file, victim, draw)}"
    kind = draw.random()
    if file.suffix in (".yaml", ".json") and kind < 0.75:
        if kind < 0.1:
            file.write_text(draw.choice(YAML_TEXTS))
            return f"{name}: other text"
        content = damaged_data(
            yaml.safe_load(file.read_text()) if file.suffix == ".yaml" else json.loads(file.read_text()), draw
        )
        with contextlib.suppress(ValueError):
            file.write_text(yaml.safe_dump(content) if file.suffix == ".yaml" else json.dumps(content))
            return f"{name}: other values"
    if file.suffix == ".ckpt" and kind < 0.75:
        content = torch.load(file, weights_only=True)
        part = draw.choice(
            [
                "segmenter",
                "segmenter",
                "segmenter",
                "callbacks",
                "loops",
                "state_dict",
                "optimizer_states",
                "lr_schedulers",
            ]
        )
        content[part] = damaged_data(content.get(part), draw)
        torch.save(content, file)
        return f"{name}: other {part}"
    if kind > 0.97:
        return f"{name}: {damaged_place(file, victim, draw)}"
    file.write_bytes(damaged_bytes(file.read_bytes(), draw))
    return f"{name}: other bytes"


def case(number: int, arguments: argparse.Namespace, base: Path) -> Result:
    """Makes, damages, runs and judges one case."""
    draw = random.Random(f"{arguments.seed}/{number}")
    names = arguments.only or list(SUBJECTS)
    name = draw.choices(names, [SUBJECTS[n].weight for n in names])[0]
    subject = SUBJECTS[name]
    at = Path(tempfile.mkdtemp(prefix=f"case{number}_", dir=base.parent))
    victim, it = at / "victim", at / "it"
    shutil.copytree(base / name, it)
    for folder in (victim, at / "out", at / "work", at / "home", at / "tmp"):
        folder.mkdir()
    (victim / "file").write_text(SECRET)
    if (sweep := it / "sweep.json").is_file():  # a sweep goes on where it was started
        text = sweep.read_text().replace(str(base / name), str(it))
        sweep.write_text(text.replace(json.dumps(str(base)), json.dumps(str(at / "work"))))
    command, read = draw.choice(subject.commands)
    chosen = [a.format(it=it, out=at / "out", base=base) if "{" in a and "labels" not in a else a for a in command]
    did = damage(it, subject, read, victim, draw, place=name == "places")
    allowed = [at / "out", at / "work", at / "home", at / "tmp", *(at / w for w in subject.writes)]
    before, begun = _looks(at, allowed), time.monotonic()
    status, mebibytes, events = run_limited(chosen, at, allowed, arguments.memory)
    result = Result(
        number,
        name,
        chosen[0].removeprefix("src.") + " " + chosen[1].partition("=")[0],
        did,
        status,
        time.monotonic() - begun,
    )
    output = (at / "stdout").read_text(errors="replace") + (at / "stderr").read_text(errors="replace")
    result.said = ([line for line in output.splitlines() if line.startswith("error")] or output.splitlines() or [""])[
        -1
    ][:300]
    result.wrong += [event[:200] for event in sorted(events)[:5]]  # a line of a pipe is whole up to 4 KiB
    if "Traceback (most recent call last)" in output:
        result.wrong.append("traceback")
    elif status == -signal.SIGALRM or status == -signal.SIGXCPU or status == -signal.SIGKILL:
        result.wrong.append("hang")
    elif status not in (0, 1, 2, 130):
        result.wrong.append(f"crash ({status})")
    elif status in (1, 2) and "error" not in output:
        result.wrong.append("says nothing")
    if mebibytes > arguments.memory:
        result.wrong.append(f"memory ({mebibytes:.0f} MiB)")
    if changed := _looks(at, allowed) ^ before:
        result.wrong.append(f"outside: {sorted(changed)[0]}")
    if list(at.rglob(MARK)) or (ROOT / MARK).exists():
        result.wrong.append("code ran")
    if SECRET in output or any(_shows_secret(f) for f in (at / "out").rglob("*")):
        result.wrong.append("shows the victim's file")
    if not result.wrong and not arguments.keep:
        shutil.rmtree(at, ignore_errors=True)
    else:
        (at / "case.json").write_text(json.dumps(result.__dict__ | {"arguments": chosen}, indent=1))
    return result


def _looks(at: Path, allowed: list[Path]) -> set[tuple[str, int, int]]:
    """Name, size and time of everything of the case that the command may not touch."""
    seen = set()
    for folder, folders, files in os.walk(at):
        folders[:] = [f for f in folders if Path(folder, f) not in allowed]
        for name in files:
            found = os.lstat(Path(folder, name))
            if name not in ("stdout", "stderr"):
                seen.add((str(Path(folder, name).relative_to(at)), found.st_size, found.st_mtime_ns))
    return seen


def _shows_secret(file: Path) -> bool:
    return (
        file.is_file()
        and not file.is_symlink()
        and file.stat().st_size < 10 << 20
        and SECRET.encode() in file.read_bytes()
    )


def _table(results: list[Result]) -> str:
    kinds = ["hang", "crash", "traceback", "says nothing", "memory", "outside", "code", "network", "shows"]
    lines = [
        "| subject | cases | done | refused in words | " + " | ".join(kinds) + " |",
        "|---" * (len(kinds) + 4) + "|",
    ]
    for name in [*SUBJECTS, "all"]:
        those = [r for r in results if name in (r.subject, "all")]
        if those:
            wrong = Counter(
                k
                for r in those
                for k in {k for k in kinds for w in r.wrong if w.replace("program", "code").startswith(k)}
            )
            fine = [r for r in those if not r.wrong]
            cells = [
                name,
                len(those),
                sum(r.status == 0 for r in fine),
                sum(r.status != 0 for r in fine),
                *(wrong[k] for k in kinds),
            ]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS))
    parser.add_argument("--case", type=int, help="this one alone; what it made is kept")
    parser.add_argument("--memory", type=int, default=1500, help="MiB that a command may take beyond its libraries")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "pixelwise_fuzz")
    arguments = parser.parse_args()
    arguments.keep = arguments.case is not None
    base = arguments.folder.resolve() / "base"
    _make(base, arguments.only)
    _import_everything()
    numbers = [arguments.case] if arguments.keep else range(arguments.cases)
    results: list[Result] = []
    with (arguments.folder / "results.jsonl").open("a" if arguments.keep else "w") as log:
        for result in _in_parallel(numbers, arguments, base):
            results.append(result)
            log.write(json.dumps(result.__dict__) + "\n")
            log.flush()
            if result.wrong or arguments.keep:
                what = f"{result.number} {result.subject} [{result.command}] {result.damage}"
                print(f"{what}: {'; '.join(result.wrong)} — {result.said}", flush=True)
    print(_table(results))
    sys.exit(any(r.wrong for r in results))


def _make(base: Path, only: list[str] | None) -> None:
    base.mkdir(parents=True, exist_ok=True)
    makers = {name: SUBJECTS[name].made for name in SUBJECTS} | OTHERS
    for name, make in makers.items():
        needed = only is None or name in only or name == "photos" or name.removeprefix("of ") in only
        if needed and not (base / name).is_dir():
            print(f"making {name}", flush=True)
            same = base / "configs"
            if make is SUBJECTS["configs"].made and same.is_dir():
                shutil.copytree(same, base / name)
            else:
                make(base / name)


def _import_everything() -> None:
    """What every command imports, once, before the forks."""
    names = [
        "datasets",
        "lightning.pytorch",
        "matplotlib.font_manager",
        "nibabel",
        "pydicom",
        "rasterio",
        "torchmetrics",
    ]
    commands = ["train", "evaluate", "predict", "export", "report"]
    packages = ["models", "networks", "losses", "metrics", "callbacks", "data"]
    own = [m.name for p in packages for m in pkgutil.iter_modules([str(ROOT / "src" / p)], f"src.{p}.")]
    for name in [*names, *(f"src.{c}" for c in commands), *own]:
        importlib.import_module(name)
    for command in commands:  # run as __main__, by the name of which runpy warns if it is there already
        del sys.modules[f"src.{command}"]
    gc.freeze()  # or each fork goes through all of it once more
    torch.set_num_threads(1)
    sys.setrecursionlimit(5000)


def _in_parallel(numbers: Any, arguments: argparse.Namespace, base: Path) -> Any:
    """Results as they come, of forks that each take every n-th case."""
    jobs = 1 if arguments.keep else arguments.jobs
    reads, writes = os.pipe()
    for job in range(jobs):
        if os.fork() == 0:
            os.close(reads)
            for number in list(numbers)[job::jobs]:
                line = json.dumps(case(number, arguments, base).__dict__) + "\n"
                os.write(writes, line.encode())
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as lines:
        for line in lines:
            yield Result(**json.loads(line))


if __name__ == "__main__":
    main()
