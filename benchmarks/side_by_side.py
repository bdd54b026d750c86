"""How long two runs on one CPU take side by side: as they are started here, with OpenMP's own waiting, and as a sweep.

    python benchmarks/side_by_side.py

Each run trains the embedded data's network for one epoch. The first two differ in GOMP_SPINCOUNT alone (src/__init__.py;
300000 is GNU OpenMP's own value); the third is `-m` with `launcher.jobs=2`, which also shares the cores out among its jobs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_AT_MOST = 8  # times one run's time
ROOT = Path(__file__).resolve().parent.parent
RUN = [sys.executable, "-m", "src.train", "trainer.max_epochs=1", "callbacks.pictures=null", "test=false"]


def seconds(commands: list[list[str]], limit: float = 3600, **variables: str) -> float:
    """Wall time until all commands, started at once, have ended; or `limit`, when they are stopped."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    begun = time.monotonic()
    started = [
        subprocess.Popen(command, cwd=ROOT, env=kept | variables, stdout=subprocess.DEVNULL) for command in commands
    ]
    while any(process.poll() is None for process in started):
        if time.monotonic() - begun > limit:
            for process in started:
                process.kill()
                process.wait()
            return limit
        time.sleep(0.1)
    if any(process.returncode for process in started):
        raise SystemExit("a run failed")
    return time.monotonic() - begun


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def runs(name: str) -> list[list[str]]:
            return [[*RUN, f"seed={seed}", f"hydra.run.dir={place / name}{seed}"] for seed in (1, 2)]

        alone = seconds(runs("alone")[:1])
        print(f"one run alone              {alone:6.0f} s", flush=True)
        ours = seconds(runs("ours"))
        print(f"two, as they are           {ours:6.0f} s  {ours / alone:5.1f} times one", flush=True)
        swept = seconds([[*RUN, "-m", "seed=1,2", "launcher.jobs=2", f"sweep.dir={place / 'sweep'}"]])
        print(f"two, as jobs of a sweep    {swept:6.0f} s  {swept / alone:5.1f} times one", flush=True)
        theirs = seconds(runs("theirs"), limit=_AT_MOST * alone, GOMP_SPINCOUNT="300000")
        print(f"two, with OpenMP's waiting {theirs:6.0f} s  {theirs / alone:5.1f} times one (stopped at {_AT_MOST})")


if __name__ == "__main__":
    main()
