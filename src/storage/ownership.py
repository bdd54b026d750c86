"""Which runs this user made on this machine: the folder that their data lie in is then taken from them.

No path is taken out of a stranger's files, and an unpacked archive can hold whatever a run folder holds. So each run signs
the root of its data with a key that lies in the user's own configuration and nowhere else. A signature says that a run of this
user read that root, and nothing more.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from src.errors import UserError
from src.files.untrusted import inside, read_bytes, read_json
from src.storage import run_folder

_BYTES, _URL = 32, "://"


def sign(run_dir: Path, given: str | None) -> None:
    """Leaves in a run's folder what its data's root is, signed. Without a place for the key nothing is left.

    Args:
        given: `data.root` as the run was told it.
    """
    with contextlib.suppress(OSError, UserError, RuntimeError):
        (run_dir / run_folder.ROOT).unlink(missing_ok=True)
        if given is None:
            return
        resolved = str(given) if _URL in str(given) else str(Path(given).expanduser().resolve())
        proof = _proof(_key(make=True), given, resolved)
        run_folder.write_text(run_dir / run_folder.ROOT, json.dumps({"root": resolved, "proof": proof}) + "\n")


def root(checkpoint: Path, given: object) -> str | None:
    """The root of the data that a checkpoint in its run folder was trained on; None where this user did not make it here, or
    the root is gone.

    Args:
        given: `data.root` of the checkpoint's own config, which must be the same.
    """
    run_dir = checkpoint.absolute().parent.parent
    with contextlib.suppress(OSError, UserError, RuntimeError, KeyError, TypeError):
        said = read_json(inside(run_dir, run_folder.ROOT))
        resolved, proof = said["root"], said["proof"]
        ours = hmac.compare_digest(_proof(_key(make=False), str(given), resolved).encode(), str(proof).encode())
        return resolved if ours and (_URL in resolved or Path(resolved).is_dir()) else None
    return None


def _proof(key: bytes, given: str, resolved: str) -> str:
    return hmac.new(key, json.dumps(["root", given, resolved]).encode(), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes:
    """The user's key, made where it is missing; nobody else may read it.

    Raises:
        OSError, UserError: there is none, or it is no key.
    """
    file = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "pixelwise" / "key"
    if make and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):  # another run's, made just now
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(secrets.token_bytes(_BYTES))
    key = read_bytes(file, _BYTES)
    if len(key) != _BYTES:
        raise UserError(f"{file}: is no key")
    return key
