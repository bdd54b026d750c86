"""Errors that a user can mend, and the stop that a user asked for."""

import errno
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

_WORKER_MARK = "Original Traceback"
_WORKER_LOST = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (is killed by signal: [\w ]+|exited unexpectedly)"
)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What stands between a user and a file, and the mend.
_OF_FILES = {
    **dict.fromkeys(_FULL, "the disk or quota is full; make room, or take another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "take a folder that you may write to"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
        "a file stands where a folder should be, or the other way round; give another name",
    ),
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "check the name; no folder can be made there",
    errno.ELOOP: "the links lead nowhere; name the file itself",
}
_SHOWN = 120  # characters of a name
_ABSENT = re.compile(r"(?:Module not found: |Requirement |No module named )'([\w.-]+)")


class UserError(Exception):
    """Something in the config, the data or a file that the user can mend.

    The message names the key or file, what is wrong and the mend, on one or two lines. Entry points print it without a
    traceback and exit with status 2 (`HYDRA_FULL_ERROR=1` shows the traceback).
    """

    def __init__(self, message: str) -> None:
        # A data loader's worker re-raises with the whole remote traceback as the message: keep the user's part.
        if _WORKER_MARK in message:
            message = message.rstrip().rpartition(f"{type(self).__name__}: ")[2]
        super().__init__(message)


class NonFiniteLoss(UserError):
    """The training loss became NaN or infinite."""


class Pruned(Exception):
    """The search that the run is a trial of has seen enough of it."""


class Interrupted(Exception):
    """The run was asked to stop by the signal that the message names."""


def disk_full(error: BaseException | None, folder: Path) -> UserError | None:
    """What to tell if an error, or one that led to it, comes of a disk or quota that is full; else None."""
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _FULL:
            where = f" (writing {cause.filename})" if cause.filename else ""
            return UserError(
                f"the disk or quota of {folder} is full{where}; make room, then go on from the last good checkpoint with: "
                f"python -m src.train resume={folder}"
            )
    return None


def out_of_memory(error: BaseException | None, folder: Path) -> UserError | None:
    """What to tell if an error, or one that led to it, comes of memory that ran out, the GPU's or that of a loader's worker,
    which the system then kills; else None."""
    for cause in _chain(error):
        if type(cause).__name__ == "OutOfMemoryError":  # torch's
            return UserError(
                f"the GPU's memory is full ({str(cause).partition('. ')[0]}); start anew with a smaller data.batch_size or "
                "data.crop, with trainer.precision=bf16-mixed, or with more trainer.accumulate_grad_batches to fewer images"
            )
        lost = _WORKER_LOST.search(str(cause))
        cut = isinstance(cause, ConnectionError | EOFError) and any(
            "torch/utils/data" in frame.filename for frame in traceback.extract_tb(cause.__traceback__)
        )
        if lost or cut:
            how = lost[1] if lost else cause
            return UserError(
                f"a process that loads data was lost ({how}), most likely for want of memory or of /dev/shm; go on with "
                f"fewer: python -m src.train resume={folder} data.num_workers=…"
            )
    return None


def of_a_file(error: BaseException | None) -> UserError | None:
    """What to tell if an error comes of a file or folder that cannot be read or written: no room, no permission, a name that
    is too long, a file where a folder should be; else None."""
    for cause in _chain(error):
        told = isinstance(cause, OSError) and (cause.errno in _FULL or (cause is error and cause.errno in _OF_FILES))
        if told and isinstance(cause, OSError) and cause.errno is not None:
            name = os.fsdecode(cause.filename) if isinstance(cause.filename, str | bytes | os.PathLike) else ""
            shown = name if len(name) <= _SHOWN else f"{name[: _SHOWN // 2]}…{name[-_SHOWN // 2 :]}"
            what = f"{shown}: cannot be read or written" if name else "a file cannot be written"
            return UserError(f"{what} ({os.strerror(cause.errno)}); {_OF_FILES[cause.errno]}")
    return None


def absent_package(error: BaseException | None) -> UserError | None:
    """What to tell if an error comes of a package that is not installed, e.g. a logger's; else None."""
    for cause in _chain(error):
        if isinstance(cause, ModuleNotFoundError):
            found = _ABSENT.search(str(cause))
            package = (cause.name or (found[1] if found else "")).partition(".")[0]
            if package and package != "src":
                return UserError(
                    f"the package {package} is needed for this and is not installed; pip install {package}"
                )
    return None


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error says that memory, the computer's or the GPU's, was asked for and not there."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's
        or (isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text))
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
