"""The same jobs through joblib's threads, and through submitit on a SLURM cluster."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from pydantic import PositiveInt

from src.cli.command import plain
from src.errors import UserError
from src.optional_packages import needs
from src.sweep.devices import ClusterQueue, DeviceQueue
from src.sweep.launcher import KEYS, NAMESPACE, ProcessLauncher
from src.sweep.process import STDERR, JobProcess, Running, Start, run_to_end
from src.sweep.record import Job


class JoblibLauncher(ProcessLauncher):
    """Runs jobs side by side on this machine out of joblib's pool of threads; each is a process group all the same."""

    __module__ = NAMESPACE

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._joblib = needs("joblib", "joblib")
        self._lock = threading.Lock()
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def _drive(self, jobs: Iterator[Job]) -> Iterator[Job]:
        pool = self._joblib.Parallel(
            n_jobs=self.queue.slots, backend="threading", batch_size=1, pre_dispatch="n_jobs",
            return_as="generator_unordered",
        )  # fmt: skip
        for job in pool(self._joblib.delayed(self._run)(job) for job in self._until_stopped(jobs)):
            if job is not None:
                yield job

    def _until_stopped(self, jobs: Iterator[Job]) -> Iterator[Job]:
        while not self.stop_asked:
            with self._lock:
                job = next(jobs, None)
            if job is None:
                return
            yield job

    def _run(self, job: Job) -> Job | None:
        with self._lock:
            wanted = self._wanted(job)
        while (devices := self._take(wanted)) is None:
            time.sleep(0.1)
        if self.stop_asked:
            self.queue.give_back(devices)
            return None
        begun = time.monotonic()
        with self._lock:
            running = self.begin(job, devices)
        code = run_to_end(running, lambda: self.stop_asked > 0, self.grace_seconds)
        with self._lock:
            return self.end(job, code, time.monotonic() - begun)

    def _take(self, wanted: int) -> list[str] | None:
        with self._lock:
            return self.queue.take(wanted)


class SubmititLauncher(ProcessLauncher):
    """Submits each job to SLURM, on one node: a task that starts the job's process group there, ranks and all.

    Args:
        cluster: slurm, or local: this machine, to try it; None takes slurm where there is one.
        timeout_min: a job's time; one that runs out of it saves, is queued again and goes on.
        parameters: more for `submitit.AutoExecutor.update_parameters`, e.g. {slurm_partition: gpu, mem_gb: 64}.
        devices_per_job: GPUs; None takes what each job's `trainer.devices` asks for, none with trainer=cpu.
        jobs: at most so many submitted at once; None all.
        grace_seconds: that jobs have to save when they are stopped.
    """

    __module__ = NAMESPACE
    keys: Mapping[str, object] = {
        "cluster": Literal["slurm", "local"] | None,
        "timeout_min": PositiveInt,
        "parameters": dict[str, object],
        **{key: KEYS[key] for key in ("devices_per_job", "jobs", "grace_seconds")},
    }

    def __init__(
        self,
        cluster: str | None = None,
        timeout_min: int = 1440,
        parameters: Mapping[str, object] | None = None,
        devices_per_job: int | None = None,
        jobs: int | None = None,
        grace_seconds: float = 60.0,
    ) -> None:
        super().__init__(None, devices_per_job, jobs, grace_seconds)
        self.cluster, self.timeout_min = cluster, timeout_min
        self.parameters = plain(OmegaConf.create(dict(parameters or {})))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._submitit = needs("submitit", "submitit")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def _queue(self) -> DeviceQueue:
        self._executor = self._submitit.AutoExecutor(self._logs(), cluster=self.cluster)
        self.cluster = self._executor.cluster
        return super()._queue() if self.cluster == "local" else ClusterQueue(self.devices_per_job, self.jobs)

    def _logs(self) -> Path:
        return Path(self.config.hydra.sweep.dir).absolute() / ".submitit"

    def start(self, job: Job) -> Running:
        start = self.how_to_start(job)
        try:
            self._executor.update_parameters(
                name="pixelwise", timeout_min=self.timeout_min, tasks_per_node=1, nodes=1,
                gpus_per_node=len(job.devices), **self.parameters,
            )  # fmt: skip
        except (NameError, TypeError, ValueError) as error:
            raise UserError(f"launcher.parameters: {error}") from None
        return _Submitted(self._executor.submit(RemoteJob(start, self.grace_seconds)))

    def end(self, job: Job, code: int | None, seconds: float) -> Job:
        job = super().end(job, code, seconds)
        if job.status == "failed" and not (self.record.folder / job.folder / STDERR).is_file():
            job.error = f"did not begin; submitit's files are in {self._logs()}"
        return job


class _Submitted:
    """A submitted job. What it came to is read from its folder: submitit's own results are pickles."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        return 0 if self._job.done() else None

    def stop(self) -> None:
        self._job.cancel(check=False)

    def kill(self) -> None:
        self._job.cancel(check=False)


class RemoteJob:
    """What submitit runs on the node."""

    def __init__(self, start: Start, grace_seconds: float) -> None:
        self.start, self.grace_seconds = start, grace_seconds
        self._stopped = False

    def __call__(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        self._process = JobProcess(self.start)
        return run_to_end(self._process, lambda: self._stopped, self.grace_seconds)

    def checkpoint(self) -> object:
        """Called when the time is up, or the node is wanted back: the job saves, and goes on when it is queued again."""
        run_to_end(self._process, lambda: True, self.grace_seconds)
        again = RemoteJob(self.start, self.grace_seconds)
        return needs("submitit", "submitit").helpers.DelayedSubmission(again)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
