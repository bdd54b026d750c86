"""On what data, and where, a checkpoint is scored: its own settings, with what of them was chosen otherwise."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from src.config.check import check_keys, check_node
from src.config.evaluation import ChosenData
from src.config.parts import Data, Node, Trainer, types_of
from src.config.settings import Trained
from src.errors import UserError
from src.files.untrusted import shown
from src.storage.run_config import refuse_places
from src.storage.trust import Trust, check_targets

_log = logging.getLogger(__name__)
# What of an option of the group `trainer` bears on an evaluation; the rest of it is of training alone.
_WHERE = ("accelerator", "precision", "devices", "strategy", "num_nodes", "timeout_minutes")
# What of the training's settings bears on the scores.
_OF_TRAINING = (
    "accelerator", "precision", "deterministic", "benchmark", "limit_val_batches", "limit_test_batches",
)  # fmt: skip


def with_trained(chosen: Data, trained: Node, names: Sequence[str], typed: Collection[str] | None, file: Path) -> Data:
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


def data_of(trained: Trained, chosen: ChosenData, file: Path, trust: Trust, without_folds: bool = False) -> Data:
    """The data that a checkpoint was trained on, with the keys that were chosen on the command line.

    The checkpoint may be a stranger's: only this program's data sets, and what is trusted, are built, and no path or URL is
    taken out of it.

    Args:
        without_folds: of runs that held out other folds, score none: a fold that one held out the others learnt from.

    Raises:
        UserError: it names anything else, or the data's folder is needed and was not given.
    """
    from src.storage import ownership

    if not trained.dataset.node:
        raise UserError(f"ckpt: {file} does not say what data it was trained on; choose it: data=…")
    trained_in = trained.data.root
    said = {key: value for key, value in asdict(chosen).items() if value is not None}
    root = chosen.root or ownership.root(file, trained_in)
    data = {
        **trained.data.node,
        "cache_dir": None,
        "labeled_list": None,
        "synthetic": None,
        "download": False,
        **said,
        "root": root,
    }
    if without_folds and "folds" in data:
        data["folds"] = None
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
