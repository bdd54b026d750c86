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
from src.data.labels import OwnIds
from src.data.readers.dicom_series import open_series
from src.data.readers.slicing import Slicing
from src.errors import UserError
from src.files.atomic import replacing
from src.files.pictures import save_picture
from src.inference.drawing import as_picture, overlay
from src.inference.predictor import Predictor
from src.inference.protocol import joined
from src.inference.scenes import gray_maps
from src.inference.sizes import sized
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
    model: Predictor, device: torch.device, file: Path, output: Path, name: str, dataset: Dataset, *,
    opacity: float, uncertainty: bool, ids: OwnIds | None = None,
) -> None:  # fmt: skip
    """Writes masks/NAME.nii.gz (class numbers, uint8, or `ids`) and uncertainty/NAME_….nii.gz in the voxels and with the
    affine of `file` (a NIfTI file, or the folder of a DICOM series), and overlays/NAME.png of the slice with most labels.

    Raises:
        UserError: the file cannot be read, or the model is none for volumes.
    """
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
        planes = gray_maps(model, outputs, uncertainty)
        for kind, plane in planes.items():
            whole = results.setdefault(kind, np.zeros(volume.shape, np.uint8))
            volume.view(whole, slicing.axis, index)[...] = plane
        if (count := int((planes["mask"] != 0).sum())) > most:
            middle = image[slicing.neighbors : slicing.neighbors + 1].numpy()
            mask = sized(outputs["logits"].float(), image.shape[-2:]).argmax(dim=1)[0].cpu().numpy()
            most, shown = count, overlay(as_picture(middle, model.intensity), mask, model.label_set, opacity)
    for kind, found in results.items():
        target = output / ("masks" if kind == "mask" else "uncertainty")
        values = found if ids is None or kind != "mask" else ids.of(found)
        _save(values, volume.affine, file, target / f"{name}{'' if kind == 'mask' else f'_{kind}'}.nii.gz")
    save_picture(Image.fromarray(shown), output / "overlays" / f"{name}.png")


def _save(values: npt.NDArray[np.unsignedinteger], affine: npt.NDArray[np.float64], like: Path, file: Path) -> None:
    """Writes a volume under a temporary name, then renames it; a NIfTI file's header (units, codes of its affine) is kept."""
    nib = needs("nibabel", "medical")
    if like.is_dir():
        image = nib.Nifti1Image(values, affine)
    else:
        source = load_nifti(like)
        image = type(source)(values, source.affine, source.header)
        image.header["cal_min"] = image.header["cal_max"] = 0  # of the scan's brightness
    image.set_data_dtype(values.dtype)
    with replacing(file) as partial:
        nib.save(image, partial)
