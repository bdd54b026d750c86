"""Makes the table of docs/benchmarks.md and docs/benchmarks.json: what takes how long, ours beside a named rival, in turns.

    python benchmarks/table.py                                    # as `make bench`
    python benchmarks/table.py --root path/to/camvid              # with the rows that need CamVid
    python benchmarks/table.py --only step_cnn step_gan           # these rows anew; the others stay as they are
    python benchmarks/check.py                                    # which rows are worse than in the last committed table

A row is a function in ROWS that gives `Pairs`, or None with what it lacks.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import torch

from benchmarks.pairs import Pairs

JSON, PAGE = ROOT / "docs/benchmarks.json", ROOT / "docs/benchmarks.md"
_BEGIN, _END = "<!-- table -->\n", "<!-- end of the table -->"
_PACKAGES = ("torch", "lightning", "torchmetrics", "numpy")


@dataclass(frozen=True)
class Given:
    """What all rows are measured with."""

    pairs: int
    root: str | None
    seed: int

    @property
    def seeded(self) -> list[str]:
        return [f"seed={self.seed}"]


def step_cnn(given: Given) -> Pairs:
    from benchmarks.bare import whole_over_bare

    return whole_over_bare(given.seeded, given.pairs)


def step_cnn_ema(given: Given) -> Pairs:
    from benchmarks.bare import whole_over_bare

    return whole_over_bare(["model.ema_decay=0.99", *given.seeded], given.pairs)


def step_gan(given: Given) -> Pairs:
    from benchmarks.bare import whole_over_bare

    return whole_over_bare(["model=gan", *given.seeded], given.pairs)


def step_camvid_cnn(given: Given) -> Pairs | None:
    from benchmarks.bare import whole_over_bare

    if given.root is None:
        return None
    recipe = [
        "experiment=camvid_cnn",
        f"data.root={given.root}",
        "data.num_workers=0",
        "scheduler.warmup_steps=5",
        *given.seeded,
    ]
    return whole_over_bare(recipe, cycles=8, log_every=5)


def step_camvid_rival(given: Given) -> Pairs | None:
    from benchmarks import camvid_step

    return None if given.root is None else camvid_step.pairs(Path(given.root), given.pairs)


def validation(given: Given) -> Pairs:
    from benchmarks.validation import validation_epoch

    return validation_epoch(["data.dataset.train_length=8", *given.seeded], given.pairs)


def metric(given: Given) -> Pairs:
    from benchmarks.validation import metric_update

    return metric_update(10 * given.pairs)


def predict(given: Given) -> Pairs:
    from benchmarks.predict_over_plain import predict_over_plain, short_run

    with tempfile.TemporaryDirectory() as folder:
        return predict_over_plain(short_run(Path(folder), given.seed), pairs=min(given.pairs, 5))


def data(given: Given) -> Pairs | None:
    from benchmarks.data_throughput import decoding_over_albumentations

    return None if given.root is None else decoding_over_albumentations(given.root, cached=False, pairs=given.pairs)


def data_cached(given: Given) -> Pairs | None:
    from benchmarks.data_throughput import decoding_over_albumentations

    return None if given.root is None else decoding_over_albumentations(given.root, cached=True, pairs=given.pairs)


def first_step(given: Given) -> Pairs:
    from benchmarks import first_step as command

    return command.first_step(min(given.pairs, 3), given.seeded)[0]


def memory(given: Given) -> Pairs:
    from benchmarks.memory import peak_memory

    return peak_memory(given.seeded)


ROWS: dict[str, tuple[str, Callable[[Given], Pairs | None]]] = {
    "step_cnn": ("a training step of the default run", step_cnn),
    "step_cnn_ema": ("the same with `model.ema_decay=0.99`", step_cnn_ema),
    "step_gan": ("a training step of `model=gan`", step_gan),
    "step_camvid_cnn": ("a training step of `experiment=camvid_cnn`", step_camvid_cnn),
    "step_camvid_rival": ("the same recipe beside a plain loop over smp's FPN", step_camvid_rival),
    "validation": ("a validation epoch of the default run", validation),
    "metric": ("counting a batch of 8 masks, 256x320", metric),
    "predict": ("`src.predict` on 24 photos, 512x768", predict),
    "data": ("reading and changing CamVid, no cache", data),
    "data_cached": ("the same, `data.cache=ram`", data_cached),
    "first_step": ("from the command to the end of the first step", first_step),
    "memory": ("peak memory of the default run", memory),
}


def about(given: Given) -> dict[str, Any]:
    """With what rows are measured."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return {
        "cpu": cpu, "threads": torch.get_num_threads(), "system": platform.system(), "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES}, "seed": given.seed,
    }  # fmt: skip


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def page_table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown, with what they were measured with below."""
    lines = ["| what | rival | ratio | middle half | ours | rival | pairs |", "|---" * 7 + "|"]
    for name, (title, _) in ROWS.items():
        if (row := rows.get(name)) is None:
            continue
        low, high = row["middle_half"]
        ours, rival = (_amount(row[key], row["unit"]) for key in ("median_ours", "median_rival"))
        lines.append(
            f"| {title} | {row['rival']} | **{row['ratio']:.3f}** | {low:.3f} to {high:.3f} | {ours} | {rival} "
            f"| {row['pairs']} |"
        )
    with_what: dict[str, list[str]] = {}
    for name, row in rows.items():
        with_what.setdefault(", ".join(f"{key} {value}" for key, value in row["with"].items()), []).append(name)
    lines += ["", *(f"Measured with {what}: {', '.join(names)}.  " for what, names in with_what.items())]
    return "\n".join(lines) + "\n"


def _amount(value: float, unit: str) -> str:
    return f"{value:.2f} GiB" if unit == "GiB" else f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def write(rows: dict[str, dict[str, Any]]) -> None:
    JSON.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    PAGE.write_text(f"{before}{_BEGIN}{page_table(rows)}{_END}{rest.partition(_END)[2]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="CamVid's folder; without it, the rows that need it are left out")
    parser.add_argument("--only", nargs="+", choices=ROWS, help="measure these rows; the others stay as they are")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    given = Given(asked.pairs, asked.root, asked.seed)
    rows = json.loads(JSON.read_text(encoding="utf-8")) if JSON.is_file() and asked.only else {}
    for name in asked.only or ROWS:
        try:
            found = ROWS[name][1](given)
        except ModuleNotFoundError as error:  # a rival's
            print(f"{name}: left out, {error.name} is not installed")
            continue
        if found is None:
            print(f"{name}: left out, it needs --root")
            continue
        rows[name] = {**found.row(), "date": datetime.date.today().isoformat(), "with": about(given)}
        print(f"{name}: {found.words()}", flush=True)
        write({name: rows[name] for name in ROWS if name in rows})


if __name__ == "__main__":
    main()
