"""A search for the best settings with Optuna: trials are jobs, poor ones are pruned, the study outlives the sweep."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn
from hydra.utils import get_object
from omegaconf import OmegaConf
from pydantic import NonNegativeInt, PositiveInt

from src.cli.command import plain
from src.config.parts import Part
from src.errors import UserError
from src.metrics.names import falls, find
from src.optional_packages import needs
from src.seeding import derive
from src.sweep.launcher import NAMESPACE
from src.sweep.record import DONE, Job
from src.sweep.sweepers import GridSweeper, exit_unless_good
from src.sweep.trial import FILE, open_study, trial_message

_EXAMPLE = "optimizer.lr='tag(log,interval(1e-4,1e-1))' network=unet,fpn"


class OptunaSweeper(GridSweeper):
    """Asks Optuna for each job's values; a job that frees its place gets the next trial at once.

    Args:
        n: trials, those included that are pruned or fail.
        direction: whether the metric is to grow or to fall; None: to fall for a loss, else to grow.
        seed: each trial's draws are a function of it, the trial's number and the results so far.
        sampler: `_target_` and keys of one of Optuna's samplers.
        pruner: likewise; None prunes none.
        params: the search space by key: `interval(low, high)`, `tag(log, interval(low, high))`,
            `int(interval(low, high))`, `range(start, stop, step)`, `choice(a, b)` or `a,b`.
    """

    __module__ = NAMESPACE
    keys: Mapping[str, object] = {
        "n": PositiveInt,
        "direction": Literal["minimize", "maximize"] | None,
        "seed": NonNegativeInt,
        "sampler": dict[str, object],
        "pruner": dict[str, object] | None,
        "params": dict[str, object] | None,
    }

    def __init__(
        self,
        sampler: Mapping[str, object],
        pruner: Mapping[str, object] | None = None,
        n: int = 20,
        direction: Literal["minimize", "maximize"] | None = None,
        seed: int = 42,
        params: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(params)
        self.sampler = Part.of(plain(OmegaConf.create(dict(sampler))))
        self.pruner = None if pruner is None else Part.of(plain(OmegaConf.create(dict(pruner))))
        self.n, self.direction, self.seed = n, direction, seed
        for key, part in (("sampler", self.sampler), ("pruner", self.pruner)):
            if part is not None and not re.fullmatch(rf"optuna\.{key}s\.[A-Z]\w*", part.target):
                raise UserError(f"sweep.{key}._target_: should be one of optuna.{key}s, not {part.target!r}")

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Runs trials until there are n; ends with status 1 if one failed."""
        optuna, record = needs("optuna", "optuna"), self.launcher.record
        given = {o.get_key_element(): o for o in self.parsed(self.written(arguments))}
        self.space = {key: _distribution(optuna, o) for key, o in given.items() if o.is_sweep_override()}
        self.fixed = [f"{key}={o.get_value_element_as_str()}" for key, o in given.items() if key not in self.space]
        if not self.space:
            raise UserError(f"sweep=optuna: nothing to search; give values or ranges, e.g. {_EXAMPLE}")
        if self.pruner is not None and not record.metric.startswith("val/"):
            raise UserError(f"sweep.pruner: {record.metric} is no validation score; take sweep.pruner=null")
        self._refuse_pickles()
        self._try_out()
        falls = self._falls(record.metric)
        self.study = open_study(record.folder, self.direction or ("minimize" if falls else "maximize"))
        self._fail_lost_trials()
        self.launcher.trial = lambda job: trial_message(
            record.folder, job.trial, record.metric, None if self.pruner is None else self.pruner.node
        )
        self.launcher.run(self._jobs(), self._tell)
        exit_unless_good(self.launcher)
        return []

    def _falls(self, metric: str) -> bool:
        """Whether the best trial is the one with the smallest score."""
        key, config = metric.partition("/")[2], self.config
        assert config is not None
        monitored = str(config.get("monitor")).partition("/")[2] == key
        mode = config.get("monitor_mode") if monitored else None
        if find(key) is None and mode is None and self.direction is None:
            raise UserError(
                f"sweep.direction: {metric} is a metric of your own; say which is best, sweep.direction=maximize or minimize"
            )
        return falls(key, mode)

    def _refuse_pickles(self) -> None:
        """Optuna's CMA-ES keeps its state in the study as a pickle, and a study that is there may be a stranger's."""
        kept = self.launcher.record.folder / FILE
        if self.sampler.name == "CmaEsSampler" and kept.exists() and "optuna" not in self.launcher.request.trust:
            raise UserError(
                f"sweep.sampler: this one reads pickles out of {kept}, which can run code; if the folder is yours: trust=optuna"
            )

    def _try_out(self) -> None:
        """Checks each value, or the ends of each range, before anything is written."""
        ends = {key: d.choices if hasattr(d, "choices") else (d.low, d.high) for key, d in self.space.items()}
        first = {key: values[0] for key, values in ends.items()}
        numbers = itertools.count(-1, -1)  # of no real job
        for key, values in ends.items():
            for value in values:
                mistake = self.launcher.mistake_in(Job(next(numbers), self._overrides({**first, key: value})))
                if mistake is not None:
                    raise mistake

    def _fail_lost_trials(self) -> None:
        """Those that a killed sweep had asked for and not yet recorded."""
        recorded = {job.trial for job in self.launcher.record.jobs}
        for trial in self.study.get_trials(deepcopy=False):
            if not trial.state.is_finished() and trial.number not in recorded:
                self.study.tell(trial.number, state=needs("optuna", "optuna").trial.TrialState.FAIL)

    def _jobs(self) -> Iterator[Job]:
        """Those of before that are not done, then new ones."""
        record = self.launcher.record
        for job in [job for job in record.jobs if job.status not in DONE]:
            trials = self.study.get_trials(deepcopy=False)
            if job.trial is None or not 0 <= job.trial < len(trials):
                raise UserError(f"{record.folder / FILE}: has no trial {job.trial}, which job {job.number} is; refused")
            trial = trials[job.trial]
            if trial.state.is_finished():  # it failed: the same values as a trial of its own
                self.study.enqueue_trial(trial.params)
                job.trial = self._ask(job).number
            yield job
        while len(record.jobs) < self.n:
            job = Job(len(record.jobs), [])
            trial = self._ask(job)
            job.trial, job.overrides = trial.number, self._overrides(trial.params)
            record.jobs.append(job)
            self.launcher.mistake_in(job)
            yield job

    def _ask(self, job: Job) -> Any:
        seed = derive(self.seed, "trial", len(self.study.get_trials(deepcopy=False))) % 2**32
        try:
            self.study.sampler = get_object(self.sampler.target)(**self.sampler.keys_but("_target_"), seed=seed)
        except (TypeError, ValueError, AttributeError, ImportError) as error:
            raise UserError(f"sweep.sampler: {error}") from None
        try:
            return self.study.ask(self.space)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            kept = self.launcher.record.folder / FILE
            raise UserError(f"{kept}: does not fit this search ({error}); take another sweep.dir") from None

    def _overrides(self, values: Mapping[str, object]) -> list[str]:
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items())]

    def _tell(self, job: Job) -> None:
        state = needs("optuna", "optuna").trial.TrialState
        if job.status == "pruned":
            self.study.tell(job.trial, state=state.PRUNED)
        elif job.status == "completed" and job.value is not None:
            self.study.tell(job.trial, job.value)
        elif job.status != "interrupted":  # which goes on as the same trial
            self.study.tell(job.trial, state=state.FAIL)


def _distribution(optuna: Any, override: Override) -> Any:
    sweep, kinds = override.value(), optuna.distributions
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None and sweep.end is not None
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind = kinds.IntDistribution if whole else kinds.FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)
    if isinstance(sweep, RangeSweep) and sweep.step and not sweep.shuffle:
        values = list(sweep.range())
        whole = all(isinstance(value, int) for value in values)
        kind = kinds.IntDistribution if whole else kinds.FloatDistribution
        return kind(min(values), max(values), step=abs(sweep.step))
    assert isinstance(sweep, ChoiceSweep | RangeSweep)
    return kinds.CategoricalDistribution(list(override.sweep_string_iterator()))
