"""The metrics that a config names: what is monitored, what a sweep is told, and the user's own; and which direction is best."""

from __future__ import annotations

import re
from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf

from src.config.parts import Config
from src.config.settings import ModelSettings, Settings
from src.config.suggest import suggest
from src.errors import UserError
from src.files.untrusted import shown
from src.metrics.names import TASK_SCORES, TRAIN_LOSS, falls, find, of_run


def fill_monitor_mode(config: DictConfig) -> None:
    """Sets `monitor_mode` as the metric says where it is null. Called before interpolations are resolved, since callbacks
    refer to it; left null for a metric that is not known here, a user's own."""
    if "monitor" not in config or "monitor_mode" not in config or config.monitor_mode is not None:
        return
    key = str(config.monitor).removeprefix("val/")
    if find(key) is not None:
        OmegaConf.update(config, "monitor_mode", "min" if falls(key) else "max")


def check_metrics(settings: Settings) -> None:
    """Checks that a run has the metrics that it monitors and that a sweep is told.

    Raises:
        UserError: it has not, with those that it has.
    """
    check_metric("monitor", settings.monitor, settings, ("val",))
    optimized = settings.optimized_metric
    if optimized != TRAIN_LOSS:
        check_metric("optimized_metric", optimized, settings, ("val", "test"))
    if optimized.startswith("test/") and not settings.test:
        raise UserError(f"optimized_metric: {optimized} needs test=true")


def check_direction(settings: ModelSettings) -> None:
    """Checks that the best checkpoint is not the worst.

    Raises:
        UserError: it would be, or nobody says which is best of a metric of the user's own.
    """
    check_one_direction("monitor_mode", settings.monitor, settings.monitor_mode)


def check_one_direction(key: str, monitor: str, mode: str | None) -> None:
    """Checks that what is best by a metric is not the worst.

    Args:
        key: that says the direction.

    Raises:
        UserError: it would be, or nobody says which is best of a metric of the user's own.
    """
    score = monitor.removeprefix("val/")
    if find(score) is None:
        if mode is None:
            raise UserError(f"{key}: {monitor} is a metric of your own; say which is best, {key}=max or min")
        return
    right = "min" if falls(score) else "max"
    if mode not in (None, right):
        raise UserError(f"{key}: {mode} would keep the worst checkpoint by {monitor}; take {key}={right}")


def check_own_direction(settings: ModelSettings, name: str, higher_is_better: bool | None) -> None:
    """Checks that the best checkpoint by a metric of the user's own is not the worst, as its class says.

    Raises:
        UserError: it would be.
    """
    right = {True: "max", False: "min", None: None}[higher_is_better]
    if right is not None and settings.monitor == f"val/{name}" and settings.monitor_mode != right:
        raise UserError(
            f"monitor_mode: {settings.monitor_mode} would keep the worst checkpoint by val/{name}, as its class says; "
            f"take monitor_mode={right}"
        )


def check_metric(key: str, given: str, settings: Settings, stages: tuple[str, ...]) -> None:
    """Checks that a run has a metric that a key names.

    Raises:
        UserError: it has not, with those that it has.
    """
    stage, _, name = given.partition("/")
    tasks = settings.tasks.learnt if settings.tasks is not None else []
    of_ours = {score.task for score in TASK_SCORES.values()}
    own = [*settings.metrics, *(f"{task}_*" for task in tasks if task not in of_ours)]
    score = find(name, own) if stage in stages else None
    if score is not None and (score.task is None or score.task in tasks):
        return
    if score is not None:
        raise UserError(
            f"{key}: {given} is a score of the task {score.task}, which is not learnt; take tasks={score.task}"
        )
    known = [f"val/{name}" for name in of_run(tasks, own)]
    also = ", and the same of test/" if "test" in stages else ""
    raise UserError(f"{key}: no metric is called {given!r}{suggest(given, known)}; metrics: {', '.join(known)}{also}")


def check_own_names(config: Config) -> None:
    """Checks that the user's own metrics have names of their own."""
    metrics = config.get("metrics")
    for name in metrics if isinstance(metrics, Mapping) else ():
        if not re.fullmatch(r"[A-Za-z]\w{0,49}", name) or find(name) is not None or name == "iou":
            raise UserError(
                f"metrics.{shown(name)}: should be a word of letters, digits and _ that is no score's here, "
                f"e.g. metrics.my_{shown(name[:20])}"
            )
