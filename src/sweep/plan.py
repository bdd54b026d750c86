"""What each job of a sweep will run with and where, known before it is started."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.cli.command import in_words, plain
from src.cli.request import Request
from src.config.parts import Config, Trainer
from src.errors import UserError
from src.files.untrusted import shown
from src.storage.run_config import check_places
from src.storage.trust import Trust, check_targets
from src.sweep.foreign_sweeps import interpolates
from src.sweep.record import FILE, Job, Record


class Refused(UserError):
    """Not a mistake in one job, but nothing that any should run with."""


class Plan:
    """Composes the jobs' configs, each once.

    Args:
        loader: Hydra's.
        config: the sweep's own.
        record: the sweep.
        resumed: what the command line asks for where the jobs come out of a folder, which may be a stranger's.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig, record: Record, resumed: Request | None) -> None:
        self._loader, self._config, self._record, self._resumed = loader, config, record, resumed
        self._composed: dict[int, Config] = {}

    def trainer(self, job: Job) -> Trainer:
        """What the job's config says of its devices.

        Raises:
            UserError: it says nothing.
        """
        node = self.config(job).get("trainer")
        if not isinstance(node, Mapping):
            raise UserError("trainer: nothing chosen; choose one, e.g. trainer=auto")
        return Trainer.of(node)

    def config(self, job: Job) -> Config:
        """The job's config, composed as its own process will; its folder is filled in.

        Raises:
            UserError: its overrides make no config.
        """
        if job.number not in self._composed:
            if self._resumed is not None:
                self._refuse_strangers_words(job)
            try:
                self._composed[job.number] = self._compose(job)
            except (HydraException, OmegaConfBaseException) as error:
                job.folder = job.folder or self._folder_of(job, str(job.number))
                compose = functools.partial(self._loader.load_sweep_config, self._config)
                said = in_words(error, [*job.overrides, *self._record.changes], compose)
                # an option that is nowhere is a slip of the pen, and is said while the others have not begun
                raise (Refused if isinstance(error, MissingConfigException) else UserError)(said) from None
        return self._composed[job.number]

    def _compose(self, job: Job) -> Config:
        config = self._loader.load_sweep_config(self._config, [*job.overrides, *self._record.changes])
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(job.number), job.number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # for ${hydra:…}
        try:
            job.folder = self._folder_of(job, str(config.hydra.sweep.subdir))
            task = copy.deepcopy(config)
            with open_dict(task):
                del task["hydra"]
            settings = plain(task, output_dir=str(self._record.folder / job.folder))
        finally:
            HydraConfig.instance().cfg = before
        if self._resumed is not None:
            self._refuse_strangers_code(settings, self._record.folder / job.folder, self._resumed)
        return settings

    def _refuse_strangers_words(self, job: Job) -> None:
        """The overrides come out of a folder that may be anyone's: they are the config's, and mean what they say. What is
        checked here is composed a second time, in the job's own process."""
        of = f"sweep.resume: {self._record.folder / FILE}"
        for override in [*job.overrides, *self._record.changes]:
            if interpolates(override) or override.lstrip("+~").startswith(("hydra.", "hydra/", "-")):
                raise Refused(
                    f"{of} has {shown(override)!r} for job {job.number}, which decides what is composed; refused"
                )

    def _refuse_strangers_code(self, settings: Config, folder: Path, request: Request) -> None:
        of = f"sweep.resume: {self._record.folder / FILE}"
        trust = Trust(of, request.trust, request.said)
        try:
            check_targets(settings, trust)
            check_places(settings, trust, folder, anew=True)
        except UserError as error:
            raise Refused(str(error)) from None

    def _folder_of(self, job: Job, wanted: str) -> str:
        """What `sweep.subdir` says; jobs for which it says the same get their number behind it."""
        inside = (self._record.folder / wanted).resolve()
        if self._record.folder.resolve() not in inside.parents:
            raise Refused(f"hydra.sweep.subdir: {wanted} is no folder below the sweep's")
        taken = any(other.folder == wanted for other in self._record.jobs if other.number != job.number)
        return f"{wanted}_{job.number}" if taken else wanted
