"""Segments videos frame by frame, as they stream, through OpenCV.

PyAV's wheels hold x264 and x265, which are under the GPL; the FFmpeg in OpenCV's is built without.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from src.data.readers.picture_limits import max_pixels
from src.errors import UserError
from src.files.atomic import replacing
from src.files.untrusted import open_regular
from src.inference.drawing import overlay
from src.inference.photos import Cut, predict_maps
from src.inference.predictor import Predictor
from src.inference.vectors import check_forms
from src.inference.writing import Writing, save_mask
from src.optional_packages import needs

Frame = npt.NDArray[np.uint8]  # RGB [H, W, 3]
# What such files begin with, behind their first four bytes where that is a length: FFmpeg would go by content to playlists
# too, which name other files and URLs.
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_MATROSKA = b"\x1a\x45\xdf\xa3"


def segment_video(
    model: Predictor, device: torch.device, file: Path, name: str, writing: Writing, cut: Cut, batch_size: int
) -> None:
    """Writes videos/NAME.mp4 (MPEG-4), the classes' colours over the frames at the source's frame rate, without sound, and,
    where asked for, masks/NAME/000000.png and so on, one a frame.

    Raises:
        UserError: the file cannot be read, or the model takes no photos.
        OSError: the output cannot be written.
    """
    if (model.channels, model.intensity) != (3, (0.0, 255.0)):
        raise UserError(f"{file}: is a video, and the model takes no photos")
    check_forms(writing.vectors, (), file, "a video")
    cv2 = needs("cv2", "video")
    capture = _opened(cv2, file)
    try:
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        if not (math.isfinite(rate) and 0 < rate <= 1000):
            raise UserError(f"{file}: says no frame rate; convert it, e.g. to MP4")
        with replacing(writing.video(name)) as partial:
            _segment(cv2, _batches(cv2, capture, file, batch_size if model.takes_batches else 1), model, device, name,
                     writing, cut, rate, partial)  # fmt: skip
    finally:
        capture.release()


def _segment(
    cv2: Any, batches: Iterator[list[Frame]], model: Predictor, device: torch.device, name: str, writing: Writing, cut: Cut,
    rate: float, partial: Path,
) -> None:  # fmt: skip
    sink, count = None, 0
    try:
        for frames in batches:
            images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
            for frame, maps in zip(frames, predict_maps(model, device, images, cut), strict=True):
                mask = maps["mask"].astype(np.uint8, copy=False)
                if sink is None:
                    sink = cv2.VideoWriter(
                        str(partial), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), rate, frame.shape[1::-1]
                    )
                    if not sink.isOpened():
                        raise OSError(errno.EIO, "no video of this size can be written", str(partial.parent))
                opacity = 0.0 if writing.opacity is None else writing.opacity
                sink.write(np.ascontiguousarray(overlay(frame, mask, model.label_set, opacity)[..., ::-1]))
                if writing.video_masks:
                    save_mask(mask, model.label_set, writing.ids, writing.mask(f"{name}/{count:06d}", ".png"))
                count += 1
    finally:
        if sink is not None:
            sink.release()
    check = cv2.VideoCapture(str(partial), cv2.CAP_FFMPEG)  # OpenCV tells of no write that failed
    found = int(check.get(cv2.CAP_PROP_FRAME_COUNT)) if check.isOpened() else 0
    check.release()
    if found < count:
        raise OSError(errno.EIO, f"{found} of {count} frames were written", str(partial.parent))


def _opened(cv2: Any, file: Path) -> Any:
    with open_regular(file, links=True) as stream:
        start = stream.read(12)
    if not (start[4:8] in _BOXES or start.startswith(_MATROSKA) or (start[:4], start[8:12]) == (b"RIFF", b"AVI ")):
        raise UserError(
            f"{file}: cannot be read as a video (it is no MP4, MOV, MKV, WebM or AVI); replace or remove it"
        )
    capture = cv2.VideoCapture(str(file.resolve()), cv2.CAP_FFMPEG)
    width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if not capture.isOpened() or width * height == 0:
        capture.release()
        raise UserError(f"{file}: cannot be read as a video (it is damaged, or its codec is not known); convert it")
    if width * height > max_pixels():
        capture.release()
        raise UserError(f"{file}: has frames of {width}x{height}, more than a picture may have; refused")
    return capture


def _batches(cv2: Any, capture: Any, file: Path, size: int) -> Iterator[list[Frame]]:
    """Frames, so many at a time.

    Raises:
        UserError: there is none, or it breaks off before the end that it says it has.
    """
    frames: list[Frame] = []
    count, expected = 0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    while True:
        there, frame = capture.read()
        if not there:
            break
        if frames and frame.shape != frames[0].shape:
            raise UserError(f"{file}: its frames change their size; convert it to one size")
        frames.append(np.ascontiguousarray(frame[..., ::-1]))
        count += 1
        if len(frames) == size:
            yield frames
            frames = []
    if frames:
        yield frames
    if count == 0 or count < 0.9 * expected:  # what a file says of its length is now and then a little more
        raise UserError(f"{file}: breaks off after {count} of {expected} frames; replace it")
