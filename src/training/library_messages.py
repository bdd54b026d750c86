"""What libraries say of themselves is kept from the screen; what a user can act on is not."""

from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path

from src.errors import disk_full


def quiet() -> None:
    """One line once: Lightning's own handler would print each message again, and some tell what is meant to be so."""
    expected = ("💡", "available: ", "stopped: `max_", "was configured so", "LOCAL_RANK: ")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",
        "lightning.fabric.utilities.rank_zero",
    ):
        logging.getLogger(name).addFilter(lambda record: not any(text in record.getMessage() for text in expected))
    # Lightning's call of a part of torch that torch renames; nothing a user could mend.
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")  # the datamodule knows its position
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")  # the average, frozen batch norms
    warnings.filterwarnings("ignore", message=".*does not have many workers")  # samples may be in memory already
    warnings.filterwarnings("ignore", message=".*sync_dist=True")  # the figures logged are those of all devices already
    logging.raiseExceptions = False  # a full disk is told once, not by each line of the log
    threading.excepthook = _thread_failed


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard's writing thread hands a full disk on to the main one, which tells it."""
    if failed.exc_value is None or disk_full(failed.exc_value, Path()) is None:
        threading.__excepthook__(failed)
