"""Curves and pictures out of TensorBoard's event files.

TensorBoard's own reader computes every record's checksum in Python, which takes seconds a run where there are pictures;
a broken record is told here by its length or by its not being an event.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("<Q4x")  # a record's length and its checksum; another checksum follows the record
_FOOTER = 4
Place = tuple[Path, int, int]  # a record: file, offset, length


@dataclass
class Events:
    """What a run has logged so far.

    Attributes:
        scalars: by tag, the value at each step; steps that a resumed run took again have the newer value.
        pictures: by tag, the step and the place of the newest picture.
        seconds: that were spent logging it, without the pauses between files.
    """

    scalars: dict[str, dict[int, float]] = field(default_factory=dict)
    pictures: dict[str, list[tuple[int, Place]]] = field(default_factory=dict)
    seconds: float = 0.0


def read(folder: Path) -> Events:
    """All event files of a folder; what cannot be read (a file cut off by a kill, say) ends its file quietly."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    events = Events()
    for file in sorted(folder.glob("events.out.tfevents.*")):
        times: list[float] = []
        for place, record in _records(file):
            try:
                event = Event.FromString(record)
            except Exception:  # protobuf's own error class differs between its implementations
                break
            times.append(event.wall_time)
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                _forget_from(events, event.step)  # a resumed run takes these steps again
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    events.scalars.setdefault(value.tag, {})[event.step] = value.simple_value
                elif value.HasField("image"):
                    events.pictures.setdefault(value.tag, []).append((event.step, place))
        events.seconds += max(times) - min(times) if times else 0.0
    return events


def picture(events: Events, tag: str) -> bytes | None:
    """The newest picture under a tag as the bytes of its file (PNG)."""
    from tensorboard.compat.proto.event_pb2 import Event

    if not events.pictures.get(tag):
        return None
    file, offset, length = events.pictures[tag][-1][1]
    with file.open("rb") as stream:
        stream.seek(offset)
        event = Event.FromString(stream.read(length))
    return next((bytes(v.image.encoded_image_string) for v in event.summary.value if v.tag == tag), None)


def curve(events: Events, tag: str, points: int = 200) -> list[tuple[float, float]]:
    """Steps and finite values under a tag, in order; of more than `points`, means over neighbours."""
    values = [(step, value) for step, value in sorted(events.scalars.get(tag, {}).items()) if math.isfinite(value)]
    size = math.ceil(len(values) / points) or 1
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    return [(sum(s for s, _ in part) / len(part), sum(v for _, v in part) / len(part)) for part in parts]


def _records(file: Path) -> Iterator[tuple[Place, bytes]]:
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            while len(header := stream.read(_HEADER.size)) == _HEADER.size:
                (length,) = _HEADER.unpack(header)
                offset = stream.tell()
                if offset + length + _FOOTER > size:
                    return
                yield (file, offset, length), stream.read(length)
                stream.seek(_FOOTER, 1)
    except OSError:
        return


def _forget_from(events: Events, step: int) -> None:
    kept: dict[str, Any] = {}
    for tag, values in events.scalars.items():
        kept[tag] = {s: v for s, v in values.items() if s < step}
    events.scalars = kept
    events.pictures = {tag: [p for p in shown if p[0] < step] for tag, shown in events.pictures.items()}
