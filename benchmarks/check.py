"""Names the rows of docs/benchmarks.json that are worse than in the last committed table, by more than a tenth.

    python benchmarks/check.py [--beside HEAD] [--by 0.1]

Ends with 1 where there is one. Ratios are compared, ours over the rival's, so that another machine counts for less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILE = "docs/benchmarks.json"
Rows = Mapping[str, Mapping[str, Any]]


def worse(now: Rows, before: Rows, by: float) -> list[str]:
    """What to say of each row whose ratio has grown by more than the share `by`, or that is there no more."""
    said = []
    for name, row in before.items():
        if name not in now:
            said.append(f"{name}: was {row['ratio']:.3f}, and is not in the table any more")
        elif now[name]["ratio"] > row["ratio"] * (1 + by):
            grown = now[name]["ratio"] / row["ratio"] - 1
            said.append(f"{name}: {now[name]['ratio']:.3f} of {row['rival']}, was {row['ratio']:.3f} ({grown:+.0%})")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", default="HEAD", help="the commit whose table is the measure")
    parser.add_argument("--by", type=float, default=0.1, help="the share by which a ratio may grow")
    asked = parser.parse_args()
    command = ["git", "show", f"{asked.beside}:{FILE}"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if shown.returncode:
        sys.exit(f"error: no table in {asked.beside} ({shown.stderr.strip()})")
    now = json.loads((ROOT / FILE).read_text(encoding="utf-8"))
    said = worse(now, json.loads(shown.stdout), asked.by)
    print("\n".join(said) or "no row is worse by more than " + f"{asked.by:.0%}")
    sys.exit(1 if said else 0)


if __name__ == "__main__":
    main()
