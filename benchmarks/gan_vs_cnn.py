"""Does the adversary help? The same generator, data and budget with and without it, over several seeds.

    python benchmarks/gan_vs_cnn.py                                        # embedded data: model=cnn against model=gan
    python benchmarks/gan_vs_cnn.py --arms camvid_semi -- data.root=path/to/camvid
    python benchmarks/gan_vs_cnn.py --arm "cnn:model=cnn" --arm "hinge:model=gan model.adversarial=hinge" -- network=fpn

Arguments after `--` go to every run. Each run is a process of its own; one that has completed is not run again, so an
interrupted benchmark goes on when started again. Writes table.md, curves.png and all runs under `--output`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# 364 steps of 4 labelled images: what a CPU can do three times over. The learning rate is the best of 1.5e-3, 3e-3, 6e-3
# and 1.2e-2 for supervised training.
_SMALL = (
    "experiment=camvid_semi data.crop=[160,224] data.batch_size=4 optimizer.lr=6e-3 scheduler.warmup_steps=30 "
    "trainer.max_epochs=4 trainer.check_val_every_n_epoch=2 test=false"
)
_SEMI = (
    "model.semi.threshold=0.8 model.semi.cutmix=1 model.semi.weight=0.5 model.semi.start=150 model.semi.ramp=100 "
    "data.strong.hue=0.05 data.strong.gray=0 data.strong.blur=0.3"
)
ARMS = {
    "shapes": {"CNN": "model=cnn", "GAN": "experiment=shapes_gan"},
    # 46 labelled images; the generator, its optimizer, crops and number of steps are the same in all arms
    "camvid_semi": {
        "supervised": f"{_SMALL} model.adversarial_weight=0 model.semi=null",
        "adversarial": f"{_SMALL} model.semi=null",
        "semi": f"{_SMALL} {_SEMI}",
        "all labels": f"{_SMALL} model.adversarial_weight=0 model.semi=null data.labeled_fraction=null",
    },
}


def run(arm: str, seed: int, overrides: list[str], folder: Path, threads: int | None) -> dict[str, object]:
    """metrics.json of one run, from an earlier start of the benchmark if it has completed."""
    run_dir = folder / f"{arm.replace(' ', '_')}-{seed}"
    metrics = run_dir / "metrics.json"
    if not metrics.is_file() or json.loads(metrics.read_text())["status"] != "completed":
        command = [sys.executable, "-m", "src.train", *overrides, f"seed={seed}", f"hydra.run.dir={run_dir.resolve()}"]
        environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        run_dir.mkdir(parents=True, exist_ok=True)
        with (run_dir / "output.txt").open("w") as output:
            done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment)
        if done.returncode:
            sys.exit(f"{arm}, seed {seed}: exit status {done.returncode}, see {run_dir / 'output.txt'}")
    result: dict[str, object] = json.loads(metrics.read_text())
    return result


def spread(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{statistics.mean(listed):.4f}" + (f" ± {statistics.stdev(listed):.4f}" if len(listed) > 1 else "")


def table(results: dict[str, list[dict[str, object]]]) -> str:
    """A line an arm: mean ± standard deviation over seeds, and the difference to the first arm, seed by seed."""
    lines = ["| arm | val mIoU | to the first arm | test mIoU | to the first arm | time |", "|---|---|---|---|---|---|"]
    first = next(iter(results.values()))
    for arm, runs in results.items():
        cells = [arm]
        for stage in ("val", "test"):
            if any(stage not in r for r in (*runs, *first)):
                cells += ["–", "–"]
                continue
            scores, base = ([float(r[stage]["miou"]) for r in rows] for rows in (runs, first))  # type: ignore[index]
            cells += [
                spread(scores),
                spread(a - b for a, b in zip(scores, base, strict=True)) if runs is not first else "–",
            ]
        seconds, base_seconds = (statistics.mean(float(r["wall_seconds"]) for r in rows) for rows in (runs, first))  # type: ignore[arg-type]
        lines.append("| " + " | ".join([*cells, f"{seconds / base_seconds:.2f} of the first"]) + " |")
    return "\n".join(lines)


def curves(folder: Path, arms: Iterable[str], seeds: Iterable[int]) -> None:
    """val mIoU over steps, a line a run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for color, arm in enumerate(arms):
        for number, seed in enumerate(seeds):
            events = EventAccumulator(str(folder / f"{arm.replace(' ', '_')}-{seed}" / "tensorboard")).Reload()
            points = events.Scalars("val/miou")
            axes.plot(
                [p.step for p in points], [p.value for p in points], color=f"C{color}", alpha=0.8,
                label=arm if number == 0 else None,
            )  # fmt: skip
    axes.set_xlabel("steps")
    axes.set_ylabel("val mIoU")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(folder / "curves.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", choices=sorted(ARMS), default="shapes", help="a set of arms")
    parser.add_argument("--arm", action="append", default=[], help='arms of your own instead: "name:override override"')
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, help="of each run; all cores by default")
    parser.add_argument("--output", type=Path)
    parser.add_argument("overrides", nargs="*", help="for every run, after --")
    arguments = parser.parse_args()
    arms = dict(a.split(":", 1) for a in arguments.arm) or ARMS[arguments.arms]
    folder = (arguments.output or ROOT / "logs" / "benchmarks" / arguments.arms).resolve()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        pending = {
            (arm, seed): pool.submit(
                run, arm, seed, [*overrides.split(), *arguments.overrides], folder, arguments.threads
            )
            for seed in arguments.seeds
            for arm, overrides in arms.items()
        }
        results = {arm: [pending[arm, seed].result() for seed in arguments.seeds] for arm in arms}
    text = table(results)
    (folder / "table.md").write_text(text + "\n")
    curves(folder, arms, arguments.seeds)
    print(f"{text}\n\nseeds {arguments.seeds}; {folder / 'table.md'}, {folder / 'curves.png'}")


if __name__ == "__main__":
    main()
