"""The one kind of error that a user can mend."""

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
