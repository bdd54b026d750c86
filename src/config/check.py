"""Checks a composed config as a whole, before anything is built and without importing torch.

Every error is one `UserError` that names the key, what is wrong and the mend.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from src.config import signatures
from src.config.consistency import check_consistency
from src.config.monitored import check_metrics, check_own_names
from src.config.shares import parse_share
from src.config.suggest import suggest
from src.errors import UserError
from src.files.untrusted import shown
from src.which_src import of_another

Share = Annotated[float, Field(ge=0, le=1)]

# What an entry point's own keys (those outside the groups) must be.
TOP_LEVEL: dict[str, Any] = {
    "seed": Annotated[int, Field(ge=0, lt=2**63)],
    "monitor": str,
    "monitor_mode": Literal["min", "max"] | None,
    "compile": bool,
    "test": bool,
    "init_from": str | None,
    "resume": None,
    "like": None,
    "optimized_metric": str,
}
GROUPS = (
    "data", "model", "network", "discriminator", "loss", "optimizer", "scheduler", "trainer", "tasks", "metrics", "callbacks",
    "logger", "paths",
)  # fmt: skip

# Keys of libraries' classes whose own annotations say less than we know.
OPTIMIZER: dict[str, Any] = {
    "lr": PositiveFloat,
    "weight_decay": NonNegativeFloat,
    "momentum": Annotated[float, Field(ge=0, lt=1)],
    "betas": Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)],
    "eps": NonNegativeFloat,
    "alpha": Share,
    "nesterov": bool,
}
# Keys that are no parameter of the group's class: the program takes them out and acts on them.
OURS: dict[str, dict[str, Any]] = {
    "optimizer": {"encoder_lr_factor": NonNegativeFloat, "decay_norm_and_bias": bool},
    "model": {"class_weights": Literal["balanced"] | list[NonNegativeFloat] | None},
    "trainer": {"timeout_minutes": PositiveFloat, "zero_stage": Literal[1, 2], "offload": bool},
}
Precision = Literal["32-true", "32", "16-mixed", "bf16-mixed", "bf16-true", "64-true", "64", 32, 64]
TRAINER: dict[str, Any] = {
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
    "devices": Literal["auto"] | PositiveInt | list[NonNegativeInt] | Literal[-1],
    "num_nodes": PositiveInt,
    "precision": Precision,
    "max_epochs": Annotated[int, Field(ge=1)] | None,
    "max_steps": Annotated[int, Field(ge=1)] | Literal[-1],
    "accumulate_grad_batches": PositiveInt,
    "gradient_clip_val": NonNegativeFloat | None,
    "check_val_every_n_epoch": PositiveInt,
    "log_every_n_steps": PositiveInt,
    "strategy": Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", "deepspeed"],
    "min_epochs": PositiveInt | None,
    "min_steps": PositiveInt | None,
    "limit_train_batches": NonNegativeInt | Share | None,
    "limit_val_batches": NonNegativeInt | Share | None,
    "limit_test_batches": NonNegativeInt | Share | None,
    "val_check_interval": PositiveInt | Annotated[float, Field(gt=0, le=1)] | None,
    "num_sanity_val_steps": NonNegativeInt | Literal[-1],
    "deterministic": bool | Literal["warn"] | None,
    "profiler": Literal["simple", "advanced", "pytorch"] | None,
}  # fmt: skip
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
# Names that code gives, never the YAML.
GIVEN_BY_CODE = {
    "network": {"num_classes", "in_channels"},
    "discriminator": {"num_classes", "in_channels"},
    "loss": {"ignore_index", "class_weights"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "total_steps"},
    "data": {"seed", "use_unlabeled", "use_depth", "strong_views"},
    "data.dataset": {"split", "root", "download"},
    "trainer": {"callbacks", "logger", "use_distributed_sampler", "enable_checkpointing", "default_root_dir"},
    "model": {
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
    },
    "tasks": {"label_set"},
    "metrics.*": {"num_classes", "ignore_index"},
}
RESERVED = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def check(config: Mapping[str, Any]) -> None:
    """Checks the whole config of a training run.

    Args:
        config: plain containers, interpolations resolved.

    Raises:
        UserError: the first thing that is wrong.
    """
    check_keys(config, TOP_LEVEL | dict.fromkeys(GROUPS, Any))
    for group in ("data", "model", "network", "loss", "optimizer", "scheduler", "trainer"):
        node = config.get(group)
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise UserError(
                f"{group}: nothing chosen; choose one, e.g. {group}=… (python -m src.train --help lists them)"
            )
        check_node(group, node)
    for group in ("discriminator", "tasks"):
        if config.get(group) is not None:
            check_node(group, config[group])
    check_own_names(config)
    for group in ("metrics", "callbacks", "logger"):
        for name, node in (config.get(group) or {}).items():
            if isinstance(node, Mapping):
                check_node(f"{group}.{name}", node)
            elif node is not None:
                raise UserError(
                    f"{group}.{name}: should be a class with its keys ({{_target_: …}}) or null, not {node!r}"
                )
    for name, value in (config.get("paths") or {}).items():
        _expect(f"paths.{name}", str | None, value)
    check_together(config)


def check_keys(node: Mapping[str, Any], keys: Mapping[str, Any], path: str = "") -> None:
    """Checks that a node has known keys only, and values that fit their annotations.

    Raises:
        UserError: the first key that is unknown, missing (`???`) or of a wrong type or range.
    """
    for key, value in node.items():
        where = f"{path}.{key}" if path else key
        if key not in keys:
            raise UserError(_unknown(key, path, list(keys)))
        if value == "???":
            raise UserError(f"{where}: must be given; say {where}=…")
        _expect(where, keys[key], value)


def given_by_code(path: str) -> Collection[str]:
    """Names of the target at this place in a config that code gives, never the YAML."""
    return GIVEN_BY_CODE.get("metrics.*" if path.startswith("metrics.") else path, ())


def check_node(path: str, node: Mapping[str, Any]) -> None:
    """Checks one node with a `_target_`, and those inside it, against the target's signature."""
    target = node.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"{path}._target_: should be the dotted path of a class or function, not {target!r}")
    try:
        signature = signatures.read(target)
    except LookupError as error:
        raise UserError(
            f"{path}._target_: {error.args[0]}; check the spelling of '{target}'{of_another(target)}"
        ) from None
    ours = OURS.get(path, {})
    given = given_by_code(path)
    own = {"optimizer": OPTIMIZER, "trainer": TRAINER}.get(path, {}) | ours
    for key, value in node.items():
        if key in RESERVED:
            continue
        where = f"{path}.{key}"
        if key in given:
            raise UserError(f"{where}: is set by the program; leave it out")
        if mend := REFUSED.get(path, {}).get(key):
            raise UserError(f"{where}: has no place here; {mend}")
        known = signature is None or signature.takes_any or key in signature.parameters or key in ours
        if not known:
            assert signature is not None
            names = [n for n in signature.parameters if n not in given]
            raise UserError(_unknown(key, path, [*names, *ours]))
        if value == "???":
            raise UserError(f"{where}: must be given; say {where}=…")
        if isinstance(value, Mapping) and "_target_" in value:
            check_node(where, value)
        elif key in own:
            _expect(where, own[key], value)
        elif signature is not None and key in signature.parameters:
            if value is not None and key in signature.built:
                raise UserError(f"{where}: should be a class with its keys ({{_target_: …}}), not {shown(repr(value))}")
            _expect(where, signature.parameters[key].annotation, value)
    if signature is not None and not node.get("_partial_"):
        for name, parameter in signature.parameters.items():
            if parameter.required and name not in node and name not in given:
                raise UserError(f"{path}.{name}: must be given; say +{path}.{name}=…")


def check_together(config: Mapping[str, Any]) -> None:
    """Checks what no single key can tell."""
    data, network, trainer = config["data"], config["network"], config["trainer"]
    check_metrics(config)
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    count = len(devices) if isinstance(devices, list) else devices
    batch = data["batch_size"]
    if isinstance(count, int) and count > 0 and batch % (count * nodes):
        raise UserError(
            f"data.batch_size: {batch} is global and cannot be split evenly over {count * nodes} devices; "
            f"take {-(-batch // (count * nodes)) * count * nodes}"
        )
    if str(trainer.get("precision")) == "16-mixed" and trainer.get("accelerator") == "cpu":
        raise UserError("trainer.precision: 16-mixed needs a GPU; on a CPU take bf16-mixed or 32-true")
    if trainer.get("sync_batchnorm") and trainer.get("accelerator") == "cpu":
        raise UserError("trainer.sync_batchnorm: torch synchronises batch norms on GPUs only; set it to false")
    divisor = _size_divisor(network)
    crop = data.get("crop")
    if crop and divisor and any(side % divisor for side in crop):
        mend = [max(divisor, round(side / divisor) * divisor) for side in crop]
        raise UserError(
            f"data.crop: {crop} is no multiple of this network's stride {divisor}; take e.g. data.crop={mend}"
        )
    _check_learning(config)
    check_consistency(config)
    if trainer.get("max_epochs") is None and trainer.get("max_steps", -1) == -1:
        raise UserError("trainer.max_epochs: without it and without trainer.max_steps a run never ends; give one")


def has_adversary(model: Mapping[str, Any]) -> bool:
    """Whether a model's settings ask for a discriminator."""
    semi = model.get("semi") or {}
    keys = (model.get("adversarial_weight", 0), model.get("feature_weight", 0), semi.get("adversarial_weight", 0))
    return any(key > 0 for key in keys) or semi.get("discriminator_threshold") is not None


def uses_depth(config: Mapping[str, Any]) -> bool:
    """Whether a config's tasks ask for data with depth."""
    return bool((config.get("tasks") or {}).get("depth", 0) > 0)


def uses_unlabeled(model: Mapping[str, Any]) -> bool:
    """Whether a model's settings ask for unlabelled images."""
    return (model.get("semi") or {}).get("method") is not None


def strong_views(model: Mapping[str, Any]) -> Literal[1, 2]:
    """Strongly changed images that a model's settings ask for of each unlabelled one."""
    return 2 if (model.get("semi") or {}).get("method") == "unimatch_v2" else 1


def _check_learning(config: Mapping[str, Any]) -> None:
    """Checks what the adversarial and the semi-supervised keys need of the others."""
    model, data = config["model"], config["data"]
    semi = model.get("semi") or {}
    noise = model.get("noise") or {}
    if config.get("tasks") and (noise.get("channels") or noise.get("latent")):
        raise UserError("tasks: a generator with noise averages classes only; set model.noise.channels and latent to 0")
    _check_sharding(config)
    if data.get("labeled_fraction") is not None:
        parse_share(data["labeled_fraction"])
    elif uses_unlabeled(model):
        raise UserError(
            "model.semi.method: every training image is labelled; leave some without, e.g. data.labeled_fraction=1/8"
        )
    adversary = "discriminator" in config and has_adversary(model)
    if semi.get("method") == "adversarial" and not (adversary and semi.get("discriminator_threshold") is not None):
        raise UserError(
            "model.semi.method: adversarial asks a discriminator which predictions are labels; take model=gan with "
            "model.adversarial_weight above 0 and model.semi.discriminator_threshold, e.g. 0.2"
        )
    if semi and not uses_unlabeled(model) and has_adversary({"semi": semi}):
        raise UserError(
            "model.semi: adversarial_weight and discriminator_threshold are for unlabelled images and none are used; take "
            "model.semi.method=adversarial or fixmatch"
        )
    if has_adversary(model) and not adversary:
        raise UserError(
            "discriminator: the model's adversarial keys need one; take model=gan and e.g. discriminator=small"
        )
    if "discriminator" in config and not _takes_discriminator(model):
        raise UserError("discriminator: this model has none; take model=gan")
    if adversary and str(config["trainer"].get("precision")) == "16-mixed":
        raise UserError(
            "trainer.precision: with model=gan 16-mixed would scale two optimizers' gradients by one factor; take "
            "bf16-mixed or 32-true"
        )
    if model.get("feature_minmax") and not (config.get("discriminator") or {}).get("spectral_norm"):
        raise UserError(
            "model.feature_minmax: unbounded without spectral norm; take discriminator.spectral_norm=true with it"
        )
    if "discriminator" in config and config["discriminator"].get("norm") == "batch" and model.get("r1_weight", 0) > 0:
        raise UserError(
            "model.r1_weight: a penalty on each image's gradient does not fit batch norm; take discriminator.norm=instance"
        )


def _check_sharding(config: Mapping[str, Any]) -> None:
    """Checks what the strategies that cut a model into shards can do."""
    trainer = config["trainer"]
    strategy = trainer.get("strategy")
    if strategy in ("fsdp", "deepspeed") and has_adversary(config["model"]):
        why = {
            "fsdp": "fsdp cannot shard a discriminator, which sees two batches in a step",
            "deepspeed": "DeepSpeed has one optimizer, and an adversary needs a second",
        }
        raise UserError(f"trainer.strategy: {why[strategy]}; take trainer=ddp")
    if strategy == "fsdp" and config.get("tasks"):
        raise UserError("trainer.strategy: fsdp cannot shard tasks, whose weights the loss reads too; take trainer=ddp")
    if strategy == "deepspeed" and str(trainer.get("precision")) not in ("32-true", "32", "bf16-mixed"):
        raise UserError("trainer.precision: with deepspeed take 32-true or bf16-mixed")
    for key in ("zero_stage", "offload"):
        if key in trainer and strategy != "deepspeed":
            raise UserError(f"trainer.{key}: is DeepSpeed's; take trainer=deepspeed, or leave it out")


def _takes_discriminator(model: Mapping[str, Any]) -> bool:
    signature = signatures.read(model["_target_"])
    return signature is None or signature.takes_any or "discriminator" in signature.parameters


def explain(error: Exception, keys: Mapping[str, Any] | None) -> str:
    """An error of Hydra's or OmegaConf's own, on a line, with the mend.

    Args:
        error: what composing raised.
        keys: the config as composed without the user's overrides, to suggest keys from; None where unknown.
    """
    text = "\n".join(filter(None, [str(error), str(error.__cause__ or "")]))
    if match := re.search(r"Could not override '([^']+)'", text):
        path, _, key = match[1].rpartition(".")
        if match[1].partition(".")[0] == "discriminator" and "discriminator" not in (keys or {}):
            return f"{match[1]}: this model has no discriminator; take model=gan"
        node: Any = keys
        so_far = ""
        for part in path.split(".") if path else []:
            if isinstance(node, Mapping) and node and part not in node:
                return _unknown(part, so_far, list(node))
            node = node.get(part) if isinstance(node, Mapping) else None
            so_far = f"{so_far}.{part}".lstrip(".")
        return _unknown(key, path, list(node) if isinstance(node, Mapping) else [])
    if match := re.search(r"Could not find '([^']+)'\n\nAvailable options in '([^']+)':\n((?:\t.*\n?)+)", text):
        options = match[3].split()
        choice = match[1].rpartition("/")[2]
        return f"{match[2]}={choice}: no such option{suggest(choice, options)}; choose one of: {', '.join(options)}"
    if match := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"{match[1]}: is there already; leave out the '+'"
    if match := re.search(r"No match in the defaults list|Could not override '([^=']+)=", text):
        return " ".join(text.split())
    return " ".join(text.split("\n\n")[0].split())


def _expect(where: str, annotation: Any, value: Any) -> None:
    reason = signatures.mismatch(annotation, value)
    if reason is not None:
        raise UserError(f"{where}: {reason}, not {value!r}")


def _unknown(key: str, path: str, names: list[str]) -> str:
    where = f"{path}.{key}" if path else key
    listed = f"; keys of {path or 'the config'}: {', '.join(sorted(names))}" if names else ""
    return f"{where}: no such key{suggest(key, names)}{listed}"


@functools.cache
def _constants(target: str) -> Mapping[str, Any]:
    signature = signatures.read(target)
    return signature.constants if signature else {}


def _size_divisor(network: Mapping[str, Any]) -> int | None:
    divisor = _constants(network["_target_"]).get("SIZE_DIVISOR")
    return divisor if isinstance(divisor, int) else None
