"""Noise as a generator's second input: maps joined to the image, or a vector at the bottleneck."""

from __future__ import annotations

from typing import Any, cast

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from src.errors import UserError

_TRIAL_SIDE = 128  # of the image that finds out where it goes


class Noise:
    """How much noise a generator gets, standard normal; none by default.

    Args:
        channels: maps joined to the image, [B, channels, H, W].
        latent: length of a vector that is added, after a linear layer, to the encoder's deepest features.
        draws: predictions that are averaged when the generator is evaluated.
    """

    def __init__(self, channels: NonNegativeInt = 0, latent: NonNegativeInt = 0, draws: PositiveInt = 4) -> None:
        self.channels, self.latent, self.draws = channels, latent, draws

    @property
    def active(self) -> bool:
        return self.channels > 0 or self.latent > 0

    def attach(self, network: nn.Module, image_channels: int) -> None:
        """Makes a network take the noise: its first convolution gets `channels` more inputs (the filters of the image
        stay as they are), its encoder a layer for the vector.

        Raises:
            UserError: the network has no encoder whose features the vector could be added to.
        """
        if self.latent:
            encoder = getattr(network, "encoder", None)
            if not isinstance(encoder, nn.Module):
                raise UserError(
                    "model.noise.latent: this network has no encoder and so no bottleneck; take model.noise.channels"
                )
            width = _deepest(_trial(network, image_channels, encoder)).shape[1]
            network.noise_projection = nn.Linear(self.latent, width)
            encoder.register_forward_hook(_add_latent)
        if self.channels:
            _widen(_first_convolution(network, image_channels), self.channels)

    def join(self, network: nn.Module, image: Tensor, seed: int | None = None) -> Tensor:
        """Normalised images [B, C, H, W] with this pass's noise maps joined; the vector is handed to the encoder.

        Args:
            seed: draw from a stream of its own, the same for every image and on every device; None draws anew for
                each image from torch's generator.
        """
        if self.channels:
            maps = _normal((len(image), self.channels, *image.shape[-2:]), image, seed)
            image = torch.cat([image, maps.to(image.dtype)], dim=1)
        if self.latent:
            parts = cast(Any, network)
            parts.encoder._noise_shift = parts.noise_projection(_normal((len(image), self.latent), image, seed))
        return image


def _normal(shape: tuple[int, ...], like: Tensor, seed: int | None) -> Tensor:
    if seed is None:
        return torch.randn(shape, device=like.device)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, *shape[1:]), generator=generator).to(like.device).expand(shape)


def _add_latent(encoder: nn.Module, _: object, features: Any) -> object:
    """A hook that reads only from the module it is called with, so that it serves a copy of the network too."""
    given: Tensor | None = getattr(encoder, "_noise_shift", None)
    if given is None:  # a pass that nobody joined noise to, as the trial passes of building
        return features
    deepest = _deepest(features)
    shift = given[:, :, None, None].to(deepest.dtype)
    if isinstance(features, dict):
        name = "high" if "high" in features else "out"
        return {**features, name: deepest + shift}
    return [*features[:-1], deepest + shift]


def _deepest(features: Any) -> Tensor:
    """Of an encoder's outputs: smp's list, or torchvision's dict."""
    if isinstance(features, dict):
        return cast(Tensor, features["high"] if "high" in features else features["out"])
    return cast(Tensor, features[-1])


def _trial(network: nn.Module, channels: int, module: nn.Module) -> object:
    """What `module` gives in a pass of zeros through the network."""
    seen: list[object] = []
    handle = module.register_forward_hook(lambda _, inputs, output: seen.append(output))
    _pass_zeros(network, channels)
    handle.remove()
    return seen[0]


def _first_convolution(network: nn.Module, channels: int) -> nn.Conv2d:
    seen: list[nn.Conv2d] = []
    handles = [
        m.register_forward_pre_hook(lambda module, _: seen.append(module))
        for m in network.modules()
        if isinstance(m, nn.Conv2d) and m.in_channels == channels and m.groups == 1
    ]
    _pass_zeros(network, channels)
    for handle in handles:
        handle.remove()
    if not seen:
        raise UserError("model.noise.channels: this network has no first convolution to join noise to")
    return seen[0]


def _pass_zeros(network: nn.Module, channels: int) -> None:
    training = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, channels, _TRIAL_SIDE, _TRIAL_SIDE))
    network.train(training)


def _widen(convolution: nn.Conv2d, more: int) -> None:
    """Adds `more` input channels whose filters are drawn as torch draws them."""
    old = convolution.weight
    bound = (1 / (old[0].numel() * (old.shape[1] + more) / old.shape[1])) ** 0.5
    added = torch.empty(old.shape[0], more, *old.shape[2:], dtype=old.dtype).uniform_(-bound, bound)
    convolution.weight = nn.Parameter(torch.cat([old.detach(), added], dim=1))
    convolution.in_channels += more
