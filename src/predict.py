"""Segments images, rasters and volumes with nothing but a checkpoint:
`python -m src.predict ckpt=… input=FILE|DIR|GLOB output=DIR`."""

from __future__ import annotations

import glob
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import DictConfig
from pydantic import Field

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src import cli
from src.config.check import check_keys
from src.data import not_read
from src.errors import UserError

if TYPE_CHECKING:  # a config error must not wait for torch
    import torch

    from src.models.base import Segmenter

_log = logging.getLogger(__name__)
_KEYS: dict[str, Any] = {
    "ckpt": str, "input": str, "output": str, "opacity": Annotated[float, Field(ge=0, le=1)], "device": str,
    "uncertainty": bool, "window": Annotated[int, Field(ge=64, multiple_of=32)],
    "overlap": Annotated[int, Field(ge=0, multiple_of=32)], "trust": list[str] | None,
}  # fmt: skip
_VOLUMES = (".nii", ".nii.gz")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", *_VOLUMES)


def check(config: Mapping[str, Any]) -> None:
    check_keys(config, _KEYS)
    if config["overlap"] * 2 > config["window"]:
        raise UserError(f"overlap: {config['overlap']} is more than half of window={config['window']}; take less")


def predict(settings: Mapping[str, Any]) -> list[str]:
    """Writes the mask and a colour overlay of each input, and its uncertainty maps if asked for: of a photo as palette PNG,
    of a GeoTIFF and whatever is no photo as GeoTIFF, of a volume as NIfTI. What a model with further tasks says of a photo (its
    depth, boundary probabilities) is written beside them as TIFF, float32.

    Returns:
        What went wrong with inputs that could not be read; the others are done all the same.

    Raises:
        UserError: no input, or a bad checkpoint or device.
    """
    check(settings)
    files = inputs(settings["input"])
    from rich.progress import track

    from src import build, checkpoints
    from src.rasters import TRAINED_ON, is_georeferenced, segment_raster
    from src.volumes import segment_volume

    model, config = build.model_from_checkpoint(checkpoints.find(settings["ckpt"]), settings.get("trust") or ())
    dataset = (config.get("data") or {}).get("dataset") or {}
    takes_photos = (model.channels, model.intensity) == (3, (0.0, 255.0)) and dataset.get("_target_") != TRAINED_ON
    device = _device(settings["device"])
    model.to(device)
    output = Path(settings["output"]).expanduser()
    looks = {key: settings[key] for key in ("opacity", "uncertainty")}
    for folder in ("masks", "overlays", *(["uncertainty"] if settings["uncertainty"] else [])):
        (output / folder).mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    for name, file in track(files.items(), "predicting", disable=not sys.stdout.isatty()):
        try:
            if (reason := not_read.explain(file)) is not None:
                raise UserError(f"{file}: {reason}")
            if file.is_dir() or file.name.lower().endswith(_VOLUMES):
                segment_volume(model, device, file, output, name, dataset, **looks)
            elif takes_photos and not is_georeferenced(file):
                _segment_photo(model, device, file, output, name, **looks)
            else:
                size = {"side": settings["window"], "overlap": settings["overlap"]}
                segment_raster(model, device, file, output, name, dataset, **size, **looks)
        except UserError as error:
            failed.append(str(error))
    _log.info("%d images predicted into %s", len(files) - len(failed), output)
    return failed


def _segment_photo(
    model: Segmenter, device: torch.device, file: Path, output: Path, name: str, *, opacity: float, uncertainty: bool
) -> None:
    import torch
    from PIL import Image

    from src.data.images import read_rgb
    from src.drawing import overlay
    from src.rasters import segment

    image = read_rgb(file)
    maps = segment(model, image[None].to(device), uncertainty)
    mask = maps.pop("mask")
    picture = Image.fromarray(mask)
    picture.putpalette(model.label_set.palette().tobytes())
    picture.save(output / "masks" / f"{name}.png")
    blended = overlay(image.permute(1, 2, 0).numpy(), mask, model.label_set, opacity)
    Image.fromarray(blended).save(output / "overlays" / f"{name}.png")
    for kind, gray in maps.items():
        Image.fromarray(gray).save(output / "uncertainty" / f"{name}_{kind}.png")
    with torch.no_grad():
        of_tasks = model.task_maps(image[None].to(device))
    for task, values in of_tasks.items():
        (output / task).mkdir(exist_ok=True)
        Image.fromarray(values[0].cpu().numpy()).save(output / task / f"{name}.tif")


def inputs(given: str) -> dict[str, Path]:
    """Image files and folders of DICOM series by output name (without suffix) that a file, a folder or a glob pattern names.

    Raises:
        UserError: there is none, or two have the same name.
    """
    path = Path(given).expanduser()
    if path.is_file() or _is_series(path):
        found = [path]
    elif path.is_dir():
        found = sorted(
            p for p in path.iterdir() if (p.name.lower().endswith(_SUFFIXES) and p.is_file()) or _is_series(p)
        )
    else:
        found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file() or _is_series(p))
    if not found:
        there = not_read.found_instead([path, *(path.iterdir() if path.is_dir() else ())])
        raise UserError(f"input: no image at {given}{there or '; give an image, a folder of images or a glob pattern'}")
    names: dict[str, Path] = {}
    for file in found:
        name = file.name[:-7] if file.name.lower().endswith(".nii.gz") else file.name if file.is_dir() else file.stem
        if name in names:
            raise UserError(f"input: {names[name]} and {file} would both become {name}; rename one")
        names[name] = file
    return names


def _is_series(path: Path) -> bool:
    return path.is_dir() and any(p.suffix.lower() == ".dcm" for p in path.iterdir())


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device: {name!r} cannot be used ({str(error).splitlines()[0][:120]}); take device=cpu"
        ) from error


def _task(config: DictConfig) -> None:
    failed = predict(cli.plain(config))
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    cli.start("predict", _task, check)
