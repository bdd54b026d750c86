"""How images are predicted when they are scored, shown and written: the keys of `inference`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt

from src.config.parts import filled
from src.errors import UserError

Side = Annotated[int, Field(ge=32, le=16384)]
Step = Annotated[int, Field(ge=1, le=16384)]
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
        short_side: images are resized before all else so that their shorter side has so many pixels; None and 0 leave them
            as they are. Scores are taken in the pixels of the truth all the same.
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
        return bool(self.short_side) or any(scale != 1 for scale in self.scales)

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
        if self.long_side and not self.short_side:
            raise UserError("inference.long_side: bounds what inference.short_side makes of an image; give that too")
        if self.long_side and self.short_side and self.long_side < self.short_side:
            raise UserError(f"inference.long_side: {self.long_side} is below inference.short_side={self.short_side}")


def factor_to_sides(height: int, width: int, short_side: int, long_side: int | None) -> float:
    """By what an image of height x width is enlarged so that its shorter side has `short_side` pixels, and the longer one at
    most `long_side` (None and 0: no limit)."""
    factor = short_side / min(height, width)
    return min(factor, long_side / max(height, width)) if long_side else factor
