"""What do drawn images give? Segmentation alone, with changes of colour, and with images that a generator draws by label maps.

    python benchmarks/synthesis.py --labels 1/64 --seeds 1 2 3
    python benchmarks/synthesis.py --labels 1 --seeds 1 2 3

First a generator is trained (`model=synthesis`), on the same labels and with the changes of colour; every arm then takes the
same number of steps. A run that is in the folder already is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.few_labels import COLORS, Result, run, table

_ALL_RUNS = "trainer=cpu callbacks.pictures=null callbacks.dashboard=null"
_GENERATOR = f"model=synthesis model.ema_decay=0.99 test=false {COLORS}"


def arms(generator: Path) -> dict[str, str]:
    """Overrides of each arm."""
    drawn = f"data.synthetic={generator}"
    return {
        "alone": "",
        "drawn": drawn,
        "colours": COLORS,
        "colours, drawn": f"{COLORS} {drawn}",
        "colours, a quarter drawn": f"{COLORS} {drawn} data.synthetic_share=0.25",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", default="1/64", help="share of the training scenes that is labelled")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=4, help="of every arm, of 250 steps")
    parser.add_argument("--generator-epochs", type=int, default=8)
    parser.add_argument("--generator-seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="names of arms")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    share = arguments.labels.replace("/", "-")
    folder = (arguments.output or ROOT / "logs" / "benchmarks" / f"synthesis_{share}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.jsonl"
    results: dict[tuple[str, int], Result] = {}
    if file.is_file():
        for line in file.read_text().splitlines():
            one = json.loads(line)
            results[one["arm"], one["seed"]] = one
    fraction = "null" if arguments.labels == "1" else arguments.labels
    common = [*_ALL_RUNS.split(), f"data.labeled_fraction={fraction}"]
    generator = folder / "runs" / f"generator-{arguments.generator_seed}"
    if not (generator / "checkpoints" / "last.ckpt").is_file():
        run("generator", arguments.generator_seed, [
            *common, *_GENERATOR.split(), f"trainer.max_epochs={arguments.generator_epochs}"
        ], folder, threads=1)  # fmt: skip
    chosen = {name: o for name, o in arms(generator).items() if not arguments.only or name in arguments.only}
    for seed in arguments.seeds:
        for name, own in chosen.items():
            overrides = [*common, *own.split(), f"trainer.max_epochs={arguments.epochs}",
                         f"trainer.check_val_every_n_epoch={arguments.epochs}"]  # fmt: skip
            known = results.get((name, seed))
            if known is None or known["overrides"] != overrides:
                one = results[name, seed] = run(name, seed, overrides, folder, threads=1)
                with file.open("a") as lines:
                    lines.write(json.dumps(one) + "\n")
            print(name, seed, f"{results[name, seed]['val']['miou']:.4f}", flush=True)
    print(table(results, list(chosen), arguments.seeds))


if __name__ == "__main__":
    main()
