"""Named random streams: everything random is a function of the run's seed and of what it is for."""

from __future__ import annotations

import hashlib


def derive(seed: int, *keys: int | str) -> int:
    """A 63-bit seed for the stream named by `keys`, e.g. `derive(seed, "sample", epoch, index)`.

    It is a hash, not a sum, so neighbouring seeds, epochs and indices give unrelated streams; and it is stable over
    processes, platforms and Python versions.
    """
    text = "/".join(f"{type(key).__name__}:{key}" for key in (seed, *keys))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
