"""Weights that the authors of a network published, out of a local file."""

from __future__ import annotations

from pathlib import Path

import timm
from torch import nn

from src.errors import UserError
from src.networks.weights import read_file, tensors


def load_published(backbone: nn.Module, given: str, in_channels: int, trained: tuple[str, ...], first: str) -> None:
    """Fills a backbone with a local file of the authors' weights, of ImageNet or of a whole network.

    Args:
        backbone: what has layers of the authors' names.
        given: the file.
        in_channels: image channels; filters of the first convolution are adapted to them as timm does.
        trained: what the names of layers begin with that every such file has. What else it lacks starts anew, as in the papers.
        first: name of the first convolution's filters.

    Raises:
        UserError: there is no such file, or it lacks one of those.
    """
    file = Path(given).expanduser()
    if not file.is_file():
        raise UserError(
            f"network.encoder_weights: there is no file {file}; take a file of the authors' weights, or null"
        )
    state = {
        key.removeprefix("module.").removeprefix("model."): value
        for key, value in tensors(read_file(file, "network.encoder_weights")).items()
    }
    own = backbone.state_dict()
    if first in state and state[first].ndim == 4 and state[first].shape[1] == 3 != in_channels:
        state[first] = timm.models.adapt_input_conv(in_channels, state[first])
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    needed = [key for key in own if key.startswith(trained) and not key.endswith("num_batches_tracked")]
    missing = [key for key in needed if key not in fitting]
    if missing:
        raise UserError(
            f"network.encoder_weights: {file} does not fit: {len(missing)} of {len(needed)} tensors are missing or of another "
            f"shape, e.g. {missing[0]}; take the file of this very network"
        )
    backbone.load_state_dict(own | fitting)
