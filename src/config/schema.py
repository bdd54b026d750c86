"""Which groups and keys a training config has, who sets them, and which are refused. Types and ranges are in `parts.py`."""

from __future__ import annotations

from collections.abc import Mapping

from src.config.inference import Inference
from src.config.parts import Data, Model, Optimizer, Trainer, types_of
from src.config.settings import Settings

GROUPS = (
    "data", "model", "network", "discriminator", "loss", "optimizer", "scheduler", "trainer", "tasks", "metrics", "callbacks",
    "logger", "paths", "inference",
)  # fmt: skip
# An entry point's own keys, those outside the groups.
TOP_LEVEL: dict[str, object] = {key: value for key, value in types_of(Settings).items() if key not in GROUPS}
# Keys of classes of libraries, whose own annotations say less than we know; and those of a group that names no class.
TYPES: dict[str, Mapping[str, object]] = {
    "optimizer": types_of(Optimizer), "trainer": types_of(Trainer), "inference": types_of(Inference),
}  # fmt: skip
# Keys that are no parameter of the group's class: the program takes them out and acts on them.
OURS: dict[str, Mapping[str, object]] = {
    "optimizer": {key: types_of(Optimizer)[key] for key in Optimizer.OURS},
    "data": {"synthetic": types_of(Data)["synthetic"]},
    "model": {key: types_of(Model)[key] for key in ("class_weights", "judge", "teacher")},
    "trainer": {key: types_of(Trainer)[key] for key in Trainer.OURS},
}
# Lightning's keys that would do nothing here, or something else than they say; and what to take instead.
REFUSED: dict[str, dict[str, str]] = {
    "trainer": {
        "gradient_clip_algorithm": "gradients are clipped by their norm; leave it out",
        "fast_dev_run": "take debug=fast",
        "overfit_batches": "take debug=overfit, or data.limit",
        "barebones": "take callbacks and loggers out one by one, e.g. callbacks.pictures=null",
        "reload_dataloaders_every_n_epochs": "the order of the data is the program's; leave it out",
    },
}
RESUMED = "resumed_at"  # what a logger takes that is told where a run goes on
# Names that code gives, never the YAML.
_GIVEN_BY_CODE: dict[str, frozenset[str]] = {
    "network": frozenset({"num_classes", "in_channels"}),
    "discriminator": frozenset({"num_classes", "in_channels"}),
    "loss": frozenset({"ignore_index", "class_weights"}),
    "optimizer": frozenset({"params"}),
    "scheduler": frozenset({"optimizer", "total_steps"}),
    "data": frozenset({"seed", "use_unlabeled", "use_depth", "strong_views"}),
    "data.dataset": frozenset({"split", "root", "download"}),
    "trainer": frozenset(
        {"callbacks", "logger", "use_distributed_sampler", "enable_checkpointing", "default_root_dir"}
    ),
    "model": frozenset(
        {
            "network",
            "loss",
            "label_set",
            "channels",
            "intensity",
            "optimization",
            "seed",
            "discriminator",
            "tasks",
            "metrics",
            "segmenter",
            "taught_by",
        }
    ),
    "tasks": frozenset({"label_set"}),
    "metrics.*": frozenset({"num_classes", "ignore_index"}),
    "logger.*": frozenset({RESUMED}),
}
# The loss whose terms are losses, each built with what the sum is given.
SUM = "src.losses.sum.Sum"
RESERVED = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def given_by_code(path: str) -> frozenset[str]:
    """Names of the target at this place in a config that code gives, never the YAML."""
    if path.startswith("loss.terms."):
        return _GIVEN_BY_CODE["loss"]
    group, dot, _ = path.partition(".")
    return _GIVEN_BY_CODE.get(f"{group}.*" if dot and group in ("metrics", "logger") else path, frozenset())
