"""CPU seconds of a training step of a whole run over those of a bare PyTorch loop, which does the same work.

    python benchmarks/step.py                                           # the default network and data
    python benchmarks/step.py model=gan                                 # two optimizers
    python benchmarks/step.py experiment=camvid_cnn data.root=path/to/camvid --block 4 --pairs 8

The bare loop has the run's loader, network, loss, optimizers, schedules and moving average, and nothing else: it logs nothing,
clips nothing, saves nothing. The two go in turns, so many steps of one and as many of the other, in one process; a step of the
run is all that happens between the beginning of one batch and that of the next, logging included. In the end both have the same
weights to the bit, or the comparison is refused: it would not be one of the same work.
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
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--block", type=int, default=10, help="steps of a turn; as many as lie between two logged ones")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    found = whole_over_bare(asked.overrides, asked.pairs, asked.block)
    print(found.words())
    print(json.dumps(found.row(), indent=1))


if __name__ == "__main__":
    main()
