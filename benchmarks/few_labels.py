"""What do unlabelled images give? One network, one data set, one number of steps, with few labels and several methods.

    python benchmarks/few_labels.py --arms shapes --seeds 1 2 3 --jobs 2
    python benchmarks/few_labels.py --arm "supervised:" --arm "fixmatch:model.semi=fixmatch" -- data.labeled_fraction=1/32
    python benchmarks/few_labels.py --arms curve --picture docs/few-labels.png
    python benchmarks/few_labels.py --arms drives -- data.root=path/to/camvid

Arguments after `--` go to every run. Each run is a process of its own, and a line in `results.jsonl` under `--output`; a run
that is there already is not run again, so an interrupted benchmark goes on when started again. An epoch has the batches of
the whole training split whatever `data.labeled_fraction` is, so that equal epochs are equal steps.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_ALL_RUNS = (
    "data.labeled_fraction=1/64 trainer=cpu trainer.max_epochs=4 trainer.check_val_every_n_epoch=4 callbacks.pictures=null "
    "callbacks.dashboard=null"
)
# The strong view's changes of colour, for labelled images too: in the embedded data colour tells nothing of the class.
COLORS = (
    "data.augment.photometric=0.8 data.augment.brightness=0.5 data.augment.contrast=0.5 data.augment.saturation=0.5 "
    "data.augment.hue=0.25"
)
_EIGHT = f"{COLORS} data.labeled_fraction=1/256"  # 8 scenes: colours alone do not do there
_STRONG = "data.strong.blur=0 data.strong.gray=0 model.ema_decay=0.99"
_FIXMATCH = f"{_STRONG} model.semi=fixmatch model.semi.threshold=0.9 model.semi.start=250 model.semi.ramp=100"
_TEACHER = (
    f"{_STRONG} model.semi=mean_teacher model.semi.weight=10 model.semi.cutmix=1 model.semi.start=150 "
    "model.semi.ramp=250"
)
_LONG = f"{COLORS} data.labeled_fraction=1/128 trainer.max_epochs=12"  # 3000 steps
_FORGETS_NONE = (  # as experiment=shapes_semi has it
    "model.semi=fixmatch model.semi.threshold=0.8 model.semi.align=true model.semi.dice_weight=1 model.semi.apart=true "
    "model.semi.start=750 model.semi.ramp=250"
)
_LATE = "model.semi.start=750 model.semi.ramp=250"
_CLASSES_TOO = f"model.semi.threshold=0.8 model.semi.align=true model.semi.dice_weight=1 {_LATE}"
# CamVid, one drive of three labelled; val is of a drive that is not. The learning rate is that of docs/few-labels.md.
_DRIVES = (
    "experiment=camvid_cnn data.labeled_fraction=null data.crop=[160,224] data.batch_size=4 data.cache=ram "
    "optimizer.lr=6e-3 scheduler.warmup_steps=30 test=false"
)
_DRIVE = f"{_DRIVES} data.labeled_list={{labeled}}"
_LABELED_DRIVE = "0006R0"
_DRIVES_SEMI = (
    "data.strong.blur=0.3 data.strong.gray=0 data.strong.hue=0.05 model.semi=fixmatch model.semi.threshold=0.8 "
    "model.semi.align=true model.semi.dice_weight=1 model.semi.apart=true model.semi.start=100 model.semi.ramp=50"
)
_TOPOLOGY = f"{COLORS} metrics=topology"
_FIGURES = ("train/pseudo_labels", "train/pseudo_label_accuracy", "train/pseudo_label_recall")
_SCORES = ("miou", "iou/", "cldice/", "pieces_wrong/", "holes_wrong/")
ARMS: dict[str, dict[str, str]] = {
    "shapes": {
        "supervised": "",
        "supervised, colours": COLORS,
        "all labels": "data.labeled_fraction=null",
        "all labels, colours": f"{COLORS} data.labeled_fraction=null",
    },
    "methods": {
        "supervised": _EIGHT,
        "oracle": f"{_EIGHT} {_STRONG} model._target_=benchmarks.told.Told model.semi=fixmatch model.semi.threshold=0.9",
        "fixmatch": f"{_EIGHT} {_FIXMATCH}",
        "mean teacher": f"{_EIGHT} {_TEACHER}",
        "unimatch v2": f"{_EIGHT} {_FIXMATCH.replace('=fixmatch', '=unimatch_v2')}",
        "adversarial": f"{_EIGHT} model=gan model.semi=adversarial model.semi.discriminator_threshold=0.2",
        "all labels": f"{COLORS} data.labeled_fraction=null",
    },
    "semi": {
        "supervised": _LONG,
        "supervised, averaged": f"{_LONG} model.ema_decay=0.99",
        "semi": f"{_LONG} {_STRONG} {_FORGETS_NONE}",
        "all labels": f"{_LONG} data.labeled_fraction=null",
        "oracle": f"{_LONG} {_STRONG} {_FORGETS_NONE} model._target_=benchmarks.told.Told",
        "as long as semi": f"{_LONG} trainer.max_epochs=29 trainer.check_val_every_n_epoch=29",
        "without align": f"{_LONG} {_STRONG} {_FORGETS_NONE} model.semi.align=false",
        "without dice_weight": f"{_LONG} {_STRONG} {_FORGETS_NONE} model.semi.dice_weight=0",
        "without apart": f"{_LONG} {_STRONG} {_FORGETS_NONE} model.semi.apart=false",
    },
    "others": {  # as late and as long as shapes_semi, with as much of it as they take; settings their papers' otherwise
        "supervised": _LONG,
        "unimatch": f"{_LONG} {_STRONG} model.semi=unimatch {_CLASSES_TOO}",
        "unimatch v2": f"{_LONG} {_STRONG} model.semi=unimatch_v2 {_CLASSES_TOO}",
        "mean teacher": f"{_LONG} {_STRONG} model.semi=mean_teacher model.semi.weight=10 model.semi.cutmix=1 "
        f"model.semi.apart=true {_LATE}",
        "cps": f"{_LONG} {_STRONG} model.semi=cps model.semi.weight=1.5 model.semi.cutmix=1 {_LATE}",
        "adversarial": f"{_LONG} {_STRONG} model=gan model.semi=adversarial model.semi.discriminator_threshold=0.2 {_LATE}",
        "s4gan": f"{_LONG} {_STRONG} model=gan discriminator=whole_image model.semi=s4gan model.adversarial_weight=0 "
        f"model.feature_weight=0.1 model.semi.discriminator_threshold=0.6 model.truth=onehot {_LATE}",
    },
    "adversary": {  # 31 labelled scenes; their connectedness is measured too
        "supervised": _TOPOLOGY,
        "adversary": f"{_TOPOLOGY} model=gan",
        "adversary, x10": f"{_TOPOLOGY} model=gan model.adversarial_weight=0.1",
        "adversary, hinge and R1": f"{_TOPOLOGY} model=gan model.adversarial=hinge model.r1_weight=1",
        "features": f"{_TOPOLOGY} model=gan model.adversarial_weight=0 model.feature_weight=0.1",
        "adversary on unlabelled": f"{_TOPOLOGY} model=gan model.semi=adversarial "
        "model.semi.discriminator_threshold=0.2 model.semi.adversarial_weight=0.003",
    },
    "drives": {
        "supervised": _DRIVE,
        "all labels": _DRIVES,
        "semi": f"{_DRIVE} {_DRIVES_SEMI}",
        "semi, not aligned": f"{_DRIVE} {_DRIVES_SEMI} model.semi.align=false",  # drives differ in how often a class is seen
    },
    "curve": {
        f"{name}, 1/{part}": f"{changes} data.labeled_fraction=1/{part}"
        for part in (8, 16, 32, 64, 128, 256)
        for name, changes in (("supervised", ""), ("colours", COLORS))
    },
}
Result = dict[str, Any]


def run(arm: str, seed: int, overrides: list[str], folder: Path, threads: int) -> Result:
    """Trains once, and reads what came out."""
    run_dir = folder / "runs" / f"{arm.replace(' ', '_').replace('/', '-')}-{seed}"
    shutil.rmtree(run_dir, ignore_errors=True)  # what an interrupted run left, or one of other settings
    run_dir.mkdir(parents=True)
    command = [sys.executable, "-m", "src.train", *overrides, f"seed={seed}", f"hydra.run.dir={run_dir}"]
    with (run_dir / "output.txt").open("w") as output:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
    if done.returncode:
        raise RuntimeError(f"{arm}, seed {seed}: exit status {done.returncode}, see {run_dir / 'output.txt'}")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    result: Result = {"arm": arm, "seed": seed, "overrides": overrides, "steps": metrics["steps"],
                      "seconds": metrics["wall_seconds"]}  # fmt: skip
    for stage in ("val", "test"):
        if stage in metrics:
            result[stage] = {k: v for k, v in metrics[stage].items() if k.startswith(_SCORES)}
    return result | figures(run_dir)


def figures(run_dir: Path) -> Result:
    """Share and accuracy of the pseudo labels in each quarter of the run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    found: Result = {}
    for name in _FIGURES:
        if name in events.Tags()["scalars"]:
            values = [event.value for event in events.Scalars(name)]
            quarters = [values[len(values) * q // 4 : len(values) * (q + 1) // 4] for q in range(4)]
            means = [[v for v in quarter if v == v] for quarter in quarters]  # without NaN
            found[name.removeprefix("train/")] = [round(statistics.mean(m), 4) if m else None for m in means]
    return found


def labeled_drive(overrides: list[str], file: Path) -> None:
    """Names the images of the labelled drive, a line each."""
    root = next((o.removeprefix("data.root=") for o in overrides if o.startswith("data.root=")), None)
    if root is None:
        sys.exit("say where CamVid is: python benchmarks/few_labels.py --arms drives -- data.root=path/to/camvid")
    names = sorted(path.stem for path in Path(root).glob(f"train/{_LABELED_DRIVE}*"))
    file.write_text("".join(f"{name}\n" for name in names))


def structure(score: dict[str, float]) -> tuple[float, float, float]:
    """Means over the classes but the background: clDice, and by how many pieces and holes an image is wrong."""
    means = (
        statistics.mean(v for k, v in score.items() if k.startswith(name) and not k.endswith("/background"))
        for name in ("cldice/", "pieces_wrong/", "holes_wrong/")
    )
    return next(means), next(means), next(means)


def structures(results: dict[tuple[str, int], Result], arms: list[str], seeds: list[int]) -> str:
    """A line an arm, of the test split: mean ± standard deviation over seeds, and the difference to the first arm."""
    lines = ["| | clDice | to the first | pieces wrong | to the first | holes wrong | to the first |", "|" + "---|" * 7]
    for arm in arms:
        have = [s for s in seeds if (arm, s) in results]
        rows = {s: structure(results[arm, s]["test"]) for s in have}
        first = {s: structure(results[arms[0], s]["test"]) for s in have if (arms[0], s) in results}
        cells = [arm]
        for column in range(3) if rows else ():
            cells.append(spread([row[column] for row in rows.values()]))
            gains = [rows[s][column] - first[s][column] for s in first]
            cells.append("–" if arm == arms[0] or not gains else spread(gains))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def table(results: dict[tuple[str, int], Result], arms: list[str], seeds: list[int]) -> str:
    """A line an arm: mean ± standard deviation over seeds, and the difference to the first arm, seed by seed."""
    lines = [
        "| | val mIoU | to the first | test mIoU | to the first | trusted | right | recall | time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        have = [seed for seed in seeds if (arm, seed) in results]
        if not have:
            continue
        cells = [f"{arm} ({len(have)})" if len(have) < len(seeds) else arm]
        both = [seed for seed in have if (arms[0], seed) in results]
        for stage in ("val", "test"):
            if stage not in results[arm, have[0]]:
                cells += ["", ""]
                continue
            cells.append(spread([results[arm, seed][stage]["miou"] for seed in have]))
            gains = [results[arm, s][stage]["miou"] - results[arms[0], s][stage]["miou"] for s in both]
            cells.append("–" if arm == arms[0] or not gains else spread(gains))
        for name in _FIGURES:
            last = [results[arm, s].get(name.removeprefix("train/"), [None])[-1] for s in have]
            known = [value for value in last if value is not None]
            cells.append(f"{statistics.mean(known):.3f}" if known else "")
        seconds = statistics.mean(results[arm, s]["seconds"] for s in have)
        cells.append(f"{seconds:.0f} s")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(results: dict[tuple[str, int], Result], arms: list[str], seeds: list[int], file: Path) -> None:
    """val mIoU over the share of labels, a line for each name of the arms "name, 1/n"; seeds as points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for color, name in enumerate(dict.fromkeys(arm.rpartition(", ")[0] for arm in arms)):
        points = {
            int(arm.rpartition("/")[2]): [results[arm, s]["val"]["miou"] for s in seeds if (arm, s) in results]
            for arm in arms if arm.rpartition(", ")[0] == name
        }  # fmt: skip
        points = {part: values for part, values in points.items() if values}
        axes.plot([*points], [statistics.mean(v) for v in points.values()], color=f"C{color}", label=name)
        for part, values in points.items():
            axes.scatter([part] * len(values), values, color=f"C{color}", s=12)
    axes.set_xscale("log", base=2)
    parts = sorted({int(arm.rpartition("/")[2]) for arm in arms})
    axes.set_xticks(parts, [f"1/{part}" for part in parts])
    axes.set_xlabel("share of the 2000 scenes that is labelled")
    axes.set_ylabel("val mIoU")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", choices=sorted(ARMS), default="shapes", help="a set of arms")
    parser.add_argument("--only", nargs="+", help="these arms of the set")
    parser.add_argument("--arm", action="append", default=[], help='arms of your own instead: "name:override override"')
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--table", action="store_true", help="only show what is there")
    parser.add_argument("--picture", type=Path, help="with --arms curve: the file to draw it to")
    parser.add_argument("overrides", nargs="*", help="for every run, after --")
    arguments = parser.parse_args()
    arms = dict(a.split(":", 1) for a in arguments.arm) or ARMS[arguments.arms]
    folder = (arguments.output or ROOT / "logs" / "benchmarks" / f"few_labels_{arguments.arms}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file, lock = folder / "results.jsonl", threading.Lock()
    labeled = folder / "labeled.txt"
    if not arguments.table and any("{labeled}" in overrides for overrides in arms.values()):
        labeled_drive(arguments.overrides, labeled)
    results: dict[tuple[str, int], Result] = {}
    if file.is_file():
        for line in file.read_text().splitlines():
            one = json.loads(line)
            results[one["arm"], one["seed"]] = one

    def measure(arm: str, seed: int) -> None:
        overrides = [*_ALL_RUNS.split(), *arms[arm].replace("{labeled}", str(labeled)).split(), *arguments.overrides]
        known = results.get((arm, seed))
        if known is not None and known["overrides"] == overrides:
            return
        try:
            one = run(arm, seed, overrides, folder, arguments.threads)
        except RuntimeError as error:
            print(error, flush=True)
            return
        with lock, file.open("a") as lines:
            lines.write(json.dumps(one) + "\n")
            results[arm, seed] = one
        print(arm, seed, f"{one['val']['miou']:.4f}", flush=True)

    if not arguments.table:
        pairs = [(arm, seed) for seed in arguments.seeds for arm in arguments.only or arms]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda pair: measure(*pair), pairs))
    print(table(results, list(arms), arguments.seeds))
    if any("cldice/background" in result.get("test", ()) for result in results.values()):
        print(structures(results, list(arms), arguments.seeds))
    if arguments.picture is not None:
        picture(results, list(arms), arguments.seeds, arguments.picture)


if __name__ == "__main__":
    main()
