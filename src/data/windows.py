"""Covers an image too large for memory with windows, each pixel kept once."""

from __future__ import annotations

from dataclasses import dataclass

# No torch here: commands read these before they load it.
SIDE = 1024  # of a window where none is asked for
OVERLAP = 128  # pixels that neighbours share where nothing is asked for
WHOLE = 4096 * 4096  # the most pixels of a photo that is taken as a whole where no window is asked for


@dataclass(frozen=True)
class Window:
    """Rows `top` to `top + height` and columns `left` to `left + width` of a scene."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Part:
    """A window that is read, and the part of it that is kept: the rest is margin that neighbours keep."""

    read: Window
    keep: Window  # in the scene's pixels


def parts(height: int, width: int, side: int, overlap: int) -> list[Part]:
    """Windows of at most `side` pixels that share `overlap` pixels with their neighbours; each pixel is kept once, from
    the window in which it lies farther inside."""
    rows, columns = _spans(height, side, overlap), _spans(width, side, overlap)
    return [
        Part(Window(r0, c0, r1 - r0, c1 - c0), Window(kr0, kc0, kr1 - kr0, kc1 - kc0))
        for r0, r1, kr0, kr1 in rows
        for c0, c1, kc0, kc1 in columns
    ]


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Start and end of what is read and of what is kept. Starts are multiples of `side - overlap`."""
    step = side - overlap
    starts = range(0, max(1, length - overlap), step)
    margin = overlap // 2
    return [
        (
            start,
            min(start + side, length),
            start + margin if start else 0,
            length if start == starts[-1] else start + side - margin,
        )
        for start in starts
    ]
