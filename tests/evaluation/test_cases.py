"""Figures of cases, where a class is missing, and how slices become cases."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from src.cli.command import compose
from src.data.labels import LabelSet
from src.evaluate import evaluate
from src.evaluation.cases import Place, Slice, as_csv, cases_of, figures_of, summary
from src.train import train
from tests.conftest import settings
from tests.data.volumes import phantom, write_nifti
from tests.inference.test_scores_of_predictions import TINY, VOLUMES

Mask = npt.NDArray[np.uint8]
LABELS = LabelSet(("background", "kidney", "tumour"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
NOWHERE = {"dice": None, "iou": None, "surface_dice": None, "lesion_f1": None, "hd95": None, "assd": None}


def mask(**classes: tuple[slice, ...]) -> Mask:
    made = np.zeros((8, 10, 12), np.uint8)
    for name, where in classes.items():
        made[where] = LABELS.names.index(name)
    return made


BOX, HALF = (slice(1, 5), slice(2, 6), slice(2, 6)), (slice(1, 3), slice(2, 6), slice(2, 6))


def test_overlaps_and_volumes() -> None:
    found = figures_of(mask(kidney=HALF), mask(kidney=BOX), LABELS, (5.0, 1.0, 1.0), 2.0)
    assert list(found) == ["kidney", "tumour"]
    assert found["kidney"]["dice"] == pytest.approx(2 * 32 / (32 + 64))
    assert found["kidney"]["iou"] == pytest.approx(0.5)
    assert found["kidney"]["volume_error"] == pytest.approx(-32 * 5 / 1000)
    assert found["kidney"]["hd95"] == 10.0
    assert found["tumour"] == {**NOWHERE, "volume_error": 0.0, "true_volume": 0.0}


def test_in_one_of_both_alone() -> None:
    missed = figures_of(mask(), mask(kidney=BOX), LABELS, (1.0, 1.0, 1.0), 2.0)["kidney"]
    invented = figures_of(mask(kidney=BOX), mask(), LABELS, (1.0, 1.0, 1.0), 2.0)["kidney"]
    for one in (missed, invented):
        assert {kind: one[kind] for kind in NOWHERE} == {
            "dice": 0.0, "iou": 0.0, "surface_dice": 0.0, "lesion_f1": 0.0, "hd95": None, "assd": None
        }  # fmt: skip
    assert (missed["volume_error"], invented["volume_error"]) == (-0.064, 0.064)


def test_ignored_voxels_are_of_no_class() -> None:
    truth = mask(kidney=HALF)
    truth[3:5, 2:6, 2:6] = 255
    found = figures_of(mask(kidney=BOX), truth, LABELS, (1.0, 1.0, 1.0), 2.0)
    assert found["kidney"]["dice"] == 1.0 and found["kidney"]["volume_error"] == 0.0


def slices(name: str, given: Mask, truth: Mask, numbers: list[int]) -> list[Slice]:
    place = [Place(name, number, (1.0, 1.0, 1.0)) for number in numbers]
    return [Slice.of(at, given[at.number], truth[at.number]) for at in place]


def test_slices_in_any_order_are_volumes_and_gaps_part_them() -> None:
    given, truth = mask(kidney=HALF, tumour=(slice(6, 8),)), mask(kidney=BOX)
    whole = slices("b", given, truth, [3, 1, 7, 0, 2, 6, 5, 4])
    (case,) = cases_of(whole, LABELS, 2.0)
    assert case.name == "b"
    assert case.classes == figures_of(given, truth, LABELS, (1.0, 1.0, 1.0), 2.0)
    parts = list(
        cases_of([*slices("b", given, truth, [0, 1, 2, 6, 7]), *slices("a", truth, truth, [4, 3])], LABELS, 2.0)
    )
    assert [part.name for part in parts] == ["a", "b[000-002]", "b[006-007]"]
    assert parts[0].dice == 1.0 and parts[2].classes["tumour"]["dice"] == 0.0


def test_an_image_is_a_case_in_pixels() -> None:
    (case,) = cases_of([Slice.of(Place("photo"), mask(kidney=HALF)[1], mask(kidney=BOX)[1])], LABELS, 2.0)
    assert (case.unit, case.classes["kidney"]["dice"], case.classes["kidney"]["true_volume"]) == ("px", 1.0, 16.0)


def test_means_are_nnunets() -> None:
    """A case counts in the means of the classes that its truth or prediction has; the foreground's is the mean of these."""
    pairs = {"a": (mask(kidney=HALF), mask(kidney=BOX)), "b": (mask(), mask(kidney=BOX, tumour=(slice(6, 8),))),
             "c": (mask(tumour=(slice(7, 8),)), mask())}  # fmt: skip
    found = [one for name, pair in pairs.items() for one in cases_of(slices(name, *pair, [*range(8)]), LABELS, 2.0)]
    said = summary(found, 2.0)
    kidney, tumour = said["classes"]["kidney"], said["classes"]["tumour"]
    assert kidney["dice"] == {
        "mean": pytest.approx((2 / 3 + 0) / 2),
        "std": pytest.approx(statistics.stdev([2 / 3, 0])),
        "cases": 2,
    }
    assert tumour["dice"] == {"mean": 0, "std": 0, "cases": 2}
    assert (kidney["missed"], kidney["invented"], tumour["missed"], tumour["invented"]) == (1, 0, 1, 1)
    assert kidney["hd95"]["cases"] == 1 and tumour["hd95"]["mean"] is None
    assert said["foreground"]["dice"] == pytest.approx((1 / 3 + 0) / 2)
    assert [row["case"] for row in said["by_case"]] == ["b", "c", "a"]
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == 6 and rows[0]["case"] == "a" and rows[1]["dice"] == ""


def test_of_a_run(tmp_path: Path) -> None:
    """Slices of a volume that `evaluate` predicts one by one, put together as `predict` writes it, in mm of its own voxels."""
    for split, names in {"train": ["t"], "val": ["=v", "w"]}.items():
        for seed, name in enumerate(names):
            image, label = phantom(seed=seed)
            write_nifti(tmp_path / f"data/images/{split}/{name}.nii", image, (1.0, 1.0, 4.0), "PIR")
            write_nifti(tmp_path / f"data/masks/{split}/{name}.nii", label, (1.0, 1.0, 4.0), "PIR")
    run = tmp_path / "run"
    train(
        settings(
            run,
            "data=nifti",
            *TINY,
            *VOLUMES,
            f"data.root={tmp_path / 'data'}",
            "test=false",
            "trainer.limit_val_batches=1.0",
            small=False,
        )
    )
    asked = [f"ckpt={run}", "splits=[val]", "metrics=[cases]", f"output={tmp_path / 'out'}", "bootstrap.samples=0"]
    composed = compose("evaluate", [*asked, "trainer.accelerator=cpu"])
    composed["paths"]["output_dir"] = str(tmp_path)
    evaluate(composed)
    folder = tmp_path / "out/evaluation/val"
    said: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["cases"]
    assert (said["cases"], said["unit"], said["tolerance"]) == (2, "mm", 2.0)
    classes = dict(json.loads((folder / "metrics.json").read_text())["classes"])
    for row in said["by_case"]:
        volume = phantom()[1]
        for number, name in enumerate(classes):
            if name in row["classes"]:
                assert row["classes"][name]["true_volume"] == pytest.approx((volume == number).sum() * 4 / 1000)
    assert "'=v" in (folder / "cases.csv").read_text()
