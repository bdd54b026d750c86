"""`chunk_order` shuffles training samples so that few chunks are in use at a time."""

from __future__ import annotations

import torch
from torch import Tensor


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
