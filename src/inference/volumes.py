"""Segments volumes slice by slice and keeps how they lie in the patient."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from src.config.check import check_node
from src.config.parts import Dataset
from src.data.formats.nifti import load_nifti, open_nifti
from src.data.readers.dicom_series import open_series
from src.data.readers.slicing import Slicing
from src.errors import UserError
from src.files.atomic import replacing
from src.files.pictures import save_picture
from src.inference.drawing import as_picture, overlay
from src.inference.predictor import Predictor
from src.inference.protocol import joined
from src.inference.scenes import gray_maps, gray_probabilities
from src.inference.sizes import sized
from src.inference.vectors import check_forms
from src.inference.writing import Writing
from src.optional_packages import needs

_log = logging.getLogger(__name__)
_TRAINED_ON = ("src.data.formats.nifti.Nifti", "src.data.formats.dicom.Dicom")


def slicing_of(dataset: Dataset, file: Path) -> Slicing:
    """How a model that was trained on `dataset` takes the slices of a volume.

    Raises:
        UserError: it was not trained on volumes.
    """
    if dataset.target not in _TRAINED_ON:
        raise UserError(f"{file}: is a volume and this model was not trained on volumes (data=nifti or data=dicom)")
    check_node("data.dataset", dataset.node)  # a stranger's checkpoint
    keys = ("axis", "neighbors", "window", "percentiles", "spacing")
    node: dict[str, Any] = dict(dataset.node)
    return Slicing(**{"axis": "axial"} | {key: node[key] for key in keys if node.get(key) is not None})


@torch.inference_mode()
def segment_volume(
    model: Predictor, device: torch.device, file: Path, name: str, dataset: Dataset, writing: Writing
) -> None:
    """Writes uncertainty/NAME_….nii.gz, probabilities/NAME.nii.gz (uint8 [X, Y, Z, K], whose scale is 1/255), overlays/NAME.png
    of the slice with most labels, and masks/NAME.nii.gz (class numbers, uint8, or `ids`), in the voxels and with the affine of
    `file` (a NIfTI file, or the folder of a DICOM series).

    Raises:
        UserError: the file cannot be read, or the model is none for volumes.
    """
    check_forms(writing.vectors, (), file, "a volume")
    slicing = slicing_of(dataset, file)
    volume = open_series(file) if file.is_dir() else open_nifti(file)
    if modality := model.images.other_modality(volume.modality):
        raise UserError(f"{file}: is of {modality}; take a model of its modality")
    for doubt in (*volume.doubts, slicing.doubt(volume)):
        if doubt is not None:
            _log.warning("%s: is %s", file, doubt)
    results: dict[str, npt.NDArray[np.uint8]] = {}
    most, shown = -1, np.zeros((0, 0, 3), np.uint8)
    for index in range(volume.length(slicing.axis)):
        image = slicing.image(volume, index)
        width, height = volume.plane_shape(slicing.axis)
        outputs = joined(model.predicted(image[None].to(device), (height, width)))
        planes = gray_maps(model, outputs, writing.uncertainty)[0]
        chances = gray_probabilities(model, outputs)[0] if writing.probabilities else ()
        for kind, plane in planes.items():
            whole = results.setdefault(kind, np.zeros(volume.shape, np.uint8))
            volume.view(whole, slicing.axis, index)[...] = plane
        for k, plane in enumerate(chances):
            whole = results.setdefault("probability", np.zeros((*volume.shape, len(chances)), np.uint8))
            volume.view(whole[..., k], slicing.axis, index)[...] = plane
        if (count := int((planes["mask"] != 0).sum())) > most:
            middle = image[slicing.neighbors : slicing.neighbors + 1].numpy()
            mask = sized(outputs["logits"].float(), image.shape[-2:]).argmax(dim=1)[0].cpu().numpy()
            if writing.opacity is not None:
                picture = as_picture(middle, model.intensity)
                shown = overlay(picture, mask, model.label_set, writing.opacity)
            most = count
    if writing.opacity is not None:
        save_picture(Image.fromarray(shown), writing.overlay(name))
    for kind, found in results.items():
        if kind == "probability":
            _save(found, volume.affine, file, writing.probability(name, ".nii.gz"), scale=1 / 255)
        elif kind != "mask":
            _save(found, volume.affine, file, writing.uncertainty_map(name, kind, ".nii.gz"))
    mask = results["mask"]
    _save(mask if writing.ids is None else writing.ids.of(mask), volume.affine, file, writing.mask(name, ".nii.gz"))


def _save(
    values: npt.NDArray[np.unsignedinteger],
    affine: npt.NDArray[np.float64],
    like: Path,
    file: Path,
    scale: float | None = None,
) -> None:
    """Writes a volume under a temporary name, then renames it; a NIfTI file's header (units, codes of its affine) is kept.

    Args:
        scale: what readers multiply the values by; None for nothing.
    """
    nib = needs("nibabel", "medical")
    if like.is_dir():
        image = nib.Nifti1Image(values, affine)
    else:
        source = load_nifti(like)
        image = type(source)(values, source.affine, source.header)
        image.header["cal_min"] = image.header["cal_max"] = 0  # of the scan's brightness
    image.set_data_dtype(values.dtype)
    if scale is not None:
        image.header.set_slope_inter(scale, 0)
    with replacing(file) as partial:
        nib.save(image, partial)
