"""Errors that a user can mend, and the stop that a user asked for."""

import errno
from pathlib import Path

_WORKER_MARK = "Original Traceback"


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


class Interrupted(Exception):
    """The run was asked to stop by the signal that the message names."""


def disk_full(error: BaseException | None, folder: Path) -> UserError | None:
    """What to tell if an error, or one that led to it, comes of a disk or quota that is full; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            where = f" (writing {error.filename})" if error.filename else ""
            return UserError(
                f"the disk or quota of {folder} is full{where}; make room, then go on from the last good checkpoint with: "
                f"python -m src.train resume={folder}"
            )
        error = error.__cause__ or error.__context__
    return None
