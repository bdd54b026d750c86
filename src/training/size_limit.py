"""How large a network a checkpoint may describe: no larger than its own weights could fill."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from pathlib import Path

from src.distributed.library_internals import before_each_operation
from src.errors import UserError

# What may be made of a checkpoint's description beside its weights: a library's classifier that is cut off again, say.
_ROOM, _ROOM_CALLS = 200_000_000, 100_000


def no_larger_than(file: Path) -> AbstractContextManager[object]:
    """Within it no network is made that the weights in a checkpoint could not fill."""
    return before_each_operation(_AtMost(_ROOM + file.stat().st_size, _ROOM_CALLS))


class _AtMost:
    """Refuses to make more numbers than the weights of a file could fill: it may describe a network of terabytes."""

    def __init__(self, numbers: int, calls: int) -> None:
        self.numbers, self.calls = numbers, calls

    def __call__(self, args: tuple[object, ...]) -> None:
        if args and isinstance(args[0], list | tuple) and all(isinstance(side, int) for side in args[0]):
            self.numbers -= math.prod(args[0])  # of torch.empty and the like, before they make it
            self.calls -= 1
        if self.numbers < 0 or self.calls < 0:
            raise UserError("describes a network that is far larger than the weights it has; refused")
