"""`chunk_order` shuffles training samples so that few chunks are in use at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from src.data.disk_cache import OnDisk
from src.data.sources import Chunked, InMemory, Source


def order_of(source: Source, batch_size: int) -> Callable[[torch.Generator], Tensor] | None:
    """`chunk_order` of a source in chunks, cached or not, as a function of a generator; None where samples lie apart."""
    inner = source.source if isinstance(source, InMemory | OnDisk) else source
    if not isinstance(inner, Chunked):
        return None
    return functools.partial(chunk_order, torch.from_numpy(inner.chunk_sizes), inner.window, batch_size)


def chunk_order(sizes: Tensor, window: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """A permutation of all samples, to be cut into batches of `batch_size`.

    The chunks are walked through in random order, `window` of them at a time, whose samples are shuffled together. The walk
    is cut into as many stretches as a batch has places, and each place is filled out of its own stretch. So neighbours in a
    chunk are in different batches; a device that takes some of the places reads their stretches only, whatever the number
    of devices; and what makes up a batch depends on none of that.

    Args:
        sizes: samples of each chunk, int64 [chunks]; chunk after chunk they are samples 0, 1, ….
        window: chunks shuffled together.
        batch_size: places of a global batch.

    Returns:
        int64 [samples]; what does not fill a batch comes last.
    """
    begins = sizes.cumsum(0) - sizes
    walk: list[Tensor] = []
    chunks = torch.randperm(len(sizes), generator=generator).tolist()
    for first in range(0, len(chunks), window):
        members = chunks[first : first + window]
        together = torch.cat([torch.arange(int(begins[c]), int(begins[c] + sizes[c])) for c in members])
        walk.append(together[torch.randperm(len(together), generator=generator)])
    order = torch.cat(walk) if walk else torch.empty(0, dtype=torch.int64)
    batches = len(order) // batch_size
    full = batches * batch_size
    return torch.cat([order[:full].view(batch_size, batches).T.reshape(-1), order[full:]])
