"""`init_from=torchvision:NAME`: torchvision's segmentation models, from its hub or a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from src.config.parts import Part
from src.errors import UserError
from src.files.untrusted import shown
from src.networks import weights
from src.networks.foreign.found import CORE, Foreign, as_text, check_network

# torchvision's name, our network and its encoder.
_NETWORKS: dict[str, tuple[str, dict[str, object]]] = {
    "fcn_resnet50": ("fcn", {"encoder": "resnet50"}),
    "fcn_resnet101": ("fcn", {"encoder": "resnet101"}),
    "deeplabv3_resnet50": ("deeplabv3", {"encoder": "resnet50"}),
    "deeplabv3_resnet101": ("deeplabv3", {"encoder": "resnet101"}),
    "deeplabv3_mobilenet_v3_large": ("deeplabv3", {"encoder": "mobilenet_v3_large"}),
    "lraspp_mobilenet_v3_large": ("lraspp", {}),
}
_MEND = "download it elsewhere and give the file: init_from=torchvision:FILE"


def read(name: str, network: Part) -> Foreign:
    """A model's best weights with the names of their classes, or a state dict of one in a file, whose classes are not named.

    Raises:
        UserError: there is no such model or file, it cannot be had, or the run's network is another one.
    """
    origin = f"torchvision:{shown(name)}"
    file = Path(name).expanduser()
    if file.is_file():
        return Foreign(origin, _as_ours(weights.tensors(weights.read_file(file, "init_from"))))
    if name not in _NETWORKS:
        raise UserError(
            f"init_from: {origin} is neither a file nor one of torchvision's segmentation models, {', '.join(_NETWORKS)}"
        )
    check_network(network, origin, *_NETWORKS[name])
    from torchvision.models import get_model_weights

    best = get_model_weights(name).DEFAULT
    state: dict[str, Tensor] = weights.downloaded(
        lambda: best.get_state_dict(progress=True, check_hash=True), f"init_from: {origin}", _MEND
    )
    return Foreign(origin, _as_ours(state), as_text(best.meta.get("categories")))


def _as_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{CORE}model.{key.removeprefix('module.')}": value for key, value in state.items()}
