import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from src.api import Segmentation as Segmentation
    from src.api import TrainedSegmenter as TrainedSegmenter
    from src.api import load as load

# Whatever library opens a file for us, in this process or its workers: tensors and plain data only, no pickled code.
os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
# On a core that another process uses too, torch's threads (GNU OpenMP's) burn their time waiting for one another: two runs
# side by side took more than ten times as long as one, and take 1.7 times (benchmarks/side_by_side.py). Alone, waiting only
# shortly costs a few percent. Read when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> object:
    """`from src import load`, or a class of what it gives (see `src.api`), which imports torch only then."""
    if name in ("load", "Segmentation", "TrainedSegmenter"):
        from src import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
