"""`init_from=mmseg:FILE`: checkpoints of mmsegmentation, and of SegFormer's authors, who used its first versions.

Taken is what a network here has too: the Mix Transformer, ResNets, torchvision's auxiliary head, and the authors' whole
SegFormer. The other heads differ in their layers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor

from src.config.parts import Part
from src.errors import UserError
from src.files.untrusted import shown
from src.networks import weights
from src.networks.foreign import segformer
from src.networks.foreign.found import CORE, Foreign, Table, as_text, check_network, overrides_of

# What its training keeps beside the tensors (losses, times). Nothing of it is built: an empty object stands in each's place.
_BESIDE = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # by which a HistoryBuffer names its own methods
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    "numpy.ndarray",
    "numpy.dtype",
)
_LAYERS = {18: 2, 34: 6, 50: 6, 101: 23, 152: 36}  # blocks of a ResNet's third stage
_STEM = {0: "conv1.0", 1: "conv1.1", 3: "conv1.3", 4: "conv1.4", 6: "conv1.6", 7: "bn1"}  # in timm's deep stems
_AUXILIARY = Table({
    "auxiliary_head.convs.0.conv": "model.aux_classifier.0",
    "auxiliary_head.convs.0.bn": "model.aux_classifier.1",
    "auxiliary_head.conv_seg": "model.aux_classifier.4",
})  # fmt: skip
_BODIES = ("core.model.backbone.", "core.encoder.model.", "core.encoder.")  # torchvision's, timm's, smp's


class _Nothing:
    """Stands for an object that is not built."""

    def __new__(cls, *_: object) -> _Nothing:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def read(name: str, network: Part, own: Collection[str]) -> Foreign:
    """A checkpoint of mmsegmentation with the names of its classes.

    Args:
        own: names of the tensors of the run's network.

    Raises:
        UserError: there is no such file, it cannot be read, holds another model, or the run's network is another one.
    """
    origin = f"mmseg:{shown(name)}"
    content = _content(Path(name).expanduser(), origin)
    state = {key.removeprefix("module."): value for key, value in weights.tensors(content).items()}
    classes = _classes(content.get("meta"))
    if "backbone.layers.0.0.projection.weight" in state:
        remark = (
            "mmsegmentation's head of SegFormer has a batch norm and a ReLU behind each projection and the network here has "
            "none: the decoder and the last layer start anew"
        )
        return Foreign(origin, _mit(segformer.from_mmseg(state), network, origin, None), classes, (remark,))
    if "backbone.patch_embed1.proj.weight" in state:
        return Foreign(origin, _mit(segformer.from_authors(state), network, origin, "segformer"), classes)
    if "backbone.layer1.0.conv1.weight" in state:
        return _resnet(state, network, own, origin, classes)
    raise UserError(
        f"init_from: {origin} has none of the backbones that are known of mmsegmentation (MixVisionTransformer, ResNet, "
        f"ResNetV1c, ResNetV1d), e.g. {shown(next(iter(state), 'no tensor'), 80)}; take a checkpoint of one of these"
    )


def _content(file: Path, origin: str) -> Mapping[str, object]:
    if not file.is_file():
        raise UserError(f"init_from: {origin}: there is no such file; download it from mmsegmentation's model zoo")
    try:
        with torch.serialization.safe_globals([(_Nothing, name) for name in _BESIDE]):
            return weights.read_file(file, "init_from")
    except UserError as error:
        raise UserError(
            f"{error}, or save its state_dict alone, where you trust it: torch.save({{'state_dict': …}}, FILE)"
        ) from error


def _classes(meta: object) -> list[str] | None:
    """The names that version 1 keeps in `dataset_meta`, version 0 beside it."""
    if not isinstance(meta, Mapping):
        return None
    about = meta.get("dataset_meta")
    return as_text(about.get("classes") if isinstance(about, Mapping) else meta.get("CLASSES"))


def _mit(state: dict[str, Tensor], network: Part, origin: str, name: str | None) -> dict[str, Tensor]:
    encoder = segformer.encoder_in(state)
    if encoder is None:
        raise UserError(
            f"init_from: {origin} has a Mix Transformer that is none of mit_b0 to mit_b5; take another file"
        )
    keys: dict[str, object] = {"encoder": encoder}
    if name is not None and (fuse := state.get(f"{CORE}decoder.fuse_stage.0.weight")) is not None:
        keys["decoder_channels"] = len(fuse)
    check_network(network, origin, name, keys)
    return state


def _resnet(
    state: Mapping[str, Tensor], network: Part, own: Collection[str], origin: str, classes: list[str] | None
) -> Foreign:
    """A ResNet's body, with its stem where the network has the same, and the auxiliary head of torchvision's networks."""
    is_deep = "backbone.stem.0.weight" in state
    letter = ("d" if "backbone.layer1.0.downsample.2.weight" in state else "c") if is_deep else ""
    blocks = len({key.split(".")[2] for key in state if key.startswith("backbone.layer3.")})
    has_bottleneck = "backbone.layer1.0.conv3.weight" in state
    depth = next((d for d, n in _LAYERS.items() if n == blocks and (d >= 50) == has_bottleneck), 0)
    plain, exact = f"resnet{depth}", f"resnet{depth}{letter}"
    encoder = exact if timm.is_model(exact) else plain
    if str(network.node.get("encoder")).removeprefix("tu-") != plain:
        check_network(network, origin, None, {"encoder": encoder})
    body = next((prefix for prefix in _BODIES if f"{prefix}layer1.0.conv1.weight" in own), _BODIES[0])
    has_stem = f"{body}conv1.0.weight" in own
    result: dict[str, Tensor] = {}
    for key, value in _AUXILIARY.renamed(state).items():
        stem = re.fullmatch(r"backbone\.stem\.(\d+)(\..*)", key)
        if stem and has_stem and int(stem[1]) in _STEM:
            result[f"{body}{_STEM[int(stem[1])]}{stem[2]}"] = value
        elif key.startswith("backbone.") and not stem:
            result[body + key.removeprefix("backbone.")] = value
        else:
            result[key] = value
    remarks = ["mmsegmentation's decode heads have other layers than the networks here: the decoder starts anew"]
    if is_deep and not has_stem:
        mend = f"; {overrides_of('deeplabv3plus', {'encoder': encoder})} has them" if encoder == exact else ""
        remarks.append(f"its stem has three convolutions, and the first layer here, which is one, starts anew{mend}")
    return Foreign(origin, result, classes, tuple(remarks))
