"""Two files of a model on the Hugging Face hub, or of a folder that has the same: the description and the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from src.errors import UserError
from src.files.untrusted import read_json, shown
from src.networks import weights

_MEND = "where the hub cannot be reached, download these files elsewhere and give the folder"


def describe(repository: str, prefix: str) -> Mapping[str, object]:
    """A model's config.json, as plain data.

    Args:
        repository: `owner/name` on the hub, or a folder.
        prefix: the source's name, for errors.

    Raises:
        UserError: there is none, or it is no mapping.
    """
    file = _file(repository, ("config.json",), prefix)
    content = read_json(file, links=True)
    if not isinstance(content, dict):
        raise UserError(f"init_from: {file} is no description of a model (it holds a {type(content).__name__})")
    return content


def tensors_of(repository: str, prefix: str) -> dict[str, Tensor]:
    """A model's weights, out of `model.safetensors` or `pytorch_model.bin`, read as tensors alone.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    file = _file(repository, ("model.safetensors", "pytorch_model.bin"), prefix)
    return weights.tensors(weights.read_file(file, "init_from"))


def _file(repository: str, names: Sequence[str], prefix: str) -> Path:
    folder = Path(repository).expanduser()
    of = f"init_from: {prefix}:{shown(repository)}"
    if folder.is_dir():
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise UserError(f"{of} is a folder without {' or '.join(names)}; give one that save_pretrained wrote")
    if repository.startswith((".", "/", "~")) or repository.count("/") != 1 or not all(repository.split("/")):
        raise UserError(f"{of} is neither a folder nor a model of the hub, which is called OWNER/NAME; correct it")
    return weights.downloaded(lambda: Path(_fetched(repository, names)), of, _MEND)


def _fetched(repository: str, names: Sequence[str]) -> str:
    """The first of these files that the hub, or what is kept of it on this machine, has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in names[:-1]:
        try:
            return hf_hub_download(repository, name)
        except EntryNotFoundError:
            continue
    return hf_hub_download(repository, names[-1])
