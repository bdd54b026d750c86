"""What a sweep says while it runs: a line when a job starts and ends and, on a terminal, a live one for each that runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from src.files.untrusted import open_regular, shown
from src.sweep.process import STDERR, STDOUT
from src.sweep.record import Job, Record

_TAIL_BYTES = 4096
_SECONDS_BETWEEN_LOOKS = 1.0


class SweepConsole:
    """Prints for one sweep; a context, within which the live lines stand."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._looked = 0.0

    def __enter__(self) -> SweepConsole:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def started(self, job: Job) -> None:
        where = f" on {','.join(job.devices)}" if job.devices else ""
        self.say(f"#{job.number} started{where}: {' '.join(self._record.differing(job)) or 'no overrides'}")

    def ended(self, job: Job) -> None:
        text = f"#{job.number} {job.status} after {job.seconds or 0:.0f} s"
        if job.value is not None:
            text += f": {self._record.metric} {job.value:.4f}"
        if job.status == "failed":
            text += f": {job.error} ({self._record.folder / job.folder / STDERR})"
        self.say(text)

    def say(self, text: str) -> None:
        self._console.print(Text(shown(text, 2000)))

    def table(self) -> None:
        self._console.print(self._record.table(), soft_wrap=False)

    def look(self, running: list[Job]) -> None:
        """Shows the newest line that each running job said."""
        if self._live.is_started and time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            self._looked = time.monotonic()
            lines = [f"#{job.number} {_newest_line(self._record.folder / job.folder / STDOUT)}" for job in running]
            self._live.update(Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines)), refresh=True)


def _newest_line(file: Path) -> str:
    try:
        with open_regular(file) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return "…"
    return next((shown(line.strip()) for line in reversed(lines) if line.strip()), "…")
