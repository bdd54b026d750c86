"""`in_order` works on many samples in threads, and gives the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
_AHEAD = 64  # results that may wait to be taken: memory stays bounded, however long the list


def in_order(function: Callable[[int], Result], indices: Iterable[int]) -> Iterator[Result]:
    """The function's results, in order, computed in threads a little ahead (decoders let other threads run)."""
    with ThreadPoolExecutor() as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for index in indices:
                waiting.append(pool.submit(function, index))
                if len(waiting) == _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
