"""`init_from=SOURCE:NAME`: weights that another program made, by the source's name."""

from __future__ import annotations

from collections.abc import Collection

from src.config.parts import Part
from src.networks.foreign import huggingface, mmseg, smp_hub, torchvision_hub
from src.networks.foreign.found import Foreign


def read(source: str, name: str, network: Part, own: Collection[str]) -> Foreign:
    """What a source has under a name.

    Args:
        source: "torchvision", "hf", "smp-hub" or "mmseg".
        name: a model of it, a folder or a file.
        network: the run's, as its config has it.
        own: names of the tensors of the run's network.

    Raises:
        UserError: there is none, it cannot be had, or it is of another network.
    """
    if source == "mmseg":
        return mmseg.read(name, network, own)
    readers = {"torchvision": torchvision_hub.read, "hf": huggingface.read, "smp-hub": smp_hub.read}
    return readers[source](name, network)
