"""Scores a checkpoint: `python -m src.evaluate ckpt=FILE_OR_RUN_DIR [data=… data.root=…]`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig
from pydantic import NonNegativeInt, PositiveInt

from src import cli
from src.config.check import TRAINER, check_keys, check_node

_log = logging.getLogger(__name__)
_KEYS: dict[str, Any] = {"ckpt": str, "splits": list[Literal["val", "test"]], "data": Any, "trainer": Any, "paths": Any}
_DATA: dict[str, Any] = {
    "root": str | None, "eval_batch_size": PositiveInt | None, "num_workers": NonNegativeInt | None,
    "cache": Literal["ram"] | None,
}  # fmt: skip
_TRAINER: dict[str, Any] = {
    **{key: TRAINER[key] | None for key in ("accelerator", "precision", "devices")}, "strategy": str,
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
    from src import build, checkpoints, run_folder
    from src.errors import UserError
    from src.tables import score_table

    file = checkpoints.find(settings["ckpt"])
    model, config = build.model_from_checkpoint(file)
    chosen = settings["data"]
    data = chosen if "dataset" in chosen else config["data"] | {k: v for k, v in chosen.items() if v is not None}
    datamodule = build.build_data(data, int(config["seed"]))
    datamodule.prepare(tuple(settings["splits"]))
    for split in settings["splits"]:
        names = datamodule.source(split).label_set.names
        if names != model.label_set.names:
            raise UserError(
                f"ckpt: {file} knows {len(model.label_set.names)} classes ({', '.join(model.label_set.names)}), "
                f"the data has {len(names)} ({', '.join(names)}); they must be the same"
            )
    chosen_trainer = {k: v for k, v in settings["trainer"].items() if v is not None}
    on = config["trainer"] | {"num_nodes": 1} | chosen_trainer
    build.check_devices(on)
    trainer = build.build_trainer(
        {
            "trainer": on,
            "callbacks": {"progress": {"_target_": "src.callbacks.progress.Progress"}},
            "logger": None,
            "paths": settings["paths"],
        }
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


def _task(config: DictConfig) -> None:
    evaluate(cli.plain(config))


if __name__ == "__main__":
    cli.start("evaluate", _task, check)
