"""Scores a checkpoint: `python -m src.evaluate ckpt=FILE_OR_RUN_DIR [data=… data.root=…]`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig
from pydantic import NonNegativeInt, PositiveInt

from src import cli
from src.config.check import TRAINER, Share, check_keys, check_node, uses_depth
from src.config.foreign import refuse_places
from src.config.trusted import OWN, Trust, check_targets, split_packages
from src.errors import UserError
from src.untrusted import shown

if TYPE_CHECKING:
    from src.ranks import Ranks

_log = logging.getLogger(__name__)
_KEYS: dict[str, Any] = {"ckpt": str, "splits": list[Literal["val", "test"]], "data": Any, "trainer": Any, "paths": Any,
                          "trust": list[str] | None}  # fmt: skip
_DATA: dict[str, Any] = {
    "root": str | None, "eval_batch_size": PositiveInt | None, "num_workers": NonNegativeInt | None,
    "cache": Literal["ram", "disk"] | None, "cache_dir": str | None,
}  # fmt: skip
_TRAINER: dict[str, Any] = {key: TRAINER[key] | None for key in ("accelerator", "precision", "devices", "strategy")}

# What of the training's settings bears on the scores.
_OF_TRAINING: dict[str, Any] = {
    **{key: TRAINER[key] for key in ("accelerator", "precision")}, "deterministic": bool | Literal["warn"],
    "benchmark": bool, "limit_val_batches": NonNegativeInt | Share, "limit_test_batches": NonNegativeInt | Share,
}  # fmt: skip


def check(config: Mapping[str, Any]) -> None:
    """Checks the composed config; a `data` group, where one was chosen, against its classes' signatures."""
    check_keys(config, _KEYS)
    check_keys(config["trainer"], _TRAINER, "trainer")
    if "dataset" in config["data"]:
        check_node("data", config["data"])
    else:
        check_keys(config["data"], _DATA, "data")


def evaluate(settings: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Scores of each split, as in metrics.json; on CPU the same to the last digit as the training run's own.

    Raises:
        UserError: the checkpoint or the data is bad, or the classes do not fit.
    """
    check(settings)
    from src.ranks import Ranks

    with Ranks(lambda words, status: None) as ranks:
        return _evaluate(settings, ranks)


def _evaluate(settings: Mapping[str, Any], ranks: Ranks) -> dict[str, dict[str, float]]:
    from src import build, checkpoints, run_folder
    from src.quiet import quiet
    from src.tables import score_table

    quiet()
    file = checkpoints.find(settings["ckpt"])
    packages = settings.get("trust") or ()
    model, config = build.model_from_checkpoint(file, packages, scored=True)
    chosen = settings["data"]
    is_own = "dataset" in chosen
    trust = OWN if is_own else Trust(f"ckpt: {file}", split_packages(packages))
    data = chosen if is_own else data_of(config, chosen, file, trust)
    datamodule = build.build_data(data, _seed(config), use_depth=uses_depth(config), trust=trust)
    datamodule.prepare(tuple(settings["splits"]))
    for split in settings["splits"]:
        names = datamodule.source(split).label_set.names
        if names != model.label_set.names:
            raise UserError(
                f"ckpt: {file} knows {len(model.label_set.names)} classes ({', '.join(model.label_set.names)}), "
                f"the data has {len(names)} ({', '.join(names)}); they must be the same"
            )
    on = trainer_of(config, settings["trainer"], file)
    build.check_devices(on)
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
    results: dict[str, dict[str, float]] = {}
    for split in settings["splits"]:
        run = trainer.validate if split == "val" else trainer.test
        run(model, datamodule=datamodule, verbose=False)
        results[split] = dict(model.results[split])
        if trainer.is_global_zero:
            print(score_table(results[split], model.label_set, f"{split} (split: {datamodule.source(split).split})"))
    if trainer.is_global_zero:
        run_dir = Path(settings["paths"]["output_dir"])
        run_folder.write_metrics(run_dir, {"status": "completed", "checkpoint": str(file), **results})
        _log.info("%s; written to %s", file, run_dir / run_folder.METRICS)
    return results


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
    data = {**data, "root": None, "download": False, **{k: v for k, v in chosen.items() if v is not None}}
    check_targets(data, trust, "data")
    refuse_places(
        {key: value for key, value in data.items() if chosen.get(key) is None and key != "root"}, "data", file
    )
    if trained_in is not None and data["root"] is None:
        raise UserError(
            "data.root: must be given, since no path is taken out of a checkpoint; this one was trained on "
            f"data.root={shown(str(trained_in))}"
        )
    check_node("data", data)
    return data


def trainer_of(config: Mapping[str, Any], chosen: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Lightning's Trainer with what of a checkpoint's settings bears on the scores, and what was chosen instead.

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
    return still | kept | {key: value for key, value in chosen.items() if value is not None}


def _task(config: DictConfig) -> None:
    evaluate(cli.plain(config))


if __name__ == "__main__":
    cli.start("evaluate", _task, check)
