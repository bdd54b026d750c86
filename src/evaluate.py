"""Scores a checkpoint: `python -m src.evaluate ckpt=FILE_OR_RUN_DIR [data=… data.root=…]`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig
from pydantic import NonNegativeInt, PositiveInt

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import plain, start
from src.config.check import TRAINER, Share, check_keys, check_node, uses_depth
from src.errors import UserError
from src.files.untrusted import shown
from src.storage.run_config import refuse_places
from src.storage.trust import OWN, Trust, check_targets, split_packages

if TYPE_CHECKING:
    from src.distributed.supervision import RankSupervisor

_log = logging.getLogger(__name__)
_KEYS: dict[str, Any] = {"ckpt": str, "splits": list[Literal["val", "test"]], "data": Any, "trainer": Any, "paths": Any,
                          "trust": list[str] | None}  # fmt: skip
_DATA: dict[str, Any] = {
    "root": str | None, "eval_batch_size": PositiveInt | None, "num_workers": NonNegativeInt | None,
    "cache": Literal["ram", "disk"] | None, "cache_dir": str | None,
}  # fmt: skip
_TRAINER: dict[str, Any] = {key: TRAINER[key] | None for key in ("accelerator", "precision", "devices", "strategy")}
# What of an option of the group `trainer` bears on an evaluation; the rest of it is of training alone.
_OF_OPTION = (*_TRAINER, "num_nodes", "timeout_minutes")

# What of the training's settings bears on the scores.
_OF_TRAINING: dict[str, Any] = {
    **{key: TRAINER[key] for key in ("accelerator", "precision")}, "deterministic": bool | Literal["warn"],
    "benchmark": bool, "limit_val_batches": NonNegativeInt | Share, "limit_test_batches": NonNegativeInt | Share,
}  # fmt: skip


def check(config: Mapping[str, Any]) -> None:
    """Checks the composed config; a `data` group, where one was chosen, against its classes' signatures."""
    check_keys(config, _KEYS)
    if "_target_" in config["trainer"]:
        check_node("trainer", config["trainer"])
    else:
        check_keys(config["trainer"], _TRAINER, "trainer")
    if config["trainer"].get("strategy") == "deepspeed":
        raise UserError(
            "trainer.strategy: deepspeed cuts optimizer states into shards, and evaluating has none; take trainer=ddp"
        )
    if "dataset" in config["data"]:
        dataset = config["data"]["dataset"]
        if dataset.get("labels") == "???":  # the checkpoint may say
            dataset = {key: value for key, value in dataset.items() if key != "labels"} | {"_partial_": True}
        check_node("data", {**config["data"], "dataset": dataset})
    else:
        check_keys(config["data"], _DATA, "data")


def evaluate(settings: Mapping[str, Any], typed: Collection[str] | None = None) -> dict[str, dict[str, float]]:
    """Scores of each split, as in metrics.json; on CPU the same to the last digit as the training run's own.

    Args:
        settings: the whole config as plain containers.
        typed: the keys that the user typed. Of other data (`data=…`) the keys that belong to the model (window, bands …)
            are the checkpoint's but for these; None takes all of them from `settings`.

    Raises:
        UserError: the checkpoint or the data is bad, or the images or the classes do not fit.
    """
    check(settings)
    from src.distributed.supervision import RankSupervisor

    with RankSupervisor(lambda words, status: None) as ranks:
        return _evaluate(settings, typed, ranks)


def _evaluate(
    settings: Mapping[str, Any], typed: Collection[str] | None, ranks: RankSupervisor
) -> dict[str, dict[str, float]]:
    from src.data.trained_on import Images, check_classes, check_unseen
    from src.distributed.supervision import in_words
    from src.storage import checkpoints, ownership, run_folder
    from src.training import build, machine
    from src.training.library_messages import quiet
    from src.training.score_table import score_table

    quiet()
    file = checkpoints.find(settings["ckpt"])
    packages = settings.get("trust") or ()
    model, config = build.model_from_checkpoint(file, packages, scored=True)
    chosen = settings["data"]
    is_own = "dataset" in chosen
    trust = OWN if is_own else Trust(f"ckpt: {file}", split_packages(packages))
    if is_own:
        data = _with_trained(chosen, config, model.label_set.names, typed, file)
    else:
        data = data_of(config, {**chosen, "root": chosen["root"] or ownership.root(file, config)}, file, trust)
    datamodule = build.build_data(data, _seed(config), use_depth=uses_depth(config), trust=trust)
    if not is_own:
        known = (checkpoints.read(file).get("SegmentationDataModule") or {}).get("samples") or {}
        for note in check_unseen(datamodule.source, settings["splits"], known, str(file)):
            _log.warning("%s", note)
    datamodule.prepare(tuple(settings["splits"]))
    for split in settings["splits"]:
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
    on = trainer_of(config, settings["trainer"], file, typed or ())
    trained_in = (config.get("trainer") or {}).get("precision")
    if machine.is_main_process() and trained_in not in (None, on.get("precision")):
        _log.info("trainer.precision=%s (trained with %s)", on["precision"], shown(str(trained_in)))
    machine.check_devices(on)
    trainer = build.build_trainer(
        {
            "trainer": on,
            "callbacks": {"progress": {"_target_": "src.callbacks.progress.Progress"}},
            "logger": None,
            "paths": settings["paths"],
        },
        1,
        ranks,
    )
    run_dir = Path(settings["paths"]["output_dir"])
    results: dict[str, dict[str, float]] = {}
    written = {"checkpoint": str(file)}
    try:
        for split in settings["splits"]:
            run = trainer.validate if split == "val" else trainer.test
            run(model, datamodule=datamodule, verbose=False)
            results[split] = dict(model.results[split])
    except Exception as error:  # the scores of the splits before it stand
        if trainer.is_global_zero and results:
            run_folder.write_metrics(run_dir, {"status": "failed", "error": in_words(error)[0], **written, **results})
        raise
    if trainer.is_global_zero:
        run_folder.write_metrics(run_dir, {"status": "completed", **written, **results})
        for split in settings["splits"]:
            print(score_table(results[split], model.label_set, f"{split} (split: {datamodule.source(split).split})"))
        _log.info("%s; written to %s", file, run_dir / run_folder.METRICS)
    return results


def _with_trained(
    chosen: Mapping[str, Any],
    config: Mapping[str, Any],
    names: Sequence[str],
    typed: Collection[str] | None,
    file: Path,
) -> dict[str, Any]:
    """Other data than a checkpoint was trained on, read as those were unless typed otherwise, which is said.

    The checkpoint may be a stranger's: of its data only the keys that the chosen data set's class lists are taken, plain
    values that are checked like typed ones.

    Args:
        chosen: the group `data`.
        config: the checkpoint's.
        names: its classes.

    Raises:
        UserError: a key of the checkpoint's fits the data set not, or one is missing that the user must give.
    """
    from hydra.utils import get_object

    from src.data.trained_on import as_trained, labels_in_order
    from src.training import machine

    given, trained = chosen["dataset"], (config.get("data") or {}).get("dataset") or {}
    made_by = get_object(given["_target_"])
    if typed is None:
        typed = {f"data.dataset.{key}" for key, value in given.items() if value != "???"}
    dataset, read, otherwise = as_trained(given, trained, getattr(made_by, "HOW_READ", ()), typed)
    dataset, labelled, _ = as_trained(dataset, trained, getattr(made_by, "HOW_LABELLED", ()), typed)
    if not _is_plain({key: dataset[key] for key in dataset if key in trained and dataset[key] != given.get(key)}):
        raise UserError(f"ckpt: {file} has more than plain values in its data's settings; refused")
    if isinstance(dataset.get("labels"), Mapping):
        dataset["labels"] = labels_in_order(dataset["labels"], names)
    data = {**chosen, "dataset": dataset}
    check_node("data", data)
    if machine.is_main_process():
        if read or labelled:
            _log.info("as %s was trained: %s", file, ", ".join([*read, *labelled]))
        if otherwise:
            _log.warning("%s: these scores are of images unlike those that it learnt from", ", ".join(otherwise))
    return data


def _is_plain(value: Any) -> bool:
    """Whether nothing in a value would be built."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and not k.startswith("_") and _is_plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _seed(config: Mapping[str, Any]) -> int:
    seed = config.get("seed")
    return seed if isinstance(seed, int) else 0


def data_of(config: Mapping[str, Any], chosen: Mapping[str, Any], file: Path, trust: Trust) -> dict[str, Any]:
    """The data that a checkpoint was trained on, with the keys that were chosen on the command line.

    The checkpoint may be a stranger's: only this program's data sets, and what is trusted, are built, and no path or URL is
    taken out of it.

    Raises:
        UserError: it names anything else, or the data's folder is needed and was not given.
    """
    data = config.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("dataset"), Mapping):
        raise UserError(f"ckpt: {file} does not say what data it was trained on; choose it: data=…")
    trained_in = data.get("root")
    data = {**data, "root": None, "cache_dir": None, "download": False}
    data |= {key: value for key, value in chosen.items() if value is not None}
    check_targets(data, trust, "data")
    refuse_places(
        {key: value for key, value in data.items() if chosen.get(key) is None and key != "root"}, "data", file
    )
    if trained_in is not None and data["root"] is None:
        given = shlex.quote(f"data.root={shown(str(trained_in))}")
        raise UserError(
            "data.root: must be given, since no path is taken out of a checkpoint but in the folder of a run of your own; if "
            f"its data lie there: python -m src.evaluate {shlex.quote(f'ckpt={file}')} {given}"
        )
    check_node("data", data)
    return data


def trainer_of(
    config: Mapping[str, Any], chosen: Mapping[str, Any], file: Path, typed: Collection[str] = ()
) -> dict[str, Any]:
    """Lightning's Trainer with what of a checkpoint's settings bears on the scores, and what was chosen instead.

    Args:
        chosen: the group `trainer`: where to run, and in what precision; an option's other keys (max_epochs, limits …) are
            those that a training begins with.
        typed: keys that the user typed; of what bears on the scores these count too.

    Raises:
        UserError: the checkpoint's are no such settings.
    """
    trained = config.get("trainer") or {}
    kept = {key: trained[key] for key in _OF_TRAINING if trained.get(key) is not None}
    try:
        check_keys(kept, _OF_TRAINING, "trainer")
    except UserError as error:
        raise UserError(f"ckpt: {file} is not a checkpoint of this program ({error})") from None
    still = {"_target_": "lightning.Trainer", "num_nodes": 1, "enable_model_summary": False}
    keys = [*_OF_OPTION, *(key for key in _OF_TRAINING if f"trainer.{key}" in typed)]
    return still | kept | {key: chosen[key] for key in keys if chosen.get(key) is not None}


def _task(config: DictConfig) -> None:
    from src.data.trained_on import typed_keys
    from src.training import build

    evaluate(plain(config), typed_keys(build.task_overrides()))


if __name__ == "__main__":
    start("evaluate", _task, check)
