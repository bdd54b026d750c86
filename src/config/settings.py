"""What a command is told, typed: one object, made of a composed config once it is checked. Imports no torch."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from src.config.inference import Inference
from src.config.parts import (
    Config,
    Data,
    Dataset,
    Discriminator,
    Model,
    Node,
    Optimizer,
    Part,
    Paths,
    Tasks,
    Trainer,
    filled,
)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What a model is built of.

    Attributes:
        loss: None for a model that only predicts.
        metrics: the user's own, by name.
        inference: how images are predicted.
        plain: all of it as plain containers, which the checkpoint keeps.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: Model
    network: Part
    loss: Part | None = None
    tasks: Tasks | None = None
    discriminator: Discriminator | None = None
    metrics: Mapping[str, Node | None] = field(default_factory=dict)
    inference: Inference = field(default_factory=Inference)
    monitor: str = "val/miou"
    monitor_mode: Literal["min", "max"] | None = None
    plain: Config = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> typing.Self:
        """The settings of a config that is checked.

        Args:
            config: plain containers, interpolations resolved. Groups that are left out are as they are by default.
        """
        return replace(filled(cls, config), plain=config)

    def without_weights(self) -> typing.Self:
        """The same with a network whose weights are not looked for anywhere: a checkpoint brings them."""
        if "encoder_weights" not in self.network.node:
            return self
        return replace(self, network=Part(node={**self.network.node, "encoder_weights": None}))

    @property
    def use_depth(self) -> bool:
        """Whether the tasks ask for data with depth."""
        return self.tasks is not None and self.tasks.use_depth


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a checkpoint's config says of its training. It may be a stranger's: values are to be checked before they are used.

    Attributes:
        plain: the whole of it as plain containers.
    """

    data: Data = field(default_factory=Data)
    trainer: Trainer = field(default_factory=Trainer)
    tasks: Tasks = field(default_factory=Tasks)
    seed: int = 0
    plain: Config = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> typing.Self:
        """What a config says whose groups are mappings or left out."""
        known = {key: config[key] for key in ("data", "trainer", "tasks") if isinstance(config.get(key), Mapping)}
        seed = config.get("seed")
        return replace(filled(cls, known), seed=seed if isinstance(seed, int) else 0, plain=config)

    @property
    def dataset(self) -> Dataset:
        return self.data.dataset


@dataclass(frozen=True, kw_only=True)
class Settings(ModelSettings):
    """What a training run is told."""

    data: Data
    loss: Part
    optimizer: Optimizer
    scheduler: Part
    trainer: Trainer
    callbacks: Mapping[str, Node | None] = field(default_factory=dict)
    logger: Mapping[str, Node | None] = field(default_factory=dict)
    paths: Paths = field(default_factory=Paths)
    compile: bool = False
    test: bool = True
    init_from: str | None = None
    init_head: Literal["match", "new"] = "match"
    fingerprint: Literal["auto", "all"] | NonNegativeInt = "auto"
    resume: None = None
    like: None = None
    optimized_metric: str = "val/miou"

    @property
    def run_dir(self) -> Path:
        return Path(self.paths.output_dir)
