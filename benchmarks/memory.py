"""Peak memory of a whole run's process over that of a bare loop's; each is a process of its own.

python benchmarks/memory.py [model=gan …]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from benchmarks.pairs import Pairs

STEPS = 30
_TRAIN = [
    "trainer=cpu",
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=null",
    "test=false",
    "trainer.limit_val_batches=0",
]
_BARE = """
import sys
from benchmarks.bare import Bare
from src.cli.command import compose
from src.config.settings import Settings
steps = int(sys.argv[1])
bare = Bare(Settings.of(compose("train", sys.argv[2:])), steps)
for number in range(steps):
    bare.step(number)
"""


def peak_memory(overrides: list[str], pairs: int = 1) -> Pairs:
    """GiB, where other rows have seconds."""
    found = Pairs("a whole run", "a bare loop", unit="GiB")
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            given = [*_TRAIN, *overrides]
            ours = _peak(["-m", "src.train", *given, f"hydra.run.dir={folder}/run"])
            found.add(ours, _peak(["-c", _BARE, str(STEPS), *given, f"paths.output_dir={folder}"]))
    return found


def _peak(arguments: list[str]) -> float:
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments[:2])} ended with {process.returncode}")
    return used.ru_maxrss / 2**20  # KiB on Linux


if __name__ == "__main__":
    print(peak_memory(sys.argv[1:]).words())
