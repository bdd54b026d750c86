"""How images are predicted when they are scored, shown and written: the keys of `inference`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, NonNegativeInt

from src.config.parts import filled
from src.errors import UserError

Side = Annotated[int, Field(ge=32, le=16384)]
Step = Annotated[int, Field(ge=1, le=16384)]
Pixels = Annotated[int, Field(ge=1, le=16384)]
Scale = Annotated[float, Field(ge=0.1, le=8)]


@dataclass(frozen=True, kw_only=True)
class Inference:
    """One protocol for validation, the test at the end of a run, `evaluate` and `predict`.

    Attributes:
        mode: "whole" gives the network the whole image, "window" windows of it whose logits are averaged.
        window: height and width of a window in pixels; an image smaller than it is one window.
        stride: from one window to the next, in pixels; None takes two thirds of the window.
        blend: "mean" averages logits where windows overlap, each counting once; "gaussian" counts a window's middle
            more, with a standard deviation of an eighth of its side (Isensee et al. 2021).
        scales: the image is predicted at each of these sizes, and the probabilities are averaged.
        flip: each scale also mirrored, left for right.
        resize: height and width to which images are stretched before all else; None and [] leave them as they are. Scores are
            taken in the pixels of the truth all the same.
        short_side: images are resized before all else so that their shorter side has so many pixels; None and 0 leave them
            as they are.
        long_side: the most pixels that the longer side may have then; None and 0 set no limit.
        batch: windows that go through the network at a time.
        antialias: of images that are shrunk; OpenCV, and so mmsegmentation, has none.
    """

    mode: Literal["whole", "window"] = "whole"
    window: Annotated[list[Side], Field(min_length=2, max_length=2)] = field(default_factory=lambda: [512, 512])
    stride: Annotated[list[Step], Field(min_length=2, max_length=2)] | None = None
    blend: Literal["mean", "gaussian"] = "mean"
    scales: Annotated[list[Scale], Field(min_length=1, max_length=16)] = field(default_factory=lambda: [1.0])
    flip: bool = False
    resize: list[Pixels] | None = None
    short_side: Annotated[int, Field(ge=0, le=16384)] | None = None
    long_side: NonNegativeInt | None = None
    batch: Annotated[int, Field(ge=1, le=1024)] = 1
    antialias: bool = True

    @property
    def windows(self) -> bool:
        return self.mode == "window"

    @property
    def steps(self) -> tuple[int, int]:
        """From one window to the next, down and across."""
        down, across = self.stride or [max(1, side * 2 // 3) for side in self.window]
        return down, across

    @property
    def resizes(self) -> bool:
        """Whether the network sees images at another size than their own."""
        return bool(self.short_side or self.resize) or any(scale != 1 for scale in self.scales)

    @property
    def passes(self) -> int:
        """How often an image is predicted."""
        return len(self.scales) * (2 if self.flip else 1)

    def with_keys(self, chosen: Mapping[str, object]) -> Inference:
        """The same with the keys that are not None in `chosen`, checked as a whole.

        Raises:
            UserError: they do not fit together.
        """
        said = {key: value for key, value in chosen.items() if value is not None}
        if "window" in said and "stride" not in said:  # what was the stride of another window
            said["stride"] = None
        changed = filled(Inference, {**asdict(self), **said})
        changed.check()
        return changed

    @classmethod
    def of(cls, node: Mapping[str, object]) -> Self:
        """The protocol of keys whose types are checked."""
        return filled(cls, node)

    def check(self) -> None:
        """Checks what no single key's type can tell.

        Raises:
            UserError: a stride leaves pixels out, or a scale is there twice.
        """
        for side, step in zip(self.window, self.steps, strict=True):
            if step > side:
                raise UserError(
                    f"inference.stride: {list(self.steps)} is above the window {self.window} and would leave pixels out; take "
                    f"inference.stride={[max(1, side * 2 // 3) for side in self.window]}"
                )
        if len(set(self.scales)) < len(self.scales):
            raise UserError(f"inference.scales: {self.scales} names a scale twice; name each once")
        check_sizes(self, "inference")


class Sizes(Protocol):
    """What `inference` and `data.augment` say of the size that images are brought to; see `Inference`."""

    @property
    def resize(self) -> list[int] | None: ...
    @property
    def short_side(self) -> int | None: ...
    @property
    def long_side(self) -> int | None: ...


def check_sizes(sizes: Sizes, key: str) -> None:
    """Checks that keys of sizes fit together.

    Raises:
        UserError: they do not; names `key`, their group.
    """
    if sizes.resize and len(sizes.resize) != 2:
        raise UserError(f"{key}.resize: {sizes.resize} is no height and width; give two numbers, or [] for none")
    if sizes.resize and sizes.short_side:
        raise UserError(
            f"{key}.resize: {key}.short_side={sizes.short_side} says the size too; take {key}.resize=[], or {key}.short_side=0"
        )
    if sizes.long_side and not sizes.short_side:
        raise UserError(f"{key}.long_side: bounds what {key}.short_side makes of an image; give that too")
    if sizes.long_side and sizes.short_side and sizes.long_side < sizes.short_side:
        raise UserError(f"{key}.long_side: {sizes.long_side} is below {key}.short_side={sizes.short_side}")


def enlarged_by(height: int, width: int, sizes: Sizes) -> tuple[float, float]:
    """By what an image of height x width is enlarged, down and across: both to `resize`; or alike, so that its shorter side has
    `short_side` pixels and the longer one at most `long_side` (None and 0: no limit); or by 1."""
    if sizes.resize:
        return sizes.resize[0] / height, sizes.resize[1] / width
    factor = sizes.short_side / min(height, width) if sizes.short_side else 1.0
    factor = min(factor, sizes.long_side / max(height, width)) if sizes.short_side and sizes.long_side else factor
    return factor, factor
