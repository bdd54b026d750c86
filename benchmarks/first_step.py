"""CPU seconds from the command to the end of the first training step, beside a script that does no more than it must.

    python benchmarks/first_step.py [--pairs 5] [KEY=VALUE …]

Ours is `python -m src.train`, which is what `make train` runs, with all that it does before its first step: it reads and checks
the config, makes the run folder, looks at the data, builds everything. The rival imports torch and lightning, builds the same
network with segmentation_models_pytorch and takes a step of the same loss and optimizer on one random batch. Both end as soon
as the optimizer has stepped. They take turns; what is counted is the CPU time of the whole child process and of its own
children. Beside them, in the same turns, stands what `import torch, lightning` alone takes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from benchmarks.pairs import Pairs

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

_THREADS = {
    "GOMP_SPINCOUNT": "1000"
}  # what ours sets by itself: with others at work, waiting threads would be measured
_END = ["+callbacks.end._target_=benchmarks.first_step.end_after_step"]
_IMPORTS = "import torch, lightning"
_RIVAL = """
import torch, lightning
import segmentation_models_pytorch as smp
import torch.nn.functional as F

torch.manual_seed(42)
network = smp.Unet("tu-test_efficientnet", encoder_weights=None, decoder_channels=(48, 32, 24, 16, 8), classes=6)
optimizer = torch.optim.AdamW(network.parameters(), lr=0.004)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.004, total_steps=1750)
images, masks = torch.randint(0, 256, (8, 3, 64, 96), dtype=torch.uint8), torch.randint(0, 6, (8, 64, 96))
logits = network(images / 255)
shares, truth = logits.softmax(1), F.one_hot(masks, 6).permute(0, 3, 1, 2)
both = (shares * truth).sum((0, 2, 3))
dice = 1 - ((2 * both + 1) / (shares.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1)).mean()
(F.cross_entropy(logits, masks) + dice).backward()
optimizer.step()
scheduler.step()
"""


def end_after_step() -> Callback:
    """A callback whose making lets the process end with the first step of any optimizer."""
    from lightning.pytorch.callbacks import Callback
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(lambda *_: os._exit(0))
    return Callback()


def seconds(command: list[str]) -> float:
    """CPU time, of user and system, of a command that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=os.environ | _THREADS, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{done.stdout}{done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def first_step(pairs: int, train: list[str]) -> tuple[Pairs, float]:
    """Ours beside the script, and the median of what `import torch, lightning` takes in the same turns."""
    found, imports = Pairs("`python -m src.train`", "a script that takes the same step"), []
    for turn in range(pairs + 1):
        with tempfile.TemporaryDirectory() as folder:
            ours = seconds([sys.executable, "-m", "src.train", *_END, f"hydra.run.dir={folder}/run", *train])
        rival, imported = (seconds([sys.executable, "-c", code]) for code in (_RIVAL, _IMPORTS))
        if turn:  # the first finds nothing in the system's memory
            found.add(ours, rival)
            imports.append(imported)
    return found, statistics.median(imports)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what ours is told")
    parser.add_argument("--pairs", type=int, default=5, help="after a first that does not count")
    given = parser.parse_args()
    found, imports = first_step(given.pairs, given.overrides)
    print(found.words())
    print(f"import torch, lightning: {imports:.2f} s of CPU")


if __name__ == "__main__":
    main()
