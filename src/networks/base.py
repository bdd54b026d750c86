"""What every network shares: any image size in, logits of the same size out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.errors import UserError

Freeze = Literal["encoder"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _is_map(name: str) -> bool:
    """Whether an output is a map of the image: logits, auxiliary heads' ("aux", "aux2" …) and those of boundaries."""
    return name in ("logits", "edges") or name.startswith("aux")


@runtime_checkable
class FollowsTraining(Protocol):
    """A network, or a core, that changes as training goes on."""

    def at_share(self, share: float) -> None:
        """Is told before every batch which share of all optimizer steps, 0…1, was taken. What it makes of that has to depend on
        nothing else, and to lie in buffers, so that a resumed run has the same."""
        ...


class SegmentationNetwork(nn.Module):
    """Wraps a network's core so that images of any size go in and logits of the image's size come out.

    The image is padded at the right and below with zeros (the mean colour, once normalised) to a multiple of
    `size_divisor`; the logits are brought to the padded size where the core's are smaller, and cropped.

    Args:
        core: gives logits [B, K, h, w], or a dict with "logits" and, while training, "aux", or whatever else a loss asks for,
            [B, …], which is handed on as it is.
        pixel_mean, pixel_std: what the core expects its input to be normalised with, per channel, in units of 0…1.
        size_divisor: the core's largest stride; 1 where any size will do.
        encoder: name of the core's pre-trained part, if it has one, or names of several.
        freeze: "encoder": no weight of that part learns, and it stays in evaluation mode, so that its batch norms keep their
            statistics and nothing is dropped. As no gradient is wanted, autograd keeps none of its activations.

    Raises:
        UserError: there is no such part to freeze.
    """

    def __init__(
        self,
        core: nn.Module,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        size_divisor: int = 1,
        encoder: str | Sequence[str] | None = None,
        freeze: Freeze | None = None,
    ) -> None:
        super().__init__()
        self.core = core
        self.pixel_mean, self.pixel_std = tuple(pixel_mean), tuple(pixel_std)
        self.size_divisor = size_divisor
        self._encoder = encoder
        self.freeze = freeze
        if freeze is not None:
            if self.encoder is None:
                raise UserError("network.freeze: this network has no encoder; set it to null")
            self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> SegmentationNetwork:
        super().train(mode)
        if self.freeze is not None and self.encoder is not None:
            self.encoder.eval()
        return self

    @property
    def encoder(self) -> nn.Module | None:
        """The pre-trained part, which may get a learning rate of its own; None where there is none."""
        if self._encoder is None or isinstance(self._encoder, str):
            return self.core.get_submodule(self._encoder) if self._encoder is not None else None
        return nn.ModuleDict({name.replace(".", "_"): self.core.get_submodule(name) for name in self._encoder})

    @property
    def only_train(self) -> list[nn.Module]:
        """Heads whose outputs only losses see: the modules that the core names in `ONLY_TRAIN` and has."""
        modules = dict(self.core.named_modules())
        return [modules[name] for name in getattr(self.core, "ONLY_TRAIN", ()) if name in modules]

    def at_share(self, share: float) -> None:
        """See `FollowsTraining`."""
        if isinstance(self.core, FollowsTraining):
            self.core.at_share(share)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """
        Args:
            image: float [B, C, H, W], normalised.

        Returns:
            "logits" float [B, K, H, W] and, while training a network with an auxiliary head, "aux" of the same shape. Outputs
            of other kinds are those of the padded image, with "extent" beside them: float [B, 2], the share of its height and
            width that is image.
        """
        height, width = image.shape[-2:]
        below, right = -height % self.size_divisor, -width % self.size_divisor
        # One branch for all sizes in an exported graph; padding by nothing and cropping nothing change no value.
        pads = (torch.compiler.is_exporting() and self.size_divisor > 1) or bool(below or right)
        padded = F.pad(image, (0, right, 0, below)) if pads else image
        result = self.core(padded)
        outputs: dict[str, Tensor] = result if isinstance(result, dict) else {"logits": result}
        size = padded.shape[-2:]
        if not all(map(_is_map, outputs)):
            share = [height / (height + below), width / (width + right)]
            extent = torch.tensor([share]).to(image.device, non_blocking=True)
            outputs["extent"] = extent.expand(len(image), 2)
        for name in filter(_is_map, list(outputs)):
            logits = outputs[name]
            if logits.shape[-2:] != size:
                logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            outputs[name] = logits[..., :height, :width] if pads else logits
        return outputs
