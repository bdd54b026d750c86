"""Curves and pictures out of TensorBoard's event files.

TensorBoard's own reader computes every record's checksum in Python, which takes seconds a run where there are pictures;
a broken record is told here by its length or by its not being an event. The files may be a stranger's: none is a link, and
what is kept of them is bounded.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.files.untrusted import inside, open_regular, shown

_HEADER = struct.Struct("<Q4x")  # a record's length and its checksum; another checksum follows the record
_FOOTER = 4
_LARGEST = 64 << 20  # bytes of a record: a picture
_MOST = 3_000_000  # values of a run
Place = tuple[Path, int, int]  # a record: file, offset, length


@dataclass
class Events:
    """What a run has logged so far.

    Attributes:
        scalars: by tag, the value at each step; steps that a resumed run took again have the newer value.
        pictures: by tag, the step and the place of the newest picture.
        seconds: that were spent logging it, without the pauses between files.
        problems: what was not read, and why, a line each.
    """

    scalars: dict[str, dict[int, float]] = field(default_factory=dict)
    pictures: dict[str, list[tuple[int, Place]]] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def read(folder: Path) -> Events:
    """All event files of a folder; what cannot be read (a file cut off by a kill, say) ends its file quietly."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    events, left = Events(), _MOST
    for file in _files(folder, events.problems):
        first, last = math.inf, -math.inf
        for place, record in _records(file, events.problems):
            try:
                event = Event.FromString(record)
            except Exception:  # protobuf's own error class differs between its implementations
                break
            left -= max(1, len(event.summary.value))
            if left < 0:
                events.problems.append(
                    f"{file}: more than {_MOST:,} values of this run were logged; the rest is left out"
                )
                return events
            if math.isfinite(event.wall_time):
                first, last = min(first, event.wall_time), max(last, event.wall_time)
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                _forget_from(events, event.step)  # a resumed run takes these steps again
            for value in event.summary.value:
                tag = shown(value.tag)
                if value.HasField("simple_value"):
                    events.scalars.setdefault(tag, {})[event.step] = value.simple_value
                elif value.HasField("image"):
                    events.pictures.setdefault(tag, []).append((event.step, place))
        events.seconds += max(0.0, last - first)
    return events


def picture(events: Events, tag: str) -> bytes | None:
    """The newest picture under a tag as the bytes of its file (PNG)."""
    from tensorboard.compat.proto.event_pb2 import Event

    if not events.pictures.get(tag):
        return None
    file, offset, length = events.pictures[tag][-1][1]
    with open_regular(file) as stream:
        stream.seek(offset)
        event = Event.FromString(stream.read(length))
    return next((bytes(v.image.encoded_image_string) for v in event.summary.value if shown(v.tag) == tag), None)


def curve(events: Events, tag: str, points: int = 200) -> list[tuple[float, float]]:
    """Steps and finite values under a tag, in order; of more than `points`, means over neighbours."""
    values = [(step, value) for step, value in sorted(events.scalars.get(tag, {}).items()) if math.isfinite(value)]
    size = math.ceil(len(values) / points) or 1
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    return [(sum(s for s, _ in part) / len(part), sum(v for _, v in part) / len(part)) for part in parts]


def _files(folder: Path, problems: list[str]) -> list[Path]:
    """Event files in the order of their names, which begin with the time."""
    try:
        names = [entry.name for entry in os.scandir(inside(folder.parent, folder.name))]
    except UserError as error:
        problems.append(str(error))
        return []
    except OSError:
        return []
    return [folder / name for name in sorted(names) if name.startswith("events.out.tfevents.")]


def _records(file: Path, problems: list[str]) -> Iterator[tuple[Place, bytes]]:
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            while len(header := stream.read(_HEADER.size)) == _HEADER.size:
                (length,) = _HEADER.unpack(header)
                offset = stream.tell()
                if not 0 < length <= size - offset - _FOOTER:
                    return
                if length > _LARGEST:
                    problems.append(f"{file}: has a record of {length:,} bytes; it and what follows are left out")
                    return
                yield (file, offset, length), stream.read(length)
                stream.seek(_FOOTER, os.SEEK_CUR)
    except UserError as error:
        problems.append(str(error))
    except OSError:
        return


def _forget_from(events: Events, step: int) -> None:
    kept: dict[str, Any] = {}
    for tag, values in events.scalars.items():
        kept[tag] = {s: v for s, v in values.items() if s < step}
    events.scalars = kept
    events.pictures = {tag: [p for p in shown if p[0] < step] for tag, shown in events.pictures.items()}
