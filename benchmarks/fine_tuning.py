"""What is a checkpoint of other classes worth? CamVid in 6 merged classes first, then in all 11.

    python benchmarks/fine_tuning.py --root path/to/camvid --seeds 1 2 3

For each seed a network learns the 6 classes; then 11 classes are learnt for equally many steps from the encoder's ImageNet
weights, from that checkpoint with the rows of the classes of the same name (`init_head=match`), and with a new last layer
(`init_head=new`). Each run is a process of its own, and a line in `results.jsonl` under `--output`; a run that is there
already is not run again. Needs the extra `lite`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from benchmarks.few_labels import ROOT, Result, run, spread

_ALL_RUNS = (
    "experiment=camvid_cnn data.crop=[128,160] data.num_workers=0 scheduler.warmup_steps=20 model.ema_decay=null trainer=cpu "
    "callbacks.pictures=null callbacks.dashboard=null test=false"
)
# Four names are those of CamVid's own classes, two are not.
_MERGED = (
    "data=folder data.eval_batch_size=4 data.cache=ram data.dataset.images={split} data.dataset.masks={split}annot "
    "data.dataset.mask_format=index data.dataset.ignore=[11] "
    "data.dataset.values={sky:0,building:[1,7],road:[3,4],tree:5,small_thing:[2,6],road_user:[8,9,10]}"
)
BASE = "6 merged classes"
ARMS = {
    "the encoder's weights alone": "",
    "the checkpoint, init_head=match": "init_from={checkpoint}",
    "the checkpoint, init_head=new": "init_from={checkpoint} init_head=new",
}
_NEW = ("pole", "pavement", "sign_symbol", "fence", "car", "pedestrian", "bicyclist")


def table(results: dict[tuple[str, int], Result], seeds: list[int]) -> str:
    """A line an arm: mean ± standard deviation over seeds, and the difference to the first arm, seed by seed."""
    lines = [
        "| | val mIoU | to the first | of the classes that the checkpoint has not | steps | time |",
        "|---|---|---|---|---|---|",
    ]
    first = next(iter(ARMS))
    for arm in [BASE, *ARMS]:
        have = [seed for seed in seeds if (arm, seed) in results]
        if not have:
            continue
        gains = [
            results[arm, seed]["val"]["miou"] - results[first, seed]["val"]["miou"]
            for seed in have if arm in ARMS and arm != first and (first, seed) in results
        ]  # fmt: skip
        new = [[results[arm, s]["val"].get(f"iou/{name}", 0.0) for name in _NEW] for s in have] if arm in ARMS else []
        lines.append(
            f"| {arm} | {spread([results[arm, s]['val']['miou'] for s in have])} | {spread(gains) if gains else '–'} | "
            f"{spread([statistics.mean(one) for one in new]) if new else '–'} | {results[arm, have[0]]['steps']} | "
            f"{statistics.mean(results[arm, s]['seconds'] for s in have):.0f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CamVid, as data=camvid reads it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--base-epochs", type=int, default=4, help="of the 6 classes")
    parser.add_argument("--epochs", type=int, default=2, help="of the 11 classes")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--output", type=Path, default=ROOT / "logs" / "benchmarks" / "fine_tuning")
    parser.add_argument("overrides", nargs="*", help="for every run, after --")
    arguments = parser.parse_args()
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.jsonl"
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    results: dict[tuple[str, int], Result] = {(one["arm"], one["seed"]): one for one in known}
    lock = threading.Lock()

    def measure(arm: str, seed: int, epochs: int, changes: str) -> None:
        length = [f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={epochs}"]
        overrides = [*_ALL_RUNS.split(), f"data.root={arguments.root.resolve()}", *length, *changes.split()]
        overrides += arguments.overrides
        have = results.get((arm, seed))
        if have is None or have["overrides"] != overrides:
            results[arm, seed] = run(arm, seed, overrides, folder, arguments.threads)
            with lock, file.open("a") as lines:
                lines.write(json.dumps(results[arm, seed]) + "\n")
        print(arm, seed, f"{results[arm, seed]['val']['miou']:.4f}", flush=True)

    def go_on(arm: str, seed: int) -> None:
        checkpoint = folder / "runs" / f"{BASE.replace(' ', '_')}-{seed}"
        measure(arm, seed, arguments.epochs, ARMS[arm].format(checkpoint=checkpoint))

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda seed: measure(BASE, seed, arguments.base_epochs, _MERGED), arguments.seeds))
        list(pool.map(lambda both: go_on(*both), [(arm, seed) for arm in ARMS for seed in arguments.seeds]))
    print(table(results, arguments.seeds))


if __name__ == "__main__":
    main()
