"""The processes of a run on many devices end together: when one dies, all do, with that one's own message.

Each rank holds a TCP connection to rank zero for as long as it lives. The kernel closes it however the rank ends, so an
end is noticed at once and never by mistake, also while the others hang in a collective; a rank that fails says why on it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import lightning as L
import torch.distributed as dist

from src.distributed.connections import keep_alive, next_message, say
from src.distributed.library_internals import observe_launched
from src.errors import Interrupted, Pruned, UserError, disk_full

_log = logging.getLogger(__name__)
_PARENT = "PIXELWISE_PARENT"  # the process that launched this one
_SECONDS_TO_CONNECT = 60
_ECHOES = re.compile(r"gloo|nccl|connection (was )?(closed|reset)|broken pipe|process group", re.IGNORECASE)


@dataclass(frozen=True)
class End:
    """How a rank ended: in words, with which exit status, and whether only because another one had."""

    rank: int
    words: str
    status: int = 1
    echo: bool = False


class RankSupervisor(L.Callback):
    """Watches over the processes of a run, between `with` and its end.

    Args:
        report: told once, in one process, with the message and the exit status, when the run ends early. In a run of one
            process it is told of the error that leaves the `with` block.
    """

    def __init__(self, report: Callable[[str, int], None]) -> None:
        self._report = report
        self._rank = 0
        self._lines: list[socket.socket] = []  # to rank zero, or from it to the others
        self._ends = queue.SimpleQueue[End]()
        self._children: list[subprocess.Popen[bytes]] = []
        self._connected, self._over = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            self._thread(self._end_with, os.getppid())
        elif int(os.environ.get("LOCAL_RANK", "0")) > 0:
            self._thread(self._end_with, int(os.environ.get(_PARENT, os.getppid())))
        else:
            os.environ[_PARENT] = str(os.getpid())
            observe_launched(self._watch_children)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self._part()
            return
        if self._lines:
            self._fail(error)
        self._report(*in_words(error))  # alone, or before the processes know each other

    def _fail(self, error: BaseException) -> NoReturn:
        """Has rank zero end all processes, this one too."""
        words, status = in_words(error)
        end = End(self._rank, words, status, echo=_is_echo(error))
        if not end.echo and status == 1:
            traceback.print_exception(error)
        if self._rank == 0:
            self._ends.put(end)
        else:
            say(self._lines[0], asdict(end))
        time.sleep(20)
        self._leave(status)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """At once, since Lightning's clean-up may wait for ranks that have gone; what the run itself handles waits."""
        expected = isinstance(exception, UserError | Interrupted | Pruned | KeyboardInterrupt | OSError)
        if self._lines and not expected and disk_full(exception, Path()) is None:
            self._fail(exception)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Connects the ranks, once their process group is there."""
        if trainer.world_size == 1 or self._lines:
            return
        self._rank = trainer.global_rank
        own = trainer.num_nodes == 1
        server = None
        if self._rank == 0:
            server = socket.create_server(("127.0.0.1" if own else "", 0), backlog=trainer.world_size)
        host = "127.0.0.1" if own else os.environ["MASTER_ADDR"]
        told = (host, server.getsockname()[1] if server else 0, secrets.token_hex())
        host, port, token = trainer.strategy.broadcast(told)  # what rank zero says
        if server is not None:
            self._accept(server, token, trainer.world_size - 1)
            self._thread(self._judge)
        else:
            self._connect(host, port, token)
        self._connected.set()
        if hasattr(os, "register_at_fork"):
            for line in self._lines:
                os.register_at_fork(after_in_child=line.close)  # a loader's worker must not keep it open

    def _accept(self, server: socket.socket, token: str, count: int) -> None:
        until = time.monotonic() + _SECONDS_TO_CONNECT
        with server:
            while len(self._lines) < count and (left := until - time.monotonic()) > 0:
                server.settimeout(left)
                try:
                    line, _ = server.accept()
                    line.settimeout(5)
                except OSError:
                    continue
                hello = next_message(line) or {}
                line.settimeout(None)
                if not secrets.compare_digest(str(hello.get("token")), token):
                    line.close()
                    continue
                keep_alive(line)
                self._lines.append(line)
                self._thread(self._listen_to, line, int(hello["rank"]), str(hello["host"]))
        if len(self._lines) < count:
            _log.warning("%d of %d ranks cannot be watched: no connection", count - len(self._lines), count)

    def _connect(self, host: str, port: int, token: str) -> None:
        try:
            line = socket.create_connection((host, port), timeout=_SECONDS_TO_CONNECT)
        except OSError as error:
            _log.warning("rank %d is not watched: no connection to %s:%d (%s)", self._rank, host, port, error)
            return
        line.settimeout(None)
        keep_alive(line)
        say(line, {"token": token, "rank": self._rank, "host": socket.gethostname()})
        self._lines.append(line)
        self._thread(self._listen_to_zero, line)

    def _listen_to(self, line: socket.socket, rank: int, host: str) -> None:
        """In rank zero: waits for the end of another rank."""
        said = next_message(line)
        if self._over.is_set() or (said and said.get("words") == ""):
            return
        if said:
            self._ends.put(End(**said))
            return
        child = self._children[rank - 1] if len(self._children) >= rank else None
        self._ends.put(End(rank, _died(rank, host, child)))

    def _listen_to_zero(self, line: socket.socket) -> None:
        said = next_message(line)
        if self._over.is_set() or (said and said.get("words") == ""):
            return
        if not said and self._rank == 1:
            words = _died(0, os.environ.get("MASTER_ADDR", "its node"))
            print(f"error: {words}", file=sys.stderr, flush=True)
            self._report(words, 1)
        self._leave(said["status"] if said else 1)

    def _judge(self) -> None:
        """In rank zero: at the first end, finds out which rank ended by itself, says so and ends them all."""
        ends = [self._ends.get()]
        until = time.monotonic() + 1
        while (left := until - time.monotonic()) > 0:
            try:
                ends.append(self._ends.get(timeout=left))
            except queue.Empty:
                break
            if all(end.echo for end in ends):
                until = time.monotonic() + 3
        asked = (end for end in ends if end.status == 130)
        cause = next(asked, next((end for end in ends if not end.echo), ends[0]))
        told = cause.words if cause.status == 2 or "rank " in cause.words else f"rank {cause.rank}: {cause.words}"
        print(f"error: {told}", file=sys.stderr, flush=True)
        self._report(told, cause.status)
        for line in self._lines:
            say(line, asdict(cause))
        self._leave(cause.status)

    def _watch_children(self, child_processes: list[subprocess.Popen[bytes]]) -> None:
        """Ends the run when a process that Lightning started ends before the ranks are connected."""
        self._children = children = child_processes

        def watch() -> None:
            while not self._over.is_set() and not self._connected.is_set():
                for rank, child in enumerate(children, start=1):
                    if child.poll():
                        words = f"{_died(rank, socket.gethostname(), child)} while the run was starting"
                        print(f"error: {words}", file=sys.stderr, flush=True)
                        if child.returncode < 0:  # else it has said so itself
                            self._report(words, 1)
                        self._leave(max(1, child.returncode))
                self._over.wait(0.2)

        self._thread(watch)

    def _part(self) -> None:
        """The end of a run that went well: each rank says that it needs no others any more."""
        self._over.set()
        for line in self._lines:
            say(line, asdict(End(self._rank, "", 0)))
        for child in self._children:
            try:
                child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                child.kill()

    def _leave(self, status: int) -> NoReturn:
        """Ends this process, hanging or not, with its loaders' workers and with the ranks that it started."""
        time.sleep(0.2)  # for what another thread is printing
        for child in self._children:
            child.kill()
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(status)

    def _end_with(self, parent: int) -> None:
        while os.getppid() == parent:
            if self._over.wait(1):
                return
        time.sleep(3)  # rank zero may have told why
        self._leave(1)

    @staticmethod
    def _thread(function: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=function, args=arguments, daemon=True).start()


def in_words(error: BaseException) -> tuple[str, int]:
    """An error's message as it is recorded, and the exit status that it ends the run with."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, Interrupted):
        return f"interrupted ({error})", 130
    return f"{type(error).__name__}: {error}", 1


def _is_echo(error: BaseException) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and bool(_ECHOES.search(str(error))))


def _died(rank: int, host: str, child: subprocess.Popen[bytes] | None = None) -> str:
    try:
        status = child.wait(timeout=2) if child else None
    except subprocess.TimeoutExpired:
        status = None
    if status is not None and status < 0:
        return f"rank {rank} was killed ({signal.Signals(-status).name})"
    return f"rank {rank} on {host} died" + (f" with exit status {status}" if status else ": killed, or out of memory")
