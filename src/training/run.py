"""One training run from settings to metrics.json."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from src.callbacks.changes import Changed
from src.callbacks.checkpoint import RunCheckpoint
from src.callbacks.dashboard import close_loggers, log_hparams
from src.callbacks.pruning import Pruning
from src.callbacks.step_profiler import StepProfiler
from src.callbacks.swa import SWA
from src.cli.command import task_overrides
from src.config.changes import Said
from src.config.settings import Settings
from src.data.datamodule import SegmentationDataModule
from src.data.trained_on import Images
from src.distributed import slurm
from src.distributed.stop_signals import stopped_by_signals
from src.distributed.supervision import RankSupervisor
from src.errors import (
    Interrupted,
    NonFiniteLoss,
    Pruned,
    UserError,
    absent_package,
    disk_full,
    of_a_file,
    out_of_memory,
)
from src.metrics.names import DICE_FOREGROUND
from src.models.base import Segmenter
from src.models.learner import Learner
from src.optimization.updates import counts_on_each_rank
from src.provenance.recorder import Recorder
from src.storage import checkpoint_states, checkpoints, ownership, run_folder
from src.storage.trust import STRANGER, Trust
from src.sweep.trial import current_trial
from src.training import build, helpers, machine, out_of_fold, step_advice
from src.training.class_weights import class_weights
from src.training.going_on import Start, logging_on
from src.training.init_from import start_from
from src.training.library_messages import quiet
from src.training.record import RunRecord, Status
from src.training.score_table import score_table
from src.training.size_limit import no_larger_than

_log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What a run came to: the content of metrics.json, and the objects, for tests and notebooks."""

    status: Status
    metrics: dict[str, Any]
    run_dir: Path
    trainer: L.Trainer
    model: Learner
    datamodule: SegmentationDataModule
    optimized: float | None = None


def run(settings: Settings, resume: bool = False, trust: Trust = STRANGER, said: Said | None = None) -> Outcome:
    """Trains as `settings` say, tests the best checkpoint, writes metrics.json, prints the table.

    Raises:
        UserError: the data or a file is bad, the disk is full, or the loss diverged; metrics.json then says "failed" and why,
            beside all that was achieved until then.
        Interrupted: a signal came while nothing was trained.
    """
    run_dir = settings.run_dir
    record = RunRecord(run_dir, settings.seed, resume)
    on = (
        Start.of(run_dir, settings) if resume else None
    )  # or a mistake in what is to change, before anything is touched

    with contextlib.ExitStack() as stack:
        if machine.is_main_process():
            run_folder.check_own(run_dir, run_folder.OWN)
            stack.enter_context(run_folder.locked(run_dir))
            if not resume:
                run_folder.refuse_taken(run_dir)
        ranks = stack.enter_context(RankSupervisor(record.failed))
        stack.enter_context(stopped_by_signals())
        try:
            return _run(settings, run_dir, record, on, ranks, trust, said or Said())
        except Interrupted as stop:
            if machine.is_main_process():
                slurm.requeue_after(str(stop))
            raise
        except Exception as error:
            if isinstance(error, UserError):
                raise
            told = (
                disk_full(error, run_dir) or out_of_memory(error, run_dir) or of_a_file(error) or absent_package(error)
            )
            if told is None:
                raise
            raise told from error


def _run(
    settings: Settings, run_dir: Path, record: RunRecord, on: Start | None, ranks: RankSupervisor, trust: Trust,
    said: Said,
) -> Outcome:  # fmt: skip
    from_checkpoint = on.file if on is not None else None
    if machine.is_main_process():
        run_folder.clear(run_dir, resume=on is not None)
    quiet()
    torch.manual_seed(settings.seed)
    torch.set_float32_matmul_precision("high")
    machine.check_devices(settings.trainer)
    datamodule = build.build_data(
        settings.data,
        settings.seed,
        settings.model.uses_unlabeled,
        settings.use_depth,
        settings.model.strong_views,
        synthetic=helpers.synthetic(settings.data.synthetic, trust.packages),
        trust=trust,
    )
    datamodule.prepare(keep=run_dir / run_folder.PIXELS_BY_CLASS)
    if machine.is_main_process():
        ownership.sign(run_dir, settings.data.root)
    loggers = settings.logger if on is None else logging_on(settings.logger, on.batches)
    more: list[L.Callback] = [ranks] if on is None else [ranks, checkpoint_states.StateCheck(on.file)]
    if on is not None and (on.values or said != Said()):
        more.append(Changed(run_dir, on.values, on.before, said))
    trainer = build.build_trainer(
        settings.trainer, str(run_dir), settings.callbacks, loggers, datamodule.batches_per_epoch(), *more, trust=trust
    )
    if (trial := current_trial()) is not None:
        trainer.callbacks.append(Pruning(*trial))  # type: ignore[attr-defined]
    train_source = datamodule.source("train")
    weights = class_weights(settings.model.class_weights, train_source, run_dir / run_folder.CLASS_COUNTS)
    to_build = settings if from_checkpoint is None else settings.without_weights()  # they come from the checkpoint
    others = helpers.others(settings.model, train_source, trust.packages)
    with contextlib.nullcontext() if from_checkpoint is None else no_larger_than(from_checkpoint):
        model = build.build_learner(
            to_build, datamodule.label_set, train_source.channels, train_source.intensity, weights=weights, others=others,
            trust=trust,
        )  # fmt: skip
    model.images = Images.of_source(train_source)
    model.config = dict(settings.plain)
    model.check_size(*(datamodule.smallest_crop or train_source.read(0)[0].shape[-2:]))
    if settings.init_from is not None and from_checkpoint is None and isinstance(model, Segmenter):
        for line in start_from(settings.init_from, model, settings, trust):
            _say(f"init_from: {line}")
    if settings.compile:
        for network in model.networks:
            network.compile()
    record.content["inference"] = asdict(settings.inference)
    record.content["parameters"] = sum(p.numel() for p in model.network.parameters())
    _say(_headline(settings, datamodule, record.content["parameters"]))
    on_cpus = trainer.world_size > 1 and trainer.strategy.root_device.type == "cpu"
    if on_cpus and counts_on_each_rank(model.network, model.batch_norm):
        _say(
            "batch norm counts on each rank by itself, since torch synchronises it on GPUs only: the weights are not those of "
            "one device; model.batch_norm=frozen, or a network without it, gives the same"
        )
    record.watch(trainer, model)
    recorder = _recorder(settings, trainer, datamodule, trust, on is not None) if trainer.is_global_zero else None
    status: Status = "completed"
    stopped_by = ""
    try:
        _fit(trainer, model, datamodule, from_checkpoint)
    except Interrupted as stop:
        status, stopped_by = "interrupted", str(stop)
        _say(f"interrupted ({stop}); go on with: python -m src.train resume={run_dir}")
    except Pruned as pruned:
        status = "pruned"
        _say(str(pruned))
    except NonFiniteLoss as error:
        good = next((f for f in (run_dir / run_folder.LAST, run_dir / run_folder.BEST) if f.is_file()), "none yet")
        raise NonFiniteLoss(
            f"{error}; the last good checkpoint is {good} (try a lower optimizer.lr or trainer.gradient_clip_val=1)"
        ) from None
    if isinstance(profiler := trainer.profiler, StepProfiler):  # type: ignore[attr-defined]
        record.content["profile"] = {"steps": len(profiler.measured()), "seconds": profiler.seconds()}
        for line in step_advice.told(profiler, settings, trainer.strategy.root_device):
            _say(line)
    if status == "completed" and isinstance(more[-1], Changed):
        more[-1].record(trainer)  # where there was nothing left to train
    if status == "completed":
        for swa in (one for one in trainer.callbacks if isinstance(one, SWA)):  # type: ignore[attr-defined]
            assert isinstance(model, Segmenter)
            if scores := swa.finish(trainer, model, datamodule):
                record.content["swa"] = scores
    if status == "completed" and settings.test:
        try:
            with out_of_fold.kept(settings, trainer, model, datamodule):
                record.content["test"] = test_best(trainer, model, datamodule)
        except UserError as error:
            raise UserError(
                f"{error}\nthe training itself is done; once that is mended, python -m src.train resume={run_dir} tests it"
            ) from error
    record.close(status, write=trainer.is_global_zero)
    if recorder is not None:
        recorder.close(wait=status != "interrupted")
    if trainer.is_global_zero:
        _finish(settings, run_dir, record.content, trainer, model, datamodule)
        slurm.requeue_after(stopped_by)
    optimized = run_folder.score(record.content, settings.optimized_metric)
    return Outcome(status, record.content, run_dir, trainer, model, datamodule, optimized)


def _recorder(
    settings: Settings, trainer: L.Trainer, datamodule: SegmentationDataModule, trust: Trust, resume: bool
) -> Recorder:
    device = machine.device_of(trainer, settings.trainer.precision)
    return Recorder(
        settings.run_dir, settings.plain, trust.packages, datamodule.own_sources(), settings.data.root,
        settings.fingerprint, lambda made: machine.with_device(made, device), resume,
    )  # fmt: skip


def _fit(trainer: L.Trainer, model: Learner, datamodule: SegmentationDataModule, from_checkpoint: Path | None) -> None:
    """Trains. What goes wrong once the last checkpoint of all is written, in a logger's or a callback's farewell, is said and
    ends nothing."""
    try:
        trainer.fit(model, datamodule=datamodule, ckpt_path=from_checkpoint, weights_only=True)
    except (UserError, Interrupted, Pruned):
        raise
    except Exception as error:
        if from_checkpoint is not None and (told := checkpoint_states.told(error, from_checkpoint)):
            raise told from error
        checkpoint = trainer.checkpoint_callback
        if not (isinstance(checkpoint, RunCheckpoint) and checkpoint.has_all(trainer)):
            raise
        _log.warning("the training is done; what came after its last checkpoint failed:", exc_info=True)


def test_best(trainer: L.Trainer, model: Learner, datamodule: SegmentationDataModule) -> dict[str, float]:
    """Scores of the run's best checkpoint (or of the model as it is, where there is none) on the test split."""
    checkpoint = trainer.checkpoint_callback
    if isinstance(checkpoint, RunCheckpoint) and checkpoint.best.is_file():
        trainer.strategy.load_model_state_dict(checkpoints.read(checkpoint.best))
    trainer.test(model, datamodule=datamodule, verbose=False)
    return dict(model.results["test"])


def _finish(
    settings: Settings, run_dir: Path, record: dict[str, Any], trainer: L.Trainer, model: Learner,
    datamodule: SegmentationDataModule,
) -> None:  # fmt: skip
    """Tells what came out, once it is written: nothing that goes wrong here changes how the run ended."""
    chosen = {
        "model": settings.model.name,
        "network": settings.network.name,
        "loss": settings.loss.name,
        "data": settings.data.dataset.name,
        "lr": settings.optimizer.lr,
        "batch_size": settings.data.batch_size,
        "epochs": settings.trainer.max_epochs,
        "seed": settings.seed,
    }
    overrides = ((o.partition("=")[0].lstrip("+"), o.partition("=")[2]) for o in task_overrides())
    changed = {key: "true" if value.startswith("{_target_:") else value for key, value in overrides}
    scores = {
        f"{stage}/{k}": record[stage][k]
        for stage in ("val", "test")
        for k in ("miou", "dice", DICE_FOREGROUND)
        if k in record.get(stage, {})
    }
    if record["status"] != "interrupted":  # one point for a run, also for one that was resumed
        with _afterwards("the loggers' table of hyper-parameters"):
            log_hparams(trainer, chosen | changed, scores)
    with _afterwards("the end of the loggers"):
        close_loggers(trainer, record["status"])
    if "test" in record:
        with _afterwards("the table of scores"):
            split = datamodule.source("test").split
            title = "test" if split == "test" else f"test (the data has no test split: {split})"
            print(score_table(record["test"], model.label_set, title))
    _log.info("%s after %.0f s; run folder: %s", record["status"], record["wall_seconds"], run_dir)
    if "tensorboard" in settings.logger:
        _log.info("look at it: tensorboard --logdir %s   (or: make dashboard)", run_dir)


@contextlib.contextmanager
def _afterwards(what: str) -> Iterator[None]:
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        _log.warning("%s failed (%s: %s); %s has all scores", what, type(error).__name__, error, run_folder.METRICS)


def _headline(settings: Settings, datamodule: SegmentationDataModule, parameters: int) -> str:
    train, val = len(datamodule.source("train")), len(datamodule.source("val"))
    unlabeled = f", {len(datamodule.unlabeled)} unlabelled" if datamodule.unlabeled is not None else ""
    return (
        f"{settings.model.name} with {settings.network.name} "
        f"({parameters / 1e6:.2f} M parameters), {datamodule.label_set.num_classes} classes, "
        f"{train} training and {val} validation samples{unlabeled}, seed {settings.seed}"
    )


def _say(text: str) -> None:
    if machine.is_main_process():
        _log.info(text)
