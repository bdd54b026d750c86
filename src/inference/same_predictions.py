"""A folder of predictions holds those of one checkpoint, predicted in one way: what is there is kept only then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from src.errors import UserError
from src.files.atomic import replacing
from src.files.untrusted import read_json, shown

NAME = "prediction.json"


def same_predictions(folder: Path, checkpoint: str, said: Mapping[str, object], overwrite: bool) -> None:
    """Notes in the folder by which checkpoint, and how, what is in it is predicted.

    Args:
        checkpoint: the SHA-256 of its file.
        said: settings that predictions depend on.
        overwrite: whatever is there is written over.

    Raises:
        UserError: it holds predictions of another checkpoint, or made in another way.
        OSError: it cannot be written.
    """
    now = {"checkpoint": checkpoint, **said}
    file = folder / NAME
    text = json.dumps(now, indent=2)
    if not overwrite and file.exists():
        before = read_json(file)
        known = before if isinstance(before, dict) else {}
        after = json.loads(text)
        if differs := [key for key in after if known.get(key) != after[key]]:
            raise UserError(
                f"output: {shown(str(folder))} holds predictions of another {' and '.join(differs)}; give another folder, or "
                "overwrite=true"
            )
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")
