"""What a resumed run may change of its config, how, and why the rest may not: one table, from which the refusals are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from src.errors import UserError

# Where and how fast a run goes: said anew each time, and no change of the run.
PLACE = (
    "data.root", "data.synthetic", "model.judge", "model.teacher", "data.num_workers", "data.cache", "data.cache_dir",
    "trainer.accelerator", "trainer.devices",
    "trainer.num_nodes", "trainer.strategy", "trainer.zero_stage", "trainer.offload",
)  # fmt: skip
LIMITS = ("trainer.max_epochs", "trainer.max_steps", "trainer.min_epochs", "trainer.min_steps")
# These decide what a batch, a step or an epoch's order is.
AT_AN_EPOCHS_END = ("data.batch_size", "trainer.accumulate_grad_batches", "data.rare_classes")
_MIXED = ("32-true", "32", "16-mixed", "bf16-mixed")  # the weights themselves are 32 bits in each


@dataclass(frozen=True)
class May:
    """Keys (or patterns of them) that may change, and from when on the new value holds."""

    keys: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class MayNot:
    """Keys that may not, why, and how to get a run with them."""

    keys: tuple[str, ...]
    why: str
    anew: bool = False  # with the old run's config; else from its weights


MAY = (
    May(LIMITS, "the schedule is that of a run planned so, at the step where this one is"),
    May(("optimizer.lr", "optimizer.weight_decay", "optimizer.momentum", "optimizer.betas", "optimizer.eps",
         "optimizer.alpha", "optimizer.encoder_lr_factor", "optimizer.aux_lr_factor"), "from the next step on"),
    May(("scheduler.[!_]*",), "the schedule is that of a run planned so, at the step where this one is"),
    May(AT_AN_EPOCHS_END, "at an epoch's end; the schedule goes by epochs then"),
    May(("trainer.gradient_clip_val", "model.ema_decay", "model.batch_norm"), "from the next step on"),
    May(("data.crop", "data.crop_sizes", "data.mix", "data.mix_probability", "data.augment.[!_]*", "data.strong.[!_]*"),
        "from the next sample on"),
    May(("data.eval_batch_size", "trainer.check_val_every_n_epoch", "trainer.val_check_interval",
         "trainer.limit_test_batches", "trainer.num_sanity_val_steps", "test", "optimized_metric", "metrics", "metrics.*"),
        "from the next evaluation on"),
    May(("trainer.precision",), "between 32-true, 16-mixed and bf16-mixed"),
    May(("trainer.log_every_n_steps", "trainer.deterministic", "trainer.benchmark", "trainer.profiler",
         "trainer.timeout_minutes", "trainer.enable_model_summary", "trainer.enable_progress_bar",
         "trainer.detect_anomaly", "compile", "fingerprint", "callbacks.*", "logger.*"), "from the start of this process on"),
)  # fmt: skip
# Whatever may change beside them.
NEVER = (
    MayNot(("monitor", "monitor_mode", "callbacks.checkpoint.monitor", "callbacks.checkpoint.mode",
            "trainer.limit_val_batches", "inference", "inference.*"), "the best score so far would be another's"),
    MayNot(("callbacks.checkpoint", "callbacks.checkpoint.run_dir", "callbacks.checkpoint._target_", "paths", "paths.*",
            "logger.*.save_dir", "logger.*.run_dir"), "a run stays in its folder"),
)  # fmt: skip
# Unless they may.
MAY_NOT = (
    MayNot(("seed", "data", "data.*", "trainer.limit_train_batches"), "the data, or their order, would be others",
           anew=True),
    MayNot(("optimizer", "optimizer.*", "scheduler", "scheduler.*"), "the state of the one that was fits no other"),
    MayNot(("network", "network.*", "model", "model.*", "tasks", "tasks.*", "discriminator", "discriminator.*"),
           "it would be another model"),
    MayNot(("loss", "loss.*"), "its losses so far would not compare"),
    MayNot(("init_from", "init_head"), "its weights are its own by now", anew=True),
    MayNot(("*",), "nobody knows what else would change with it", anew=True),
)  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What the user says of a run's config when it is gone on with.

    Attributes:
        config: the run's config with it, as the text of its file; None where it is as it was.
        longer: whether it is said how long the run is to be, the same as before or not.
    """

    config: str | None = None
    longer: bool = False


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def may_change(key: str) -> bool:
    """Whether a resumed run may have another value of a key; the keys of `PLACE` aside."""
    return not _of(key, NEVER) and any(fnmatchcase(key, pattern) for may in MAY for pattern in may.keys)


def refusal(key: str, run_dir: Path) -> UserError:
    """Why a key may not change, what of its group may, and how to get a run with it all the same."""
    rule = next(iter([*_of(key, NEVER), *_of(key, MAY_NOT)]))
    way = f"anew with its config: python -m src.train like={run_dir} {key}=…"
    if not rule.anew:
        way = f"start from its weights: python -m src.train init_from={run_dir} {key}=…"
    group = f"{key.partition('.')[0]}."
    fellows = [k.replace("[!_]*", "*") for k in [*PLACE, *(k for may in MAY for k in may.keys)] if k.startswith(group)]
    listed = ", ".join(fellows or ["trainer.max_epochs", "optimizer.lr", "data.batch_size", "callbacks.*", "…"])
    return UserError(f"{key}: a resumed run keeps its own, or {rule.why}; {way}\nwhat may change: {listed}")


def _of(key: str, rules: Sequence[MayNot]) -> list[MayNot]:
    return [rule for rule in rules if any(fnmatchcase(key, pattern) for pattern in rule.keys)]


def changed(before: object, now: object) -> dict[str, tuple[object, object]]:
    """The keys that may change and did, from one config to another, with both values; None of one that has it not."""
    return {key: values for key, values in _differences(before, now, "").items() if may_change(key)}


def _differences(before: object, now: object, path: str) -> dict[str, tuple[object, object]]:
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return {} if before == now else {path: (before, now)}
    found: dict[str, tuple[object, object]] = {}
    for key in dict.fromkeys([*before, *now]):
        found |= _differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    return found


def check_place(values: Mapping[str, tuple[object, object]], epochs: int, batches: int, steps: int) -> None:
    """Checks changes against where the run stands.

    Args:
        epochs: that are whole.
        batches: of the one that is not.
        steps: of the optimizer.

    Raises:
        UserError: one does not go there, with the way to get it.
    """
    for key in AT_AN_EPOCHS_END:
        if key in values and batches:
            raise UserError(
                f"{key}: can change at an epoch's end only, and the run stands {batches} batches into epoch {epochs + 1}; "
                "go on to its end first, or start a new run from its weights with init_from="
            )
    for key, done, what in (
        ("trainer.max_epochs", epochs + (batches > 0), "epochs, the newest one begun or done"),
        ("trainer.max_steps", steps, "steps"),
    ):
        limit = values[key][1] if key in values else None
        if isinstance(limit, int) and 0 < limit < done:
            raise UserError(f"{key}: is to be {limit}, and the run is at {done} {what}; give as many or more")


def check_values(values: Mapping[str, tuple[object, object]], run_dir: Path) -> None:
    """Checks those changes that only some values allow.

    Raises:
        UserError: these are others.
    """
    precision = values.get("trainer.precision", ("32", "32"))
    if any(str(one) not in _MIXED for one in precision):
        raise UserError(
            f"trainer.precision: {precision[0]} cannot become {precision[1]} on the way (only {', '.join(_MIXED)}, whose "
            f"weights are all of 32 bits); start from its weights: python -m src.train init_from={run_dir} …"
        )
    if None in values.get("model.ema_decay", ()):
        raise UserError(
            "model.ema_decay: an average cannot come or go on the way; start from the run's weights: python -m src.train "
            f"init_from={run_dir} …"
        )
