"""What prediction takes, what it leaves out with a word, how outputs are named, and what one bad file or a full disk does."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.cli.command import compose
from src.data import windows
from src.data.formats import geotiff, nifti
from src.data.readers import images
from src.data.readers.images import IMAGE_SUFFIXES
from src.errors import Interrupted, UserError
from src.files import atomic
from src.inference import job, photos, writing
from src.inference.inputs import SUFFIXES, find
from src.predict import predict
from src.storage.run_folder import BEST
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import settings
from tests.data.volumes import phantom, write_dicom


def picture(file: Path, height: int = 40, width: int = 50, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names(given: str | Path, recursive: bool = False, output: Path = Path("out")) -> dict[str, str]:
    return {name: file.name for name, file in find(str(given), output, recursive).files.items()}


def prediction(ckpt: Path, given: Path | str, output: Path, *overrides: str) -> dict[str, Any]:
    return compose("predict", [f"ckpt={ckpt}", f"input={given}", f"output={output}", "device=cpu", *overrides])


def written(output: Path) -> list[str]:
    """The files of predictions; not what says of which checkpoint they are."""
    files = (file for file in output.rglob("*") if file.is_file() and file != output / "prediction.json")
    return sorted(str(file.relative_to(output)) for file in files)


@pytest.fixture(scope="module")
def on_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ("trainer.max_epochs=1", "test=false", "tasks=boundary")
    return train(settings(tmp_path_factory.mktemp("photos"), *options)).run_dir


def test_what_training_reads_prediction_reads(tmp_path: Path) -> None:
    assert set(SUFFIXES) == {*IMAGE_SUFFIXES, *geotiff.SUFFIXES, *nifti.SUFFIXES}
    for number, suffix in enumerate(SUFFIXES):
        touched(tmp_path, f"{number}{suffix}", f"{number}u{suffix.upper()}")
    assert set(names(tmp_path)) == {f"{n}{u}" for n in range(len(SUFFIXES)) for u in ("", "u")}


@pytest.mark.parametrize("suffix", ["", ".dcm", ".IMA", ".dicom"])
def test_series_are_folders_as_in_training(tmp_path: Path, suffix: str) -> None:
    series = tmp_path / "in/patient"
    write_dicom(series, phantom()[0])
    for file in list(series.iterdir()):
        file.rename(series / f"{file.stem}{suffix}")
    touched(tmp_path / "in/no series", "LICENSE", "README")
    found = find(str(tmp_path / "in"), tmp_path / "out")
    assert found.files == {"patient": series}
    assert "1 folder " in found.told()
    assert find(str(series), tmp_path / "out").files == {"patient": series}
    assert find(f"{tmp_path}/in/**", tmp_path / "out").files == {"patient": series}
    if suffix:
        with pytest.raises(UserError, match="is a DICOM slice, and a series is taken as its folder"):
            find(str(next(series.iterdir())), tmp_path / "out")


@pytest.mark.parametrize("form", ["", "/*", "/**"])
def test_hidden_and_foreign_files_are_skipped(tmp_path: Path, form: str) -> None:
    touched(tmp_path / "in", "IMG_1.JPG", "._IMG_1.JPG", ".DS_Store", "notes.txt", "Thumbs.db", "p.gif", "[a] b.png")
    os.mkfifo(tmp_path / "in/pipe.png")
    found = find(f"{tmp_path}/in{form}", tmp_path / "out")
    assert sorted(found.files) == ["IMG_1", "[a] b"]
    told = found.told()
    for kind in ("1 .txt", "1 .db", "1 .gif", "1 neither file nor folder"):
        assert kind in told
    assert ("2 hidden" in told) == (form == "")  # a pattern does not name them


def test_a_file_that_is_typed_and_no_image_is_an_error(tmp_path: Path) -> None:
    touched(tmp_path, "notes.txt", "v.mha")
    os.mkfifo(tmp_path / "pipe.png")
    expected = {
        "notes.txt": "of no format that is read", "v.mha": "convert it to NIfTI",
        "pipe.png": "neither a file nor a folder", "none.png": "no such file or folder",
        "*.gif": "give an image", "a\x1b[2Jb.png": r"a\\x1b\[2Jb",
    }  # fmt: skip
    for name, words in expected.items():
        with pytest.raises(UserError, match=words) as caught:
            find(str(tmp_path / name), tmp_path / "out")
        assert str(caught.value).isprintable()


def test_folders_of_folders(tmp_path: Path) -> None:
    touched(tmp_path / "in", "c1/0001.jpg", "c2/0001.jpg", "c2/.hidden/0001.jpg", "c2/deep er/[x].png")
    with pytest.raises(
        UserError, match=r"2 folders.*python -m src\.predict ckpt=… input=.*/in output=… recursive=true"
    ) as caught:
        find(str(tmp_path / "in"), tmp_path / "out")
    assert "\n" not in str(caught.value)
    expected = {"c1/0001": "0001.jpg", "c2/0001": "0001.jpg", "c2/deep er/[x]": "[x].png"}
    assert names(tmp_path / "in", recursive=True) == expected
    assert names(f"{tmp_path}/in/**/*.*") == expected
    assert names(f"{tmp_path}/in/c?/*.jpg") == {name: file for name, file in expected.items() if file == "0001.jpg"}
    (tmp_path / "in/c2/loop").symlink_to(tmp_path / "in")
    assert names(tmp_path / "in", recursive=True) == expected


def test_brackets_in_names_are_no_pattern(tmp_path: Path) -> None:
    touched(tmp_path / "run [1]", "a[0].png", "a0.png")
    assert names(tmp_path / "run [1]/a[0].png") == {"a[0]": "a[0].png"}
    assert names(tmp_path / "run [1]") == names(f"{tmp_path}/run [1]/*.png") == {"a[0]": "a[0].png", "a0": "a0.png"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.jpg", "a.png", "b.png"], ["a_jpg", "a_png", "b"]),
        (["a.jpg", "A.PNG"], ["A_png", "a_jpg"]),  # one file on some disks
        (["a.jpg", "a.png", "a_jpg.png"], ["a_jpg", "a_jpg_2", "a_png"]),
        (["a.nii", "a.nii.gz", "a.tif"], ["a_nii", "a_nii_gz", "a_tif"]),
        (["c/a.jpg", "a.png"], ["a", "c/a"]),
    ],
)
def test_two_files_of_one_stem(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    touched(tmp_path, *files)
    found = names(tmp_path, recursive=True)
    assert sorted(found) == expected
    assert found == names(tmp_path, recursive=True)
    assert len(set(found)) == len(files)


def test_output_inside_input(tmp_path: Path) -> None:
    touched(tmp_path, "a.png", "masks/a.png", "overlays/a.png", "out/masks/a.png")
    for output in (tmp_path, tmp_path / "out"):
        touched(tmp_path, "sub/b.png")
        for given in (tmp_path, f"{tmp_path}/**/*.png"):
            found = find(str(given), output, recursive=True)
            own = [name for name, file in found.files.items() if file.is_relative_to(output / "masks")]
            assert own == []
            assert {"a", "sub/b"} <= {name.removesuffix("_png") for name in found.files}
            assert "of predictions" in found.told()
    with pytest.raises(UserError, match="lies where predictions are written"):
        find(str(tmp_path / "masks/a.png"), tmp_path)


def test_a_phone_folder(on_photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    given = tmp_path / "in"
    picture(given / "IMG_1.png")
    picture(given / "c/IMG_1.png", seed=1)
    picture(given / "IMG_1.jpg", seed=2)
    touched(given, "._IMG_1.JPG", "notes.txt")
    (given / "trunc\n.jpg").write_bytes((given / "IMG_1.jpg").read_bytes()[:300])
    failed = predict(prediction(on_photos, given, tmp_path / "out", "recursive=true"))
    assert len(failed) == 1
    assert failed[0].isprintable()
    masks = [name for name in written(tmp_path / "out") if name.startswith("masks/")]
    assert masks == ["masks/IMG_1_jpg.png", "masks/IMG_1_png.png", "masks/c/IMG_1.png"]
    assert (tmp_path / "out/overlays/c/IMG_1.png").is_file()
    assert "skipped: 1 .txt, 1 hidden" in caplog.text
    assert f"3 done, 2 skipped, 1 failed: see {tmp_path / 'out'}" in caplog.text


def test_photos_in_windows(on_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that hold all around a pixel that its class depends on give what the whole photo gives; maps too."""
    file = picture(tmp_path / "in/a.png", 200, 330)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert predict(prediction(on_photos, file, whole, "uncertainty=true")) == []
    monkeypatch.setattr(writing, "_STRIP", 64 * 330)
    assert predict(prediction(on_photos, file, parted, "uncertainty=true", "window=192", "overlap=96")) == []
    assert written(whole) == written(parted)
    assert "boundary/a.tif" in written(whole)
    for name in written(whole):
        expected, maps = (np.asarray(Image.open(folder / name)).astype(float) for folder in (whole, parted))
        assert maps.shape[:2] == (200, 330)
        if name.startswith(("masks", "overlays")):
            assert np.array_equal(maps, expected)
        else:  # gray values are rounded, and sums are of another order
            assert np.abs(maps - expected).max() <= (1 if "entropy" in name else 1e-4)
    model, _ = model_from_checkpoint(on_photos / BEST)
    raw = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        evaluated = model.logits(raw).argmax(dim=1)[0].numpy()
    assert np.array_equal(np.asarray(Image.open(whole / "masks/a.png")), evaluated)


@pytest.mark.parametrize("cause", ["pixels", "memory", "typed"])
def test_when_photos_are_done_in_windows(
    on_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cause: str
) -> None:
    caplog.set_level(logging.INFO)
    file = picture(tmp_path / "a.png", 100, 130)
    sizes: list[tuple[int, ...]] = []
    maps = photos._maps

    def counted(model: Any, device: torch.device, raw: torch.Tensor, uncertainty: bool, puts: Any) -> Any:
        sizes.append(tuple(raw.shape[2:]))
        if cause == "memory" and max(raw.shape[2:]) > 64:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return maps(model, device, raw, uncertainty, puts)

    monkeypatch.setattr(photos, "_maps", counted)
    monkeypatch.setattr(photos, "SIDE", 64)
    monkeypatch.setattr(photos, "WHOLE", 100 * 130 - (cause == "pixels"))
    typed = ["window=96"] if cause == "typed" else []
    assert predict(prediction(on_photos, file, tmp_path / "out", "overlap=32", *typed)) == []
    assert max(max(size) for size in sizes[1:]) == (96 if cause == "typed" else 64)
    assert (sizes[0] == (100, 130)) == (cause == "memory")
    words = {"pixels": "million are too many at once", "memory": "memory ran out"}
    assert ("done in windows of 64" in caplog.text) == (cause in words)
    assert words.get(cause, "") in caplog.text


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("out of memory"), ValueError("bad\nvalue"), KeyError("x"), OSError("broken")],
    ids=repr,
)  # fmt: skip
def test_one_bad_file_never_stops_the_others(
    on_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in "abc":
        picture(tmp_path / f"in/{name}.png")
    read = images.read_rgb

    def reading(file: Path) -> torch.Tensor:
        if file.name == "b.png":
            raise error
        return read(file)

    monkeypatch.setattr(job, "read_rgb", reading)
    failed = predict(prediction(on_photos, tmp_path / "in", tmp_path / "out"))
    assert len(failed) == 1
    assert failed[0].startswith(f"{tmp_path}/in/b.png: ")
    assert "\n" not in failed[0]
    assert [name for name in written(tmp_path / "out") if name.startswith("masks")] == ["masks/a.png", "masks/c.png"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_an_output_that_cannot_be_written_stops_with_one_line(
    on_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in "ab":
        picture(tmp_path / f"in/{name}.png")
    tries: list[Path] = []

    def full(file: Path, content: Any) -> int:
        tries.append(file)
        with io.FileIO(file, "w") as stream:
            stream.write(bytes(content)[:10])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=os.strerror(number)) as caught:
        predict(prediction(on_photos, tmp_path / "in", tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)
    assert len(tries) == 1
    assert written(tmp_path / "out") == []


def test_a_name_that_is_taken_is_its_file_s_fault(on_photos: Path, tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"in/{name}.png")
    (tmp_path / "out/masks/a.png").mkdir(parents=True)
    failed = predict(prediction(on_photos, tmp_path / "in", tmp_path / "out"))
    assert len(failed) == 1
    assert "a.png: its output cannot be written below" in failed[0]
    masks = [name for name in written(tmp_path / "out") if name.startswith("masks")]
    assert masks == ["masks/b.png"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files may have 2 KB: the kernel refuses more, as of a disk that is full."""
    resource = pytest.importorskip("resource")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("side", [64, 512])  # the smaller one is written when it is closed, which GDAL calls well done
def test_a_raster_that_finds_no_room(tmp_path: Path, small_files: None, side: int) -> None:
    rasterio = pytest.importorskip("rasterio")
    from src.inference.scenes import _created, _write

    noise = np.random.default_rng(0).integers(0, 255, (side, side), np.uint8)
    grid = {"height": side, "width": side, "count": 1, "dtype": "uint8"}
    with rasterio.MemoryFile() as memory, memory.open(driver="GTiff", **grid) as source:
        area = windows.Window(0, 0, side, side)
        with (
            pytest.raises(OSError, match="File too large") as caught,
            _created(tmp_path / "a.tif", source, noise.dtype) as sink,
        ):
            _write(sink, noise, area)
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("side", [16, 64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_that_finds_no_room(tmp_path: Path, small_files: None, side: int, suffix: str) -> None:
    from src.inference.volumes import _save

    noise = np.random.default_rng(0).integers(0, 255, (side, side, side), np.uint8)
    with pytest.raises(OSError, match="File too large") as caught:
        _save(noise, np.eye(4), tmp_path, tmp_path / f"sub/a{suffix}")
    assert caught.value.errno == errno.EFBIG
    assert list((tmp_path / "sub").iterdir()) == []


def test_ctrl_c_leaves_nothing_half_written(on_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        picture(tmp_path / f"in/{name}.png")
    replace, calls = Path.replace, []

    def stopping(self: Path, target: Path) -> Path:
        calls.append(target)
        if target.name == "b.png":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stopping)
    with pytest.raises(Interrupted, match="1 of 2 are done"):
        predict(prediction(on_photos, tmp_path / "in", tmp_path / "out"))
    monkeypatch.undo()
    whole = {"boundary/a.tif", "masks/a.png", "overlays/a.png"}
    assert whole <= set(written(tmp_path / "out")) <= whole | {"boundary/b.tif"}


def test_replacing_keeps_the_old_file_after_an_error(tmp_path: Path) -> None:
    file = tmp_path / f"{'n' * 245}.nii.gz"
    file.write_text("old")

    def write_half() -> None:
        with atomic.replacing(file) as partial:
            assert partial.name.endswith(".nii.gz")
            partial.write_text("ne")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        write_half()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
