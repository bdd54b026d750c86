"""Hands a trained model on: `python -m src.publish ckpt=RUN repo=me/name` writes its folder, and pushes it with push=true."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.parts import Config
from src.errors import UserError, of_a_file

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class Publication(Asked):
    """What a publication is told.

    Attributes:
        ckpt: a run folder, or a checkpoint.
        repo: OWNER/NAME.
        push: whether it leaves this machine.
        private: whether a new repository is seen by its owner alone.
        license: the hub's key of the weights' licence.
        output: the folder; None is published/NAME.
        trust: packages that the checkpoint's config may name.
    """

    ckpt: str
    repo: str
    push: bool
    private: bool
    license: str | None
    output: str | None
    trust: list[str] | None = None

    def check(self) -> None:
        if _REPO.fullmatch(self.repo) is None:
            raise UserError(f"repo: {self.repo} is no OWNER/NAME; name it e.g. repo=me/camvid-fpn")
        if self.license is not None and _LICENSE.fullmatch(self.license) is None:
            raise UserError(
                f"license: {self.license} is no key of a licence; take one as mit, apache-2.0, cc-by-nc-4.0"
            )


def publish(settings: Config | Publication) -> Path:
    """Writes the folder, says what is in it and where it would go, and pushes it where that is asked for.

    Returns:
        The folder.

    Raises:
        UserError: a bad checkpoint, something private that cannot be taken out, or a hub that cannot be reached or refuses.
    """
    asked = settings if isinstance(settings, Publication) else Publication.of(settings)
    from src.optional_packages import needs
    from src.sharing import publishing
    from src.storage import checkpoints

    for package in ("safetensors", "huggingface_hub"):
        needs(package, "huggingface")
    output = Path(asked.output or f"published/{asked.repo.partition('/')[2]}").expanduser()
    try:
        missing = publishing.write(checkpoints.find(asked.ckpt), output, asked.repo, asked.license, asked.trust or ())
    except OSError as error:
        if told := of_a_file(error):
            raise UserError(f"output: {told}") from None
        raise
    for line in missing:
        print(f"not in the card: {line}")
    kind = "private, if it is new" if asked.private else "public, if it is new"
    print(f"{output}, for the hub's {asked.repo} ({kind}):")
    for name in publishing.FILES:
        print(f"  {name}  {(output / name).stat().st_size:,} bytes")
    if asked.push:
        print(f"pushed: {publishing.push(output, asked.repo, asked.private)}")
    else:
        print("nothing was pushed: look at it, then say push=true")
    return output


def _task(asked: Publication, _: DictConfig) -> None:
    publish(asked)


if __name__ == "__main__":
    start("publish", _task, Publication.of)
