"""Large libraries are imported without the garbage collector's looking through them again and again."""

from __future__ import annotations

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def importing_torch() -> Iterator[None]:
    """Imports what needs torch and Lightning: what they make stays, and to look for garbage among it meanwhile takes an eighth
    of the time (benchmarks/first_step.py). Where torch is there already nothing is gained, and nothing done."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # or the first look after would be at all of it
        atexit.register(gc.unfreeze)  # what is frozen is never freed, and triton's bindings print that as leaks
        gc.enable()
