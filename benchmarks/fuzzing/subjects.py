"""What `fuzz.py` damages, how it is made, and the commands that take it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SMALL = [
    "network=tiny", "trainer=cpu", "trainer.max_epochs=1", "callbacks.pictures=null", "data.batch_size=2",
    "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
]  # fmt: skip
SHAPES = [
    "data.dataset.train_length=8", "data.dataset.val_length=2", "data.dataset.test_length=2", "data.dataset.height=32",
    "data.dataset.width=48",
]  # fmt: skip
CROP = ["data.crop=[32,32]"]
LABELS = "data.dataset.labels={one: 1, two: 2}"


Command = tuple[list[str], list[str]]  # a command's arguments, and patterns of the files that it reads (none: of any)


@dataclass
class Subject:
    """Something of a stranger's, and the commands that take it.

    Attributes:
        made: how it is made, in a folder of that name.
        files: patterns of the files that are damaged.
        commands: whose arguments may have `{it}` for the subject's folder and `{out}` for one that they may write into.
        writes: folders below the case, beside `out` and `work`, that its commands may write into.
        weight: how often it is drawn.
    """

    made: Callable[[Path], None]
    files: list[str]
    commands: list[Command]
    writes: tuple[str, ...] = ()
    weight: int = 1


def _train(folder: Path, *overrides: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "src.train", *SMALL, *overrides, f"hydra.run.dir={folder}"], cwd=folder.parent, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _run(folder: Path) -> None:
    _train(folder, *SHAPES, "trainer.max_epochs=2")


def _photos(folder: Path) -> None:
    from tests.data.layouts import index_png, photo, rows

    for split in ("train", "val"):
        for i, kind in enumerate(("jpg", "png", "tif", "bmp", "webp")):
            photo(folder / f"images/{split}/{i}.{kind}", i, (40, 48))
            index_png(folder / f"masks/{split}/{i}.png", rows(0, 1, 2, 255).repeat(2, 0)[:40].repeat(2, 1)[:, :48])
    (folder / "classes.yaml").write_text(
        "- {name: a, color: [1, 2, 3]}\n- {name: b, color: [4, 5, 6]}\n- name: c\n  color: [7, 8, 9]\n"
    )


def _scenes(folder: Path) -> None:
    from tests.data.formats.test_geotiff import write

    write(folder, dtype="uint16", nodata=0)


def _volumes(folder: Path) -> None:
    from tests.data.volumes import phantom, write_nifti

    for i in range(3):
        image, label = phantom(seed=i)
        write_nifti(folder / f"imagesTr/v{i}.nii.gz", image)
        write_nifti(folder / f"labelsTr/v{i}.nii.gz", label)


def _series(folder: Path) -> None:
    from tests.data.volumes import phantom, write_dicom, write_nifti

    for i in range(2):
        image, label = phantom((16, 16, 6), seed=i)
        write_dicom(folder / f"images/s{i}", image)
        write_nifti(folder / f"masks/s{i}.nii.gz", label)


def _coco(folder: Path) -> None:
    from tests.data.layouts import coco

    coco(folder)


def _chunks(folder: Path) -> None:
    _photos(folder.parent / "unchunked")
    subprocess.run(
        [sys.executable, "-m", "src.optimize", "data=folder", f"data.root={folder.parent / 'unchunked'}",
         f"output={folder}", "chunk_mb=0.02"], cwd=folder.parent, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _sweep(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "src.train", "-m", *SMALL, *SHAPES, "seed=1,2", f"sweep.dir={folder}", "launcher.jobs=2"],
        cwd=folder.parent, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _one_of(kind: str) -> Callable[[Path], None]:
    """A run on another subject's data, for the commands that take its checkpoint."""

    def make(folder: Path) -> None:
        data = folder.parent / kind
        _train(folder, f"data={DATA[kind][0]}", f"data.root={data}", *DATA[kind][1:])

    return make


_INTENSITY = ["data.dataset.bands=[4,3,2]", "data.dataset.intensity=[0,300]"]
_PATTERNS = ["data.dataset.images=*_image.tif", "data.dataset.masks=*_label.tif", "data.dataset.tile=[32,32]"]
_VOLUME = ["data.dataset.images=imagesTr/*.nii.gz", "data.dataset.masks=labelsTr/*.nii.gz", "data.dataset.val=[v2]"]
_SERIES = ["data.dataset.images=images", "data.dataset.masks=masks/*.nii.gz", "data.dataset.val=[s1]"]
DATA = {
    "photos": ["folder", *CROP],
    "scenes": ["geotiff", LABELS, *_INTENSITY, *_PATTERNS, *CROP],
    "volumes": ["nifti", LABELS, *_VOLUME, "data.dataset.window=[40,400]", "data.crop=[16,16]"],
    "series": ["dicom", LABELS, *_SERIES, "data.dataset.window=[40,400]", "data.crop=[16,16]"],
    "coco": ["coco", *CROP],
    "chunks": ["streaming", *CROP],
}


def _training(kind: str) -> Command:
    given = [f"data={DATA[kind][0]}", "data.root={it}", *DATA[kind][1:]]
    return ["src.train", *SMALL, *given, "hydra.run.dir={out}/run"], []


def _predicting(of: str, place: str, read: str) -> Command:
    return ["src.predict", f"ckpt={{base}}/{of}", f"input={{it}}{place}", "output={out}/predicted", "device=cpu"], [
        read
    ]


# Commands on a run folder, and the checkpoints that they read.
_OF_RUN: list[Command] = [
    (["src.train", "resume={it}", "trainer.max_epochs=3"], ["last.ckpt"]),
    (["src.train", "like={it}", "hydra.run.dir={out}/run"], []),
    (["src.train", *SMALL, *SHAPES, "init_from={it}", "test=false", "hydra.run.dir={out}/run"], ["best.ckpt"]),
    (["src.evaluate", "ckpt={it}", "hydra.run.dir={out}/scores"], ["best.ckpt"]),
    (
        ["src.predict", "ckpt={it}", "input={base}/photos/images/train", "output={out}/predicted", "device=cpu"],
        ["best.ckpt"],
    ),
    (["src.export", "ckpt={it}", "format=pt2", "output={out}/model.pt2"], ["best.ckpt"]),
    (["src.report", "{it}"], []),
]
_RESUME, _LIKE, _INIT_FROM, _EVALUATE, _PREDICT, _EXPORT, _REPORT = _OF_RUN
_CONFIGS = [".hydra/config.yaml", ".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/hydra.yaml", "metrics.json"]
_CKPTS = ["checkpoints/best.ckpt", "checkpoints/last.ckpt"]
SUBJECTS = {
    "configs": Subject(_run, _CONFIGS, [_RESUME, _RESUME, _LIKE, _LIKE, _EVALUATE, _REPORT], ("it",), 6),
    "checkpoints": Subject(_run, _CKPTS, [_RESUME, _INIT_FROM, _EVALUATE, _PREDICT, _EXPORT], ("it",), 6),
    "places": Subject(
        _run, [*_CONFIGS, *_CKPTS, "checkpoints", ".hydra", "tensorboard", "train.log", "checkpoints/.lock"],
        [(command, []) for command, _ in _OF_RUN], ("it",), 3,
    ),
    "events": Subject(_run, ["tensorboard/**/events*"], [_REPORT, _RESUME], ("it",), 2),
    "sweep": Subject(_sweep, ["sweep.json"], [(["src.train", "sweep.resume={it}"], []), _REPORT], ("it",)),
    "photos": Subject(
        _photos, ["images/*/*", "masks/*/*", "classes.yaml"],
        [_training("photos"), _predicting("of photos", "/images/train", "images/train/*")], (), 6,
    ),
    "scenes": Subject(
        _scenes, ["*.tif"], [_training("scenes"), _predicting("of scenes", "/*_image.tif", "*_image.tif")], (), 3
    ),
    "volumes": Subject(
        _volumes, ["*/*.nii.gz"], [_training("volumes"), _predicting("of volumes", "/imagesTr", "imagesTr/*")], (), 3
    ),
    "series": Subject(
        _series, ["images/*/*.dcm"], [_training("series"), _predicting("of series", "/images", "*.dcm")], (), 3
    ),
    "coco": Subject(_coco, ["annotations/instances_*.json"], [_training("coco")], (), 2),
    "chunks": Subject(_chunks, ["**/*"], [_training("chunks")], (), 2),
}  # fmt: skip
OTHERS = {f"of {kind}": _one_of(kind) for kind in ("photos", "scenes", "volumes", "series")}
