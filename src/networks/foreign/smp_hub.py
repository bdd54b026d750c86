"""`init_from=smp-hub:REPOSITORY`: a model that segmentation_models_pytorch's `save_pretrained` wrote."""

from __future__ import annotations

from collections.abc import Mapping

from src.config.parts import Part
from src.errors import UserError
from src.files.untrusted import shown
from src.networks.foreign import hub_files
from src.networks.foreign.found import CORE, Foreign, check_network, overrides_of, typed

# smp's class, our network, and what smp's arguments are called here.
_NETWORKS: dict[str, tuple[str, dict[str, str]]] = {
    "Unet": ("unet", {"encoder_depth": "encoder_depth", "decoder_channels": "decoder_channels",
                      "decoder_attention_type": "decoder_attention"}),
    "UnetPlusPlus": ("unetplusplus", {"encoder_depth": "encoder_depth", "decoder_channels": "decoder_channels",
                                      "decoder_attention_type": "decoder_attention"}),
    "MAnet": ("manet", {"encoder_depth": "encoder_depth", "decoder_channels": "decoder_channels",
                        "decoder_pab_channels": "attention_channels"}),
    "Linknet": ("linknet", {"encoder_depth": "encoder_depth"}),
    "PSPNet": ("pspnet", {"encoder_depth": "encoder_depth", "psp_out_channels": "decoder_channels"}),
    "PAN": ("pan", {"encoder_output_stride": "output_stride", "decoder_channels": "decoder_channels"}),
    "FPN": ("fpn", {"decoder_pyramid_channels": "pyramid_channels",
                    "decoder_segmentation_channels": "segmentation_channels"}),
    "DeepLabV3Plus": ("deeplabv3plus", {"encoder_output_stride": "output_stride", "decoder_channels": "decoder_channels",
                                        "decoder_atrous_rates": "atrous_rates"}),
    "Segformer": ("segformer", {"decoder_segmentation_channels": "decoder_channels"}),
    "UPerNet": ("upernet", {"decoder_channels": "decoder_channels"}),
}  # fmt: skip
# What null stands for.
_DEFAULTS: dict[str, object] = {"decoder_channels": [256, 128, 64, 32, 16], "atrous_rates": [12, 24, 36]}


def read(repository: str, network: Part) -> Foreign:
    """A model of smp, from the hub or a folder. smp keeps no names of classes.

    Raises:
        UserError: it is none of ours, cannot be had, or the run's network is another one.
    """
    about = hub_files.describe(repository, "smp-hub")
    origin = f"smp-hub:{shown(repository)}"
    kind = str(about.get("_model_class"))
    if kind not in _NETWORKS:
        raise UserError(
            f"init_from: {origin} is a {shown(kind)}, and of smp's models there are {', '.join(_NETWORKS)} here; take one of "
            "these"
        )
    name, keys = _NETWORKS[kind]
    encoder = str(about.get("encoder_name")).removeprefix("tu-")
    others = _differing(about, keys, network if network.name == name else Part())
    if network.name != name or str(network.node.get("encoder")).removeprefix("tu-") != encoder:
        check_network(network, origin, name, {"encoder": encoder, **others})
    state = {f"{CORE}{key}": value for key, value in hub_files.tensors_of(repository, "smp-hub").items()}
    remarks = (f"{origin} was made with {overrides_of(None, others)}; here they are others",) if others else ()
    return Foreign(origin, state, None, remarks)


def _differing(about: Mapping[str, object], keys: Mapping[str, str], network: Part) -> dict[str, object]:
    """Our keys whose values would have to be others, with these."""
    result = {}
    for theirs, ours in keys.items():
        if theirs in about:
            own = network.node.get(ours)
            default = _DEFAULTS.get(ours)
            if typed(about[theirs]) != typed(default if own is None else own):
                result[ours] = about[theirs]
    return result
