"""The signals that end a run: what they raise while nothing is being trained, and what a loader's workers make of them."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from src.errors import Interrupted

# Ctrl-C; scancel, preemption, torchrun's agent; SLURM's warning before the time limit (`#SBATCH --signal=USR1@120`)
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise Interrupted at once, while nothing is being trained (a trainer that fits replaces them);
    what Lightning makes of Ctrl-C becomes Interrupted too."""

    def stop(number: int, _: FrameType | None) -> None:
        for repeated in before:  # schedulers repeat themselves
            signal.signal(repeated, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS if here and number != signal.SIGINT}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("SIGINT") from None
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise Interrupted("SIGINT") from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def outlive_signals(_: int) -> None:
    """In a loader's worker: Ctrl-C, scancel and SLURM's warning reach every process, and the run still finishes its batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "win32":
        return
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(120))  # which ends it, should nobody else
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
