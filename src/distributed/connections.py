"""What the ranks of a run say to one another over TCP, beside the collectives: a line of JSON a message."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any


def say(line: socket.socket, what: dict[str, object]) -> None:
    """Sends a message, if the other process is still there."""
    with contextlib.suppress(OSError):  # it may have gone
        line.sendall(json.dumps(what).encode() + b"\n")


def next_message(line: socket.socket) -> dict[str, Any] | None:
    """The next message; None where the other process is gone."""
    text = b""
    try:
        while not text.endswith(b"\n"):
            if not (more := line.recv(4096)):
                return None
            text += more
        return dict(json.loads(text))
    except (OSError, ValueError, TypeError):
        return None


def keep_alive(line: socket.socket) -> None:
    """Lets the kernel notice within a quarter of a minute that a machine has gone without closing its connections."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
