"""A checkpoint scored on the splits of its data, or of other data."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.config.evaluation import ChosenData, Evaluation
from src.config.parts import Trainer, filled
from src.config.settings import Trained
from src.errors import UserError
from src.files.untrusted import shown
from src.storage import run_folder
from src.storage.trust import OWN, Trust, split_packages
from src.training.scored_on import data_of, trainer_of, with_trained

if TYPE_CHECKING:
    from src.data.datamodule import SegmentationDataModule
    from src.data.samples import Split
    from src.distributed.supervision import RankSupervisor
    from src.models.base import Segmenter
    from src.training.measuring import Measuring

_log = logging.getLogger(__name__)
Results = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Opened:
    """A checkpoint with the data that it is scored on.

    Attributes:
        files: the checkpoint, or those of an ensemble.
        model: theirs.
        on: where it is scored, and in what precision.
        root: of the data.
        as_trained: whether data, protocol and precision are those of the run that made it.
        trained: what that run was trained with.
    """

    files: tuple[Path, ...]
    model: Segmenter
    datamodule: SegmentationDataModule
    on: Trainer
    root: str | None
    as_trained: bool
    trained: Trained


def score(
    asked: Evaluation, typed: Collection[str] | None = None, *, prints: bool = True, opened: Opened | None = None
) -> Results:
    """Scores of each split, as in metrics.json; on CPU the same to the last digit as the training run's own.

    Args:
        typed: the keys that the user typed. Of other data (`data=…`) the keys that belong to the model (window, bands …)
            are the checkpoint's but for these; None takes all of them from `asked`.
        prints: whether the scores are printed.
        opened: the checkpoint, where it is opened already.

    Raises:
        UserError: the checkpoint or the data is bad, or the images or the classes do not fit.
    """
    from src.distributed.supervision import RankSupervisor

    with RankSupervisor(lambda words, status: None) as ranks:
        return _score(asked, opened or open_checkpoint(asked, typed), ranks, prints)


def _score(asked: Evaluation, opened: Opened, ranks: RankSupervisor, prints: bool) -> Results:
    from src.distributed.supervision import in_words
    from src.training import build, machine
    from src.training.ensembles import said_of
    from src.training.score_table import score_table

    model, datamodule, on = opened.model, opened.datamodule, opened.on
    machine.check_devices(on)
    run_dir = Path(asked.paths.output_dir)
    written = said_of(opened.files, model)
    measuring = _measuring(asked, opened) if asked.measured.of else None
    progress = {"progress": {"_target_": "src.callbacks.progress.Progress"}}
    more = [] if measuring is None else [measuring.callback]
    trainer = build.build_trainer(on, asked.paths.output_dir, progress, {}, 1, ranks, *more)
    results: Results = {}
    told: list[str] = []
    try:
        for split in asked.splits:
            if measuring is not None:
                measuring.begin(split)
            run = trainer.validate if split == "val" else trainer.test
            run(model, datamodule=datamodule, verbose=False)
            results[split] = dict(model.results[split])
            if measuring is not None:
                told.append(measuring.end(split, trainer.is_global_zero))
    except Exception as error:  # the scores of the splits before it stand
        if trainer.is_global_zero and results:
            run_folder.write_metrics(run_dir, {"status": "failed", "error": in_words(error)[0], **written, **results})
        raise
    if trainer.is_global_zero:
        run_folder.write_metrics(run_dir, {"status": "completed", **written, **results})
        for at, split in enumerate(asked.splits if prints else ()):
            print(score_table(results[split], model.label_set, f"{split} (split: {datamodule.source(split).split})"))
            if told:
                print(told[at])
        _log.info("%s; written to %s", ", ".join(map(str, opened.files)), run_dir / run_folder.METRICS)
    return results


def open_checkpoint(
    asked: Evaluation, typed: Collection[str] | None = None, splits: tuple[Split, ...] | None = None
) -> Opened:
    """Builds the model and opens the splits, and checks that they fit one another.

    Args:
        splits: in place of those that are asked for.

    Raises:
        UserError: they do not.
    """
    from src.data.trained_on import Images, check_classes, check_unseen
    from src.storage import checkpoints
    from src.training import build, machine
    from src.training.ensembles import files_of, segmenter_of
    from src.training.library_messages import quiet

    quiet()
    opened_splits: tuple[Split, ...] = tuple(asked.splits) if splits is None else splits
    files = files_of(asked.ckpt)
    file, packages = files[0], asked.trust or ()
    model, trained = segmenter_of(files, packages, scored=True)
    own_protocols = model.protocols
    model.predict_by(asked.inference)
    chosen = asked.own_data
    trust = OWN if chosen is not None else Trust(f"ckpt: {file}", split_packages(packages))
    if chosen is not None:
        data = with_trained(chosen, trained.dataset.node, model.label_set.names, typed, file)
    else:
        data = data_of(trained, filled(ChosenData, asked.data), file, trust, len(files) > 1)
    datamodule = build.build_data(data, trained.seed, use_depth=trained.tasks.use_depth, trust=trust)
    if chosen is None:
        for one in files:
            for note in check_unseen(datamodule.source, opened_splits, checkpoints.samples_of(one), str(one)):
                _log.warning("%s", note)
    datamodule.prepare(opened_splits)
    for split in opened_splits:
        source = datamodule.source(split)
        given = Images.of_source(source)
        if reason := model.images.contradiction(given):
            raise UserError(
                f"ckpt: {file} does not fit the data: the split {split!r} has {reason}; give data like those that it "
                "learnt from"
            )
        if doubt := model.images.doubt(given):
            _log.warning("the split %r has %s", split, doubt)
        check_classes(model.label_set, source.label_set, str(file))
    on = trainer_of(trained, asked.trainer, file, typed or ())
    trained_in = trained.trainer.precision
    if machine.is_main_process() and trained_in != on.precision:
        _log.info("trainer.precision=%s (trained with %s)", on.precision, shown(str(trained_in)))
    as_trained = chosen is None and model.protocols == own_protocols and trained_in == on.precision
    return Opened(files, model, datamodule, on, data.root, as_trained, trained)


def _measuring(asked: Evaluation, opened: Opened) -> Measuring:
    from src.training.ensembles import digest, said_of
    from src.training.measuring import Measuring

    files = opened.files
    file = files[0]
    is_best = opened.as_trained and len(files) == 1 and _is_best(file)
    at_home = is_best and asked.output is None
    base = file.parent.parent if at_home else Path(asked.output or asked.paths.output_dir).expanduser()
    if base.is_dir():  # a run folder may be a stranger's
        run_folder.check_own(base, (run_folder.EVALUATION,))
    about = {
        "checkpoint": digest(files), "inference": said_of(files, opened.model)["inference"],
        "precision": str(opened.on.precision), "as_trained": opened.as_trained,
    }  # fmt: skip
    calibrated = base / (run_folder.CALIBRATED if at_home else Path(run_folder.CALIBRATED).name)
    return Measuring(opened.model, opened.datamodule, asked, files, base / run_folder.EVALUATION, calibrated, about)


def _is_best(file: Path) -> bool:
    """Whether a checkpoint is the one that its run's folder stands for, and that is a run's folder."""
    from src.storage import checkpoints

    run_dir = file.parent.parent
    if file.parent.name != run_folder.CHECKPOINTS or not (run_dir / run_folder.CONFIG).is_file():
        return False
    return checkpoints.find(str(run_dir)).resolve() == file.resolve()
