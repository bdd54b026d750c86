"""CPU seconds of a training step of a whole run over those of a bare PyTorch loop, which does the same work.

    python benchmarks/step.py                                           # the default network and data
    python benchmarks/step.py model=gan                                 # two optimizers
    python benchmarks/step.py experiment=camvid_cnn data.root=path/to/camvid --cycles 4 --log-every 5

The bare loop has the run's loader, networks, loss, optimizers, schedules and moving average, and nothing else: it logs nothing,
clips nothing, saves nothing. The two go in turns, step by step, in one process; a step of the run is all that happens between
the beginning of one batch and that of the next, logging included. In the end both have the same weights to the bit, or the
comparison is refused: it would not be one of the same work.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import torch

from benchmarks.bare import whole_over_bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the run, e.g. model=gan")
    parser.add_argument("--cycles", type=int, default=16, help="how often it goes from one logged step to the next")
    parser.add_argument("--log-every", type=int, default=10, help="steps of these")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    found = whole_over_bare(asked.overrides, asked.cycles, asked.log_every)
    print(found.words())
    print(json.dumps(found.row(), indent=1))


if __name__ == "__main__":
    main()
