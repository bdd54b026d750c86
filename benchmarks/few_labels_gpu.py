"""Supervised training, UniMatch V2 and the adversary on CamVid with 1/8 of its labels, at the recipe's budget, on one GPU.

    python benchmarks/few_labels_gpu.py data.root=path/to/camvid
    python benchmarks/few_labels_gpu.py --dry

Arguments go to every run. The recipe is experiment=camvid_cnn, 900 steps; nine runs of it, three arms with three seeds. Runs
that are there already are not run again, nor is one started once `--minutes` have passed. Run supervised at other rates first
(optimizer.lr=… with an `--output` of its own): a tuned baseline is what the others are to beat.

`--dry` takes two steps of each on the embedded data, on the CPU: it tells that everything runs, and no figure of it means
anything.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.few_labels import ROOT, Result, run, table

_CAMVID = (
    "experiment=camvid_cnn trainer=gpu trainer.precision=bf16-mixed trainer.max_epochs=20 callbacks.dashboard=null"
)
_DRY = (
    "network=small trainer=cpu trainer.max_epochs=1 trainer.max_steps=2 trainer.limit_train_batches=2 scheduler.warmup_steps=0 "
    "data.num_workers=0 data.batch_size=2 data.dataset.train_length=32 data.dataset.val_length=4 data.dataset.test_length=4 "
    "data.crop=[64,64] model.ema_decay=0.99 callbacks.dashboard=null"
)
_ALL = "data.labeled_fraction=1/8 callbacks.pictures=null"
ARMS = {
    "supervised": "",
    "unimatch v2": "model.semi=unimatch_v2 model.semi.threshold=0.8",
    "adversarial": (
        "model=gan discriminator=fcn discriminator.width=32 model.semi=adversarial "
        "model.semi.discriminator_threshold=0.2 model.semi.adversarial_weight=0.001 model.ema_decay=0.99"
    ),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=28, help="after which no run is started")
    parser.add_argument("--threads", type=int, default=4, help="of each run")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--dry", action="store_true", help="two steps each of the embedded data, on the CPU")
    given, overrides = parser.parse_known_args(arguments)
    unknown = [one for one in overrides if "=" not in one]
    if unknown:
        parser.error(f"{unknown[0]} is no option, and no override such as data.root=…")
    folder = (
        given.output or ROOT / "logs" / "benchmarks" / ("few_labels_dry" if given.dry else "few_labels_gpu")
    ).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results, started = known(folder / "results.jsonl"), time.monotonic()
    for seed in given.seeds:  # all arms of a seed, so that what there is when time is out can be compared
        for arm, own in ARMS.items():
            everything = [*(_DRY if given.dry else _CAMVID).split(), *_ALL.split(), *own.split(), *overrides]
            if (arm, seed) in results and results[arm, seed]["overrides"] == everything:
                continue
            if time.monotonic() - started > 60 * given.minutes:
                print(
                    f"{given.minutes:g} minutes are over: {arm}, seed {seed} is left out; start again to go on",
                    flush=True,
                )
                continue
            result = run(arm, seed, everything, folder, given.threads)
            results[arm, seed] = {"test": {"miou": math.nan}} | result  # not every copy of CamVid has one
            with (folder / "results.jsonl").open("a") as lines:
                lines.write(json.dumps(results[arm, seed]) + "\n")
            print(arm, seed, f"{results[arm, seed]['val']['miou']:.4f}", flush=True)
    print(table(results, list(ARMS), given.seeds))


def known(file: Path) -> dict[tuple[str, int], Result]:
    """Results that are there already, the newest of each arm and seed."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return {(one["arm"], one["seed"]): one for one in map(json.loads, lines)}


if __name__ == "__main__":
    main()
