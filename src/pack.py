"""Packs a run: `python -m src.pack RUN_DIR [output=FILE.zip]` makes one archive of it, without private paths or names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.parts import Config
from src.errors import UserError, of_a_file


@dataclass(frozen=True, kw_only=True)
class Packing(Asked):
    """What is packed.

    Attributes:
        run: the run folder.
        output: the archive; None is the run folder's name in the working directory.
        resumable: whether the last checkpoint, from which training goes on, is packed beside the best one.
    """

    run: str
    output: str | None
    resumable: bool

    def check(self) -> None:
        if self.output is not None and not self.output.lower().endswith(".zip"):
            raise UserError("output: the archive is a zip file; name it so, e.g. output=run.zip")


def pack(settings: Config | Packing) -> Path:
    """Writes a run's folder as a zip file and says what is in it.

    Returns:
        The archive.

    Raises:
        UserError: there is no run, or it holds what cannot be handed on.
    """
    asked = settings if isinstance(settings, Packing) else Packing.of(settings)
    from src.provenance import archive
    from src.storage import run_folder

    run_dir = Path(asked.run).expanduser()
    if not (run_dir / run_folder.CONFIG).is_file():
        raise UserError(f"run: {run_dir} is no run folder (no {run_folder.CONFIG} in it)")
    run_folder.check_own(run_dir)
    output = Path(asked.output or f"{run_dir.resolve().name}.zip").expanduser()
    if output.resolve().is_relative_to(run_dir.resolve()):
        raise UserError(f"output: {output} lies in the run folder itself; name another place")
    try:
        count, left = archive.pack(run_dir, output, asked.resumable)
    except OSError as error:
        if told := of_a_file(error):
            raise UserError(f"output: {told}") from None
        raise
    for line in left:
        print(f"left out: {line}")
    print(f"written: {output} ({count} files, {output.stat().st_size / 2**20:.1f} MiB)")
    return output


def _task(asked: Packing, _: DictConfig) -> None:
    pack(asked)


if __name__ == "__main__":
    start("pack", _task, Packing.of)
