"""The launcher of sweeps: every job a fresh process group, with devices out of a queue; one bad job spoils no other."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from src.cli.command import LIKE, plain
from src.cli.job_overrides import as_given
from src.cli.overrides import literal
from src.cli.request import Request
from src.config.check import check_keys, checked
from src.config.schema import RESERVED
from src.errors import UserError
from src.sweep.console import SweepConsole
from src.sweep.devices import DeviceQueue
from src.sweep.plan import Plan, Refused
from src.sweep.process import JobProcess, Running, Start, outcome
from src.sweep.record import DONE, Job, Record

NAMESPACE = "hydra_plugins.pixelwise"  # where Hydra looks for plugins; see plugins.py
KEYS: dict[str, object] = {
    "devices": list[NonNegativeInt | str] | None,
    "devices_per_job": PositiveInt | None,
    "jobs": PositiveInt | None,
    "grace_seconds": NonNegativeFloat,
}
# Hydra's own overrides that concern the sweep and not its jobs.
_OF_SWEEP = (
    "hydra.sweep.",
    "hydra.sweeper",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.mode",
    "hydra.run.",
)
_Ended = Callable[[Job], None]


@dataclass
class _InFlight:
    job: Job
    running: Running
    begun: float
    asked_at: float | None = None


class ProcessLauncher(Launcher):
    """Runs jobs side by side on this machine.

    Args:
        devices: the queue, e.g. [0, 1, 2, 3]; None takes the GPUs that this process sees.
        devices_per_job: None takes as many as each job's `trainer.devices` asks for.
        jobs: at most so many at once; None as many as the devices allow, one on a CPU.
        grace_seconds: that jobs have to save when the sweep is stopped.
    """

    __module__ = NAMESPACE
    keys: Mapping[str, object] = KEYS

    def __init__(
        self,
        devices: Sequence[int | str] | None = None,
        devices_per_job: int | None = None,
        jobs: int | None = None,
        grace_seconds: float = 60.0,
    ) -> None:
        self.devices, self.devices_per_job, self.jobs = devices, devices_per_job, jobs
        self.grace_seconds = grace_seconds
        self._until_the_end, self._has_folder = ExitStack(), False
        self.stop_asked = 0  # 1: to save and end, 2: at once
        self.trial: Callable[[Job], str | None] = lambda job: None  # the message to a job that is a trial; see trial.py

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.request: Request = getattr(task_function, "request", Request("train"))
        given = {k: v for k, v in plain(config.hydra.launcher).items() if k not in RESERVED}
        check_keys(given, self.keys, "launcher")
        self.queue = self._queue()
        self.record = self._open()
        self.plan = Plan(hydra_context.config_loader, config, self.record, self.request if self._resumed else None)
        self._console = SweepConsole(self.record)

    def _queue(self) -> DeviceQueue:
        devices = None if self.devices is None else [str(device) for device in self.devices]
        return DeviceQueue(devices, self.devices_per_job, self.jobs)

    def _open(self) -> Record:
        folder = Path(self.config.hydra.sweep.dir).absolute()
        known = Record.read(folder)
        if known is not None and not known.resuming:
            raise self._taken(folder)
        given = OmegaConf.to_container(self.config.hydra.overrides, resolve=False)  # the jobs resolve theirs
        assert isinstance(given, dict)
        self._hydra_overrides: list[str] = given["hydra"]
        arguments = [*self._config_flags(), *given["hydra"], *map(as_given, given["task"])]
        record = known or Record(folder, arguments, str(Path.cwd()))
        record.metric, record.resuming = str(self.config.get("optimized_metric", "val/miou")), False
        for job in record.jobs:
            if job.status == "running":  # when the sweep was killed
                job.status, job.value, job.error = outcome(folder / job.folder, record.metric, None, stopped=True)
        self._resumed = known is not None
        if self._resumed:
            record.save()
        return record

    @staticmethod
    def _taken(folder: Path) -> UserError:
        return UserError(
            f"{folder} is a sweep's folder already; go on with python -m src.train sweep.resume={folder}, or take "
            "another sweep.dir"
        )

    def _take_folder(self) -> None:
        """For this process alone, until it ends."""
        if not self._has_folder:
            self._until_the_end.enter_context(self.record.locked())
            if not self._resumed and Record.read(self.record.folder) is not None:  # of one that started just before
                raise self._taken(self.record.folder)
            self._has_folder = True

    def _config_flags(self) -> list[str]:
        hydra = self.config.hydra
        if hydra.job.config_name == LIKE:
            return self.request.origin
        named = [] if hydra.job.config_name == "train" else ["--config-name", str(hydra.job.config_name)]
        sources = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
        return [*(part for path in sources for part in ("--config-dir", path)), *named]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a sweeper's jobs; those that the sweep's folder has the results of are left as they are."""
        jobs = [self.record.job(initial_job_idx + i, overrides) for i, overrides in enumerate(job_overrides)]
        mistakes = [mistake for job in jobs if (mistake := self.mistake_in(job)) is not None]
        if jobs and len(mistakes) == len(jobs):
            raise mistakes[0]  # common to all: said before anything is written
        self.run(job for job in jobs if job.status not in DONE)
        return [self._returned(job) for job in jobs]

    def run(self, jobs: Iterator[Job], on_end: _Ended = lambda job: None) -> None:
        """Runs jobs, each asked for only when there is room for it, and records each at its start and end."""
        self._take_folder()
        self.record.save()
        with self._stopping_on_signals(), self._console:
            for job in self._drive(jobs):
                on_end(job)
                self.record.save()
                self._console.ended(job)

    def close(self) -> int:
        """Says what the sweep came to; returns its exit status: 0, 1 if a job failed, 130 if it was stopped."""
        self._console.table()
        failed, left = self.record.count("failed"), self.record.count("interrupted", "waiting", "running")
        if failed or left or self.stop_asked:
            self._console.say(
                f"{failed} failed, {left} unfinished; run those again: python -m src.train "
                f"sweep.resume={self.record.folder}"
            )
        return 130 if self.stop_asked else int(failed > 0)

    def mistake_in(self, job: Job) -> UserError | None:
        """What is wrong with a job's config; also fills in its folder."""
        try:
            self.queue.wanted(checked(self.plan.config(job)).trainer)
        except Refused:
            raise
        except UserError as error:
            return error
        return None

    def _drive(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """Starts jobs while there is room, and yields each when it has ended."""
        flying: list[_InFlight] = []
        next_job: Job | None = None
        try:
            while True:
                while not self.stop_asked and self.queue.has_room:
                    if next_job is None and (next_job := next(jobs, None)) is not None:
                        wanted = self._wanted(next_job)
                    devices = None if next_job is None else self.queue.take(wanted)
                    if next_job is None or devices is None:
                        break
                    flying.append(_InFlight(next_job, self.begin(next_job, devices), time.monotonic()))
                    next_job = None
                if not flying:
                    return
                self._hurry(flying)
                for one in list(flying):
                    if (code := one.running.poll()) is not None:
                        flying.remove(one)
                        yield self.end(one.job, code, time.monotonic() - one.begun)
                self._console.look([one.job for one in flying])
                time.sleep(0.1)
        finally:
            for one in flying:
                one.running.kill()

    def _hurry(self, flying: list[_InFlight]) -> None:
        """Once the sweep is stopped, its jobs are asked to save and end; then, or when asked twice, they are killed."""
        for one in flying:
            if self.stop_asked and one.asked_at is None:
                one.asked_at = time.monotonic()
                one.running.stop()
            late = one.asked_at is not None and time.monotonic() - one.asked_at > self.grace_seconds
            if late or self.stop_asked > 1:
                one.running.kill()

    def _wanted(self, job: Job) -> int:
        try:
            return self.queue.wanted(self.plan.trainer(job))
        except UserError:
            return 0  # its own process will say what is wrong

    def begin(self, job: Job, devices: list[str]) -> Running:
        """Starts a job on devices of its own."""
        job.devices, job.status, job.error, job.value = devices, "running", None, None
        self.record.save()
        self._console.started(job)
        return self.start(job)

    def how_to_start(self, job: Job) -> Start:
        hydra = [o for o in self._hydra_overrides if not o.lstrip("+~").startswith(_OF_SWEEP)]
        folder = self.record.folder / job.folder
        hydra += [
            *self._config_flags(),
            "hydra.mode=RUN",
            f"hydra.run.dir={literal(str(folder))}",
            f"hydra.job.num={job.number}",
        ]
        return Start(
            folder,
            job.overrides,
            hydra,
            self.record.changes,
            self.queue.names(job.devices),
            self.trial(job),
            list(self.request.trust),
            self.queue.threads(self._ranks(job)),
        )

    def _ranks(self, job: Job) -> int:
        try:
            asked = self.plan.trainer(job).devices
        except UserError:
            return 1
        return len(job.devices) or (asked if isinstance(asked, int) and asked > 0 else 1)

    def start(self, job: Job) -> Running:
        return JobProcess(self.how_to_start(job))

    def end(self, job: Job, code: int | None, seconds: float) -> Job:
        """Records an ended job and gives its devices back."""
        self.queue.give_back(job.devices)
        folder = self.record.folder / job.folder
        job.seconds = round(seconds, 1)
        job.status, job.value, job.error = outcome(folder, self.record.metric, code, stopped=self.stop_asked > 0)
        return job

    def _returned(self, job: Job) -> JobReturn:
        result = JobReturn(overrides=job.overrides, working_dir=str(self.record.folder / job.folder), task_name="train")
        if job.status in DONE and job.value is not None:
            result.status, result.return_value = JobStatus.COMPLETED, job.value
        else:  # a sweeper that looks at the value gets the error, never NaN
            result.status = JobStatus.FAILED
            result.return_value = UserError(f"job {job.number}: {job.error or job.status}")
        return result

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.stop_asked:
            self.stop_asked = 1
            print(f"{signal.Signals(number).name}: jobs save and end; Ctrl-C kills them", flush=True)
        elif number == signal.SIGINT:  # by hand; the others come in twos, of a closed terminal or a scheduler
            self.stop_asked = 2
