"""Scores a checkpoint: `python -m src.evaluate ckpt=FILE_OR_RUN_DIR [data=… data.root=…]`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig
from pydantic import NonNegativeInt, PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.check import check_inference, check_keys, check_node
from src.config.parts import (
    Accelerator,
    Config,
    Data,
    Devices,
    Node,
    Paths,
    Precision,
    Strategy,
    Trainer,
    filled,
    types_of,
)
from src.config.settings import Trained
from src.errors import UserError
from src.files.untrusted import shown
from src.storage.run_config import refuse_places
from src.storage.trust import OWN, Trust, check_targets, split_packages

if TYPE_CHECKING:
    from src.distributed.supervision import RankSupervisor

_log = logging.getLogger(__name__)
# What of an option of the group `trainer` bears on an evaluation; the rest of it is of training alone.
_WHERE = ("accelerator", "precision", "devices", "strategy", "num_nodes", "timeout_minutes")
# What of the training's settings bears on the scores.
_OF_TRAINING = (
    "accelerator", "precision", "deterministic", "benchmark", "limit_val_batches", "limit_test_batches",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChosenData:
    """What may be changed of the data that a checkpoint was trained on."""

    root: str | None = None
    eval_batch_size: PositiveInt | None = None
    num_workers: NonNegativeInt | None = None
    cache: Literal["ram", "disk"] | None = None
    cache_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class Where:
    """Keys of `trainer` where no option of it is chosen."""

    accelerator: Accelerator | None = None
    precision: Precision | None = None
    devices: Devices | None = 1
    strategy: Strategy | None = "auto"


@dataclass(frozen=True, kw_only=True)
class Evaluation(Asked):
    """What an evaluation is told.

    Attributes:
        ckpt: a checkpoint, or a run folder.
        trust: packages that the checkpoint's config may name.
        data: a whole data set, or what is changed of the checkpoint's.
        trainer: where it runs, and in what precision.
        inference: what is changed of how the model predicts; a key that is None is as it was trained.
    """

    ckpt: str
    splits: list[Literal["val", "test"]]
    data: Node
    trainer: Node
    inference: Node
    paths: Paths
    trust: list[str] | None = None

    def check(self) -> None:
        """Checks a `data` group, where one was chosen, against its classes' signatures."""
        if "_target_" in self.trainer:
            check_node("trainer", self.trainer)
        else:
            check_keys(self.trainer, types_of(Where), "trainer")
        if Trainer.of(self.trainer).strategy == "deepspeed":
            raise UserError(
                "trainer.strategy: deepspeed cuts optimizer states into shards, and evaluating has none; take trainer=ddp"
            )
        check_inference(self.inference, partly=True)
        if (data := self.own_data) is not None:
            node = data.dataset.node
            if data.dataset.labels == "???":  # the checkpoint may say
                node = {**data.dataset.keys_but("labels"), "_partial_": True}
            check_node("data", {**data.node, "dataset": node})
        else:
            check_keys(self.data, types_of(ChosenData), "data")

    @property
    def own_data(self) -> Data | None:
        """The data set that is chosen in place of the checkpoint's."""
        return Data.of(self.data) if "dataset" in self.data else None


def evaluate(settings: Config | Evaluation, typed: Collection[str] | None = None) -> dict[str, dict[str, float]]:
    """Scores of each split, as in metrics.json; on CPU the same to the last digit as the training run's own.

    Args:
        settings: what the evaluation is told, or the whole config as plain containers.
        typed: the keys that the user typed. Of other data (`data=…`) the keys that belong to the model (window, bands …)
            are the checkpoint's but for these; None takes all of them from `settings`.

    Raises:
        UserError: the checkpoint or the data is bad, or the images or the classes do not fit.
    """
    asked = settings if isinstance(settings, Evaluation) else Evaluation.of(settings)
    from src.distributed.supervision import RankSupervisor

    with RankSupervisor(lambda words, status: None) as ranks:
        return _evaluate(asked, typed, ranks)


def _evaluate(asked: Evaluation, typed: Collection[str] | None, ranks: RankSupervisor) -> dict[str, dict[str, float]]:
    from src.data.trained_on import Images, check_classes, check_unseen
    from src.distributed.supervision import in_words
    from src.storage import checkpoints, run_folder
    from src.training import build, machine
    from src.training.library_messages import quiet
    from src.training.score_table import score_table

    quiet()
    file = checkpoints.find(asked.ckpt)
    packages = asked.trust or ()
    model, trained = build.model_from_checkpoint(file, packages, scored=True)
    model.inference = model.inference.with_keys(asked.inference)
    chosen = asked.own_data
    trust = OWN if chosen is not None else Trust(f"ckpt: {file}", split_packages(packages))
    if chosen is not None:
        data = _with_trained(chosen, trained.dataset.node, model.label_set.names, typed, file)
    else:
        data = data_of(trained, filled(ChosenData, asked.data), file, trust)
    datamodule = build.build_data(data, trained.seed, use_depth=trained.tasks.use_depth, trust=trust)
    if chosen is None:
        for note in check_unseen(datamodule.source, asked.splits, checkpoints.samples_of(file), str(file)):
            _log.warning("%s", note)
    datamodule.prepare(tuple(asked.splits))
    for split in asked.splits:
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
    machine.check_devices(on)
    progress = {"progress": {"_target_": "src.callbacks.progress.Progress"}}
    trainer = build.build_trainer(on, asked.paths.output_dir, progress, {}, 1, ranks)
    run_dir = Path(asked.paths.output_dir)
    results: dict[str, dict[str, float]] = {}
    written = {"checkpoint": str(file), "inference": asdict(model.inference)}
    try:
        for split in asked.splits:
            run = trainer.validate if split == "val" else trainer.test
            run(model, datamodule=datamodule, verbose=False)
            results[split] = dict(model.results[split])
    except Exception as error:  # the scores of the splits before it stand
        if trainer.is_global_zero and results:
            run_folder.write_metrics(run_dir, {"status": "failed", "error": in_words(error)[0], **written, **results})
        raise
    if trainer.is_global_zero:
        run_folder.write_metrics(run_dir, {"status": "completed", **written, **results})
        for split in asked.splits:
            print(score_table(results[split], model.label_set, f"{split} (split: {datamodule.source(split).split})"))
        _log.info("%s; written to %s", file, run_dir / run_folder.METRICS)
    return results


def _with_trained(chosen: Data, trained: Node, names: Sequence[str], typed: Collection[str] | None, file: Path) -> Data:
    """Other data than a checkpoint was trained on, read as those were unless typed otherwise, which is said.

    The checkpoint may be a stranger's: of its data only the keys that the chosen data set's class lists are taken, plain
    values that are checked like typed ones.

    Args:
        chosen: the data set that the user chose.
        trained: the checkpoint's `data.dataset`.
        names: the checkpoint's classes.

    Raises:
        UserError: a key of the checkpoint's fits the data set not, or one is missing that the user must give.
    """
    from hydra.utils import get_object

    from src.data.trained_on import as_trained, labels_in_order
    from src.training import machine

    given = chosen.dataset.node
    made_by = get_object(chosen.dataset.target)
    if typed is None:
        typed = {f"data.dataset.{key}" for key, value in given.items() if value != "???"}
    dataset, read, otherwise = as_trained(given, trained, getattr(made_by, "HOW_READ", ()), typed)
    dataset, labelled, _ = as_trained(dataset, trained, getattr(made_by, "HOW_LABELLED", ()), typed)
    if not _is_plain({key: dataset[key] for key in dataset if key in trained and dataset[key] != given.get(key)}):
        raise UserError(f"ckpt: {file} has more than plain values in its data's settings; refused")
    if isinstance(labels := dataset.get("labels"), Mapping):
        dataset["labels"] = labels_in_order(labels, names)
    data = {**chosen.node, "dataset": dataset}
    check_node("data", data)
    if machine.is_main_process():
        if read or labelled:
            _log.info("as %s was trained: %s", file, ", ".join([*read, *labelled]))
        if otherwise:
            _log.warning("%s: these scores are of images unlike those that it learnt from", ", ".join(otherwise))
    return Data.of(data)


def _is_plain(value: object) -> bool:
    """Whether nothing in a value would be built."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and not k.startswith("_") and _is_plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def data_of(trained: Trained, chosen: ChosenData, file: Path, trust: Trust) -> Data:
    """The data that a checkpoint was trained on, with the keys that were chosen on the command line.

    The checkpoint may be a stranger's: only this program's data sets, and what is trusted, are built, and no path or URL is
    taken out of it.

    Raises:
        UserError: it names anything else, or the data's folder is needed and was not given.
    """
    from src.storage import ownership

    if not trained.dataset.node:
        raise UserError(f"ckpt: {file} does not say what data it was trained on; choose it: data=…")
    trained_in = trained.data.root
    said = {key: value for key, value in asdict(chosen).items() if value is not None}
    root = chosen.root or ownership.root(file, trained_in)
    data = {**trained.data.node, "cache_dir": None, "labeled_list": None, "download": False, **said, "root": root}
    check_targets(data, trust, "data")
    refuse_places({key: value for key, value in data.items() if key not in said and key != "root"}, "data", file)
    if trained_in is not None and root is None:
        given = shlex.quote(f"data.root={shown(str(trained_in))}")
        raise UserError(
            "data.root: must be given, since no path is taken out of a checkpoint but in the folder of a run of your own; if "
            f"its data lie there: python -m src.evaluate {shlex.quote(f'ckpt={file}')} {given}"
        )
    check_node("data", data)
    return Data.of(data)


def trainer_of(trained: Trained, chosen: Node, file: Path, typed: Collection[str] = ()) -> Trainer:
    """Lightning's Trainer with what of a checkpoint's settings bears on the scores, and what was chosen instead.

    Args:
        chosen: the group `trainer`: where to run, and in what precision; an option's other keys (max_epochs, limits …) are
            those that a training begins with.
        typed: keys that the user typed; of what bears on the scores these count too.

    Raises:
        UserError: the checkpoint's are no such settings.
    """
    node = trained.trainer.node
    kept = {key: node[key] for key in _OF_TRAINING if node.get(key) is not None}
    try:
        check_keys(kept, types_of(Trainer), "trainer")
    except UserError as error:
        raise UserError(f"ckpt: {file} is not a checkpoint of this program ({error})") from None
    still = {"_target_": "lightning.Trainer", "num_nodes": 1, "enable_model_summary": False}
    keys = [*_WHERE, *(key for key in _OF_TRAINING if f"trainer.{key}" in typed)]
    return Trainer.of(still | kept | {key: chosen[key] for key in keys if chosen.get(key) is not None})


def _task(asked: Evaluation, _: DictConfig) -> None:
    from src.data.trained_on import typed_keys
    from src.training import build

    evaluate(asked, typed_keys(build.task_overrides()))


if __name__ == "__main__":
    start("evaluate", _task, Evaluation.of)
