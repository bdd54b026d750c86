"""Models as they are handed on: a folder of two files, weights and what describes them, here or on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.data.trained_on import CHECKPOINT_KEY as KEY
from src.errors import UserError
from src.files.untrusted import read_json, shown
from src.networks import weights

WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"
SCHEME = "hf:"
FORMAT = "pixelwise-segmenter"  # what a description says that it is
_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_ON_HUB = re.compile(rf"hf:({_NAME})(?:@([\w./-]+))?")
_MEND = "where the hub cannot be reached, download its folder elsewhere and give that"


def of_hub(given: str) -> Path:
    """The file of weights of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, its description beside it, out of what the hub's
    client keeps on this machine, or fetched into that. No other file of the repository is.

    Raises:
        UserError: it is no such name, the hub has no such model of this program's, or cannot be reached.
    """
    found = _ON_HUB.fullmatch(given)
    if found is None:
        raise UserError(
            f"{shown(given)}: is no model of the hub; it is called hf:OWNER/NAME, or hf:OWNER/NAME@REVISION"
        )
    return weights.downloaded(lambda: _fetched(found[1], found[2]), given, _MEND)


def _fetched(repository: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        description = Path(hf_hub_download(repository, DESCRIPTION, revision=revision))
        commit = description.parent.name  # so that both files are of one
        hf_hub_download(repository, WEIGHTS, revision=commit)
    except LocalEntryNotFoundError as error:
        raise LookupError("the hub cannot be reached, and nothing of it is kept on this machine") from error
    except RepositoryNotFoundError as error:
        raise LookupError("the hub has no such model, or none that you may see: hf auth login") from error
    except RevisionNotFoundError as error:
        raise LookupError(f"it has no revision {revision}") from error
    except EntryNotFoundError as error:
        raise LookupError(f"it has no {DESCRIPTION} and {WEIGHTS}, so it is no model of this program") from error
    return description.with_name(WEIGHTS)


def read(file: Path) -> dict[str, Any]:
    """Weights and their description as a checkpoint's content, not yet checked: tensors, and plain data.

    Args:
        file: the weights, of which the description lies beside. Links are followed, as the hub's client keeps its files.

    Raises:
        UserError: there is none, or it is none of ours.
    """
    beside = file.with_name(DESCRIPTION)
    try:
        told = read_json(beside, links=True)
    except FileNotFoundError:
        raise UserError(f"ckpt: {file} has no {DESCRIPTION} beside it, which says what it is") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise UserError(f"ckpt: {beside} describes no model of this program (its format is not {FORMAT!r})")
    return {"state_dict": weights.read_file(file, "ckpt"), KEY: told.get(KEY)}


def description(about: Mapping[str, Any], version: str | None) -> dict[str, Any]:
    """What the description says.

    Args:
        about: what a checkpoint says of its model.
        version: of this program.
    """
    return {"format": FORMAT, "version": version, KEY: dict(about)}
