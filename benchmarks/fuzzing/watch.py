"""Runs a command in a fork with limits, and reports what it does that no command should."""

from __future__ import annotations

import contextlib
import os
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

SECONDS, FILE_SIZE = 60, 1 << 30
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
    "shutil.move",
)
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
_QUIET_DEVICES = ("/dev/null", "/dev/full", "/dev/shm", "/proc/self")


def run_limited(chosen: list[str], at: Path, allowed: list[Path], memory: int) -> tuple[int, float, set[str]]:
    """Runs a command in a fork of this process; its status, peak memory beyond this process's, what it did."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _be_the_command(chosen, at, allowed, writes, memory)
    os.close(writes)
    end = time.monotonic() + 2 * SECONDS
    while True:
        pid, status, used = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it left running
    with os.fdopen(reads, "rb") as stream:
        events = {line for line in stream.read().decode(errors="replace").splitlines() if line}
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return os.waitstatus_to_exitcode(status), max(0, used.ru_maxrss - own) / 1024, events


def _be_the_command(chosen: list[str], at: Path, allowed: list[Path], report: int, memory: int) -> None:
    """In the fork: the limits, the watch, then the command as `python -m` would start it. Does not return."""
    status = 70
    try:
        os.setpgid(0, 0)
        os.chdir(at / "work")
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(at / name, os.O_WRONLY | os.O_CREAT), number)
        os.environ |= {"HOME": str(at / "home"), "XDG_CACHE_HOME": str(at / "home"), "TMPDIR": str(at / "tmp")}
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(at / "home/inductor")
        tempfile.tempdir = None
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * (memory << 20),) * 2)
        _watch([str(folder.resolve()) for folder in allowed], report)
        sys.argv = [chosen[0], *chosen[1:]]
        status = 0
        runpy.run_module(chosen[0], run_name="__main__")
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _watch(allowed: list[str], report: int) -> None:
    """Reports what this process does that no command should: Python tells before it happens (PEP 578)."""
    at_work = [False]

    def tell(text: str) -> None:
        os.write(report, (" ".join(text.split())[:300] + "\n").encode(errors="replace"))

    def outside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        real = os.path.realpath(os.fsdecode(path))
        inside = any(real == folder or real.startswith(f"{folder}/") for folder in allowed)
        return not inside and not real.startswith(_QUIET_DEVICES) and "__pycache__" not in real

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if at_work[0]:
            return
        at_work[0] = True
        try:
            if event == "open":
                path, mode, flags = arguments
                writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITES)
                if writes and outside(path):
                    tell(f"outside: opens {path!r} to write")
            elif event in _CHANGES:
                for path in arguments[:2]:
                    if outside(path) and not (event in ("os.link", "os.symlink") and path is arguments[0]):
                        tell(f"outside: {event} {path!r}")
            elif event in _PROGRAMS:
                program = arguments[1] if event == "subprocess.Popen" else arguments[0]
                if "src.train" not in str(program):  # the jobs of a sweep
                    tell(f"program: {event} {program!r}")
            elif event in _NETWORK and not (event == "socket.connect" and isinstance(arguments[1], str | bytes)):
                tell(f"network: {event} {arguments!r}")
        finally:
            at_work[0] = False

    sys.addaudithook(hook)
