"""Videos are segmented frame by frame, and what is none is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src import load
from src.predict import predict
from src.train import train
from tests.conftest import settings
from tests.inference.test_inputs import prediction

cv2 = pytest.importorskip("cv2")


def video(file: Path, frames: int = 7, rate: float = 12.5) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    sink = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), rate, (64, 48))
    for at in range(frames):
        frame = np.full((48, 64, 3), 30, np.uint8)
        frame[10:30, 4 * at : 4 * at + 20] = (200, 40, 90)
        sink.write(frame)
    sink.release()
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings(tmp_path_factory.mktemp("photos"), "trainer.max_epochs=1", "test=false")).run_dir


def test_a_video_keeps_its_rate_and_its_frames(trained: Path, tmp_path: Path) -> None:
    file = video(tmp_path / "in/walk.mp4")
    assert predict(prediction(trained, tmp_path / "in", tmp_path / "out", "video_masks=true", "batch_size=3")) == []
    capture = cv2.VideoCapture(str(tmp_path / "out/videos/walk.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    segmenter, source = load(trained, device="cpu"), cv2.VideoCapture(str(file))
    masks = sorted((tmp_path / "out/masks/walk").iterdir())
    assert [mask.name for mask in masks] == [f"{at:06d}.png" for at in range(7)]
    for mask in masks:
        found = segmenter.predict(np.ascontiguousarray(source.read()[1][..., ::-1]))
        assert np.array_equal(found.mask, np.asarray(Image.open(mask)))
        shown = capture.read()[1][..., ::-1]
        assert np.abs(shown.astype(int) - found.overlay()).mean() < 12  # MPEG-4 loses some


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"#EXTM3U\n/etc/passwd\n", "it is no MP4"),
        (b"\0\0\0\x18ftypmp42 nonsense", "it is damaged"),
        (None, "breaks off|it is damaged"),
    ],
    ids=["playlist", "nonsense", "cut"],
)  # fmt: skip
def test_what_is_no_video(trained: Path, tmp_path: Path, content: bytes | None, words: str) -> None:
    whole = video(tmp_path / "whole.avi", frames=60).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.avi").write_bytes(whole[: len(whole) // 3] if content is None else content)
    video(tmp_path / "in/b.mp4")
    failed = predict(prediction(trained, tmp_path / "in", tmp_path / "out"))
    assert len(failed) == 1
    assert re.search(words, failed[0])
    assert [file.name for file in (tmp_path / "out/videos").iterdir()] == ["b.mp4"]
