"""Segments images with nothing but a checkpoint: `python -m src.predict ckpt=… input=FILE|DIR|GLOB output=DIR`."""

from __future__ import annotations

import glob
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig
from pydantic import Field

from src import cli
from src.config.check import check_keys
from src.errors import UserError

_log = logging.getLogger(__name__)
_KEYS: dict[str, Any] = {
    "ckpt": str, "input": str, "output": str, "opacity": Annotated[float, Field(ge=0, le=1)], "device": str,
    "uncertainty": bool,
}  # fmt: skip
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def check(config: Mapping[str, Any]) -> None:
    check_keys(config, _KEYS)


def predict(settings: Mapping[str, Any]) -> list[str]:
    """Writes an index mask (palette PNG) and a colour overlay for each image, and its uncertainty maps if asked for.

    Returns:
        What went wrong with images that could not be read; the others are done all the same.

    Raises:
        UserError: no image, or a bad checkpoint or device.
    """
    check(settings)
    files = inputs(settings["input"])
    import numpy as np
    import torch
    from PIL import Image
    from rich.progress import track

    from src import build, checkpoints
    from src.data.images import read_rgb
    from src.drawing import overlay

    model, _ = build.model_from_checkpoint(checkpoints.find(settings["ckpt"]))
    if model.channels != 3 or model.intensity != (0.0, 255.0):
        raise UserError(
            f"ckpt: this model takes images of {model.channels} channels in the range {model.intensity}, not photos"
        )
    device = _device(settings["device"])
    model.to(device)
    output = Path(settings["output"]).expanduser()
    for folder in ("masks", "overlays", *(["uncertainty"] if settings["uncertainty"] else [])):
        (output / folder).mkdir(parents=True, exist_ok=True)
    palette = model.label_set.palette().tobytes()
    failed: list[str] = []
    for name, file in track(files.items(), "predicting", disable=not sys.stdout.isatty()):
        try:
            image = read_rgb(file)
        except UserError as error:
            failed.append(str(error))
            continue
        with torch.inference_mode():
            raw = image[None].to(device)
            mask = model.logits(raw).argmax(dim=1)[0].cpu().numpy().astype(np.uint8)
            maps = model.uncertainty(raw) if settings["uncertainty"] else {}
        picture = Image.fromarray(mask)
        picture.putpalette(palette)
        picture.save(output / "masks" / f"{name}.png")
        blended = overlay(image.permute(1, 2, 0).numpy(), mask, model.label_set, settings["opacity"])
        Image.fromarray(blended).save(output / "overlays" / f"{name}.png")
        for kind, values in maps.items():
            gray = (values[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
            Image.fromarray(gray).save(output / "uncertainty" / f"{name}_{kind}.png")
    _log.info("%d images predicted into %s", len(files) - len(failed), output)
    return failed


def inputs(given: str) -> dict[str, Path]:
    """Image files by output name (the stem) that a file, a folder or a glob pattern names.

    Raises:
        UserError: there is none, or two have the same stem.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())
    elif path.is_file():
        found = [path]
    else:
        found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
    if not found:
        raise UserError(f"input: no image at {given}; give an image, a folder of images or a glob pattern")
    names: dict[str, Path] = {}
    for file in found:
        if file.stem in names:
            raise UserError(f"input: {names[file.stem]} and {file} would both become {file.stem}.png; rename one")
        names[file.stem] = file
    return names


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.accelerator.current_accelerator() or torch.device("cpu")
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
