"""The groups of a config, typed: dataclasses that are its schema too. Imports no torch.

The keys of `optimizer` and `trainer`, whose classes are a library's and say little of their ranges, are held against the fields
here. Those of this program's own classes are held against the classes' signatures (`config/schema.py` says which); their fields
here say what else the program reads of them.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

Config = Mapping[str, object]  # plain containers as Hydra composes them, interpolations resolved
Node = Mapping[str, object]  # a part of a config: a `_target_` with its keys
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["32-true", "32", "16-mixed", "bf16-mixed", "bf16-true", "64-true", "64", 32, 64]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
Devices = Literal["auto"] | PositiveInt | list[NonNegativeInt] | Literal[-1]
LayerCount = Literal["all", "blocks"]
Strategy = Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", "deepspeed"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A class or function that is built, and the keys that it gets.

    Attributes:
        node: `_target_` and all its keys, as composed.
    """

    node: Node = field(default_factory=dict)

    @classmethod
    def of(cls, node: Node) -> typing.Self:
        """The part that a node is which was checked."""
        return filled(cls, node)

    @property
    def target(self) -> str:
        """The dotted path of the class or function."""
        return str(self.node.get("_target_", ""))

    @property
    def name(self) -> str:
        """The last word of the path, which is how a person calls it."""
        return self.target.rpartition(".")[2]

    def keys_but(self, *names: str) -> dict[str, object]:
        """The node without some of its keys."""
        return {key: value for key, value in self.node.items() if key not in names}


@dataclass(frozen=True, kw_only=True)
class Augment(Part):
    """Random changes of training images."""

    scale: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset(Part):
    """A data set.

    Attributes:
        names, colors: of the classes, where the config says them; else the files do.
        labels: values of a mask by class.
        bands: of a raster, counted from 1.
    """

    names: object = None
    colors: object = None
    labels: object = None
    bands: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Folds:
    """Which part of the training split is held out."""

    n: int | None = None
    k: int | None = None


@dataclass(frozen=True, kw_only=True)
class Data(Part):
    """The datamodule, and the data set in it."""

    dataset: Dataset = field(default_factory=Dataset)
    root: str | None = None
    batch_size: int = 1
    crop: list[int] | None = None
    labeled_fraction: str | float | None = None
    labeled_list: str | None = None
    synthetic: str | None = None
    augment: Augment | None = None
    folds: Folds | None = None
    num_workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Semi:
    """How unlabelled images teach."""

    method: str | None = None
    soft: bool = False
    align: bool = False
    dice_weight: float = 0.0
    apart: bool = False
    adversarial_weight: float = 0.0
    discriminator_threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class Distill:
    """How a teacher teaches."""

    kl_weight: float = 0.0
    channel_weight: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What a generator is given beside the image."""

    channels: int = 0
    latent: int = 0


@dataclass(frozen=True, kw_only=True)
class Model(Part):
    """A segmenter: what it is but for its network."""

    class_weights: Literal["balanced"] | list[NonNegativeFloat] | None = None
    batch_norm: str | None = None
    ema_decay: float | None = None
    adversarial_weight: float = 0.0
    feature_weight: float = 0.0
    feature_minmax: bool = False
    r1_weight: float = 0.0
    semi: Semi | None = None
    noise: Noise | None = None
    judge: str | None = None
    teacher: str | None = None
    distill: Distill | None = None
    reconstruction_weight: float = 0.0

    @property
    def has_adversary(self) -> bool:
        """Whether a discriminator is asked for."""
        semi = self.semi or Semi()
        weights = (self.adversarial_weight, self.feature_weight, semi.adversarial_weight)
        return any(weight > 0 for weight in weights) or semi.discriminator_threshold is not None

    @property
    def uses_unlabeled(self) -> bool:
        """Whether unlabelled images are asked for."""
        return self.semi is not None and self.semi.method is not None

    @property
    def strong_views(self) -> Literal[1, 2]:
        """Strongly changed images that are asked for of each unlabelled one."""
        return 2 if self.semi is not None and self.semi.method in ("unimatch", "unimatch_v2") else 1

    @property
    def has_partner(self) -> bool:
        """Whether a second network of the same build learns beside the first."""
        return self.semi is not None and self.semi.method == "cps"


@dataclass(frozen=True, kw_only=True)
class Discriminator(Part):
    norm: str | None = None
    spectral_norm: bool = False


@dataclass(frozen=True, kw_only=True)
class Tasks(Part):
    """What is learnt beside the classes: each task is a key, and its value the weight in the loss."""

    @property
    def learnt(self) -> list[str]:
        """Names of the tasks that have a weight. `boundary_width` is no task but says how `boundary` is learnt."""
        numbers = {name: value for name, value in self.node.items() if isinstance(value, int | float)}
        return [
            name
            for name, weight in numbers.items()
            if weight > 0 and not any(name.startswith(f"{task}_") for task in numbers)
        ]

    @property
    def use_depth(self) -> bool:
        return "depth" in self.learnt


@dataclass(frozen=True, kw_only=True)
class Optimizer(Part):
    """An optimizer of torch; the keys named in `OURS` are this program's, which makes the parameter groups."""

    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    momentum: BelowOne = 0.0
    betas: Annotated[list[BelowOne], Field(min_length=2, max_length=2)] = field(default_factory=lambda: [0.9, 0.999])
    eps: NonNegativeFloat = 1e-8
    alpha: Share = 0.99
    nesterov: bool = False
    encoder_lr_factor: NonNegativeFloat = 1.0
    decay_norm_and_bias: bool = True
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    layer_decay_counts: LayerCount = "all"
    aux_lr_factor: NonNegativeFloat = 1.0
    no_decay: list[str] | None = None

    OURS: typing.ClassVar = (
        "encoder_lr_factor", "decay_norm_and_bias", "layer_decay", "layer_decay_counts", "aux_lr_factor", "no_decay",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trainer(Part):
    """Lightning's Trainer; the keys named in `OURS` are this program's.

    `accumulate_grad_batches` and `gradient_clip_val` are acted on by this program too, for Lightning refuses them with manual
    optimization.
    """

    accelerator: Accelerator = "auto"
    devices: Devices = 1
    num_nodes: PositiveInt = 1
    precision: Precision = "32-true"
    max_epochs: Annotated[int, Field(ge=1)] | None = None
    max_steps: Annotated[int, Field(ge=1)] | Literal[-1] = -1
    accumulate_grad_batches: PositiveInt = 1
    gradient_clip_val: NonNegativeFloat | None = None
    check_val_every_n_epoch: PositiveInt = 1
    log_every_n_steps: PositiveInt = 50
    strategy: Strategy = "auto"
    min_epochs: PositiveInt | None = None
    min_steps: PositiveInt | None = None
    limit_train_batches: NonNegativeInt | Share | None = None
    limit_val_batches: NonNegativeInt | Share | None = None
    limit_test_batches: NonNegativeInt | Share | None = None
    val_check_interval: PositiveInt | Annotated[float, Field(gt=0, le=1)] | None = None
    num_sanity_val_steps: NonNegativeInt | Literal[-1] = 0
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    sync_batchnorm: bool = False
    profiler: Literal["steps", "simple", "advanced", "pytorch"] | None = None
    timeout_minutes: PositiveFloat = 30.0
    zero_stage: Literal[1, 2] = 2
    offload: bool = False

    OURS: typing.ClassVar = ("timeout_minutes", "zero_stage", "offload")

    @property
    def processes(self) -> int | None:
        """How many devices a run has in all; None where the machine decides."""
        count = len(self.devices) if isinstance(self.devices, list) else self.devices
        return count * self.num_nodes if isinstance(count, int) and count > 0 else None

    @property
    def needs_gpu(self) -> bool:
        """Whether the precision is one that CPUs have not."""
        return str(self.precision) == "16-mixed"


@dataclass(frozen=True, kw_only=True)
class Paths:
    output_dir: str = ""


def types_of(cls: type) -> dict[str, object]:
    """The annotation of each field of a dataclass, with its ranges."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {each.name: hints[each.name] for each in fields(cls) if each.name not in ("node", "plain")}


def filled(cls: type[T], values: Mapping[str, object]) -> T:
    """A dataclass with those of the values that it has fields for; mappings become the dataclasses that the fields are.

    Args:
        cls: a dataclass; a `Part` keeps all of the values as its node.
        values: checked against `types_of(cls)`.
    """
    given = {
        name: _typed(hint, values[name])
        for name, hint in types_of(cls).items()
        if name in values and (values[name] is not None or _takes_none(hint))
    }
    return cls(**given, **({"node": values} if issubclass(cls, Part) else {}))


def _typed(hint: object, value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    for option in _options(hint):
        if isinstance(option, type) and is_dataclass(option):
            return filled(option, value)
    return value


def _options(hint: object) -> tuple[object, ...]:
    return (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )


def _takes_none(hint: object) -> bool:
    return hint is None or type(None) in _options(hint)
