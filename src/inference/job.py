"""A prediction of many inputs: photos are read ahead and written behind, those of one size go through the network together,
what is there already is kept, and one bad input never stops the others."""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from src.config.parts import Dataset
from src.data.formats.nifti import SUFFIXES as OF_VOLUMES
from src.data.readers.images import picture_pixels, read_rgb
from src.data.windows import SIDE, WHOLE
from src.errors import Interrupted, UserError, memory_ran_out, of_a_file
from src.files.untrusted import shown
from src.inference.coco_files import merge
from src.inference.inputs import VIDEO_SUFFIXES
from src.inference.photos import Cut, Maps, Photo, segment_photos, write_photo
from src.inference.predictor import Predictor
from src.inference.scenes import TRAINED_ON, is_georeferenced, segment_raster
from src.inference.videos import segment_video
from src.inference.volumes import segment_volume
from src.inference.writing import Writing

_log = logging.getLogger(__name__)
_LINE = 1000  # characters of a message
_AT_ONCE = WHOLE // 4  # pixels that go through the network together, but for a photo alone
_IN_MEMORY = 2 * WHOLE  # pixels of photos that were read and are not written yet, but for one photo alone
_READERS = 2
# What writing says where the name is at fault (too long, taken by a folder, not allowed on this disk), not the disk.
_OF_THE_NAME = (
    errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EILSEQ, errno.EINVAL,
)  # fmt: skip


@dataclass
class _Item:
    """A photo on its way."""

    at: int
    name: str
    file: Path
    pixels: int
    read: Future[Photo]
    alone: bool = False  # with others it failed


@dataclass
class Job:
    """What is asked of all inputs.

    Attributes:
        model: the segmenter, on the device.
        device: where it computes.
        dataset: what it was trained on.
        writing: what is written.
        cut: of large images.
        batch_size: the most photos that go through the network together.
        overwrite: whether what is there is done anew.
        kept, done: how many inputs were there already, and were done.
    """

    model: Predictor
    device: torch.device
    dataset: Dataset
    writing: Writing
    cut: Cut
    batch_size: int = 1
    overwrite: bool = False
    kept: int = 0
    done: int = 0
    _failed: dict[int, str] = field(default_factory=dict)
    _stopped: bool = False
    _photos: deque[_Item] = field(default_factory=deque)
    _writes: deque[tuple[_Item, Future[None]]] = field(default_factory=deque)

    def run(self, inputs: Mapping[str, Path], advance: Callable[[], None] = lambda: None) -> list[str]:
        """Does all inputs.

        Args:
            inputs: by the name of their output.
            advance: is called once for each.

        Returns:
            What went wrong with inputs, a line each.

        Raises:
            UserError: the output is at fault.
            Interrupted: Ctrl-C, or a signal that became that.
        """
        self._advance = advance
        todo = deque(enumerate(inputs.items()))
        try:
            with (
                ThreadPoolExecutor(_READERS, "reading") as self._reading,
                ThreadPoolExecutor(1, "writing") as self._writer,
            ):
                try:
                    while todo or self._photos:
                        self._step(todo)
                    while self._writes:
                        self._written()
                except KeyboardInterrupt:  # what was predicted is written; a second one ends that too
                    self._reading.shutdown(cancel_futures=True)
                    while self._writes:
                        self._written()
                    raise
                except BaseException:
                    self._stopped = True
                    self._reading.shutdown(cancel_futures=True)
                    raise
        except KeyboardInterrupt as stop:
            place = shown(str(self.writing.folder))
            raise Interrupted(
                f"{stop or 'Ctrl-C'}: {self.done} of {len(inputs)} are done, in {place}; the same command goes on"
            ) from None
        for form in {"coco", "coco_rle"} & set(self.writing.vectors):
            merge(
                (self.writing.folder / form / f"{name}.json" for name in inputs), self.writing.folder / f"{form}.json"
            )
        return [self._failed[at] for at in sorted(self._failed)]

    def _step(self, todo: deque[tuple[int, tuple[str, Path]]]) -> None:
        """Reads ahead as far as memory has room, then does what is first."""
        while todo:
            at, (name, file) = todo[0]
            suffix = self._suffix(file)
            if not self.overwrite and all(map(os.path.isfile, self._expected(name, file, suffix))):
                todo.popleft()
                self.kept += 1
                self._advance()
            elif suffix != ".png":
                if self._photos:
                    break
                todo.popleft()
                self._alone(at, name, file, suffix)
            else:
                pixels, held = picture_pixels(file), self._held()
                if held and (held + pixels > _IN_MEMORY or len(self._photos) >= 2 * self.batch_size + _READERS):
                    if self._photos:
                        break
                    self._written()
                    continue
                todo.popleft()
                self._photos.append(_Item(at, name, file, pixels, self._reading.submit(_read, name, file)))
        if self._photos:
            self._batch()

    def _held(self) -> int:
        while self._writes and self._writes[0][1].done():
            self._written()
        return sum(item.pixels for item in self._photos) + sum(item.pixels for item, _ in self._writes)

    def _suffix(self, file: Path) -> str:
        """What the mask's name ends with: of a volume, a video, a photo or a raster, whichever the file is to this model."""
        name = file.name.lower()
        if file.is_dir() or name.endswith(OF_VOLUMES):
            return ".nii.gz"
        if name.endswith(VIDEO_SUFFIXES):
            return ".mp4"
        takes_photos = (self.model.channels, self.model.intensity) == (3, (0.0, 255.0)) and (
            self.dataset.target != TRAINED_ON
        )
        return ".png" if takes_photos and not is_georeferenced(file) else ".tif"

    def _expected(self, name: str, file: Path, suffix: str) -> list[Path]:
        return [self.writing.video(name)] if suffix == ".mp4" else self.writing.expected(name, suffix)

    def _alone(self, at: int, name: str, file: Path, suffix: str) -> None:
        model, writing, cut = self.model, self.writing, self.cut
        try:
            if suffix == ".nii.gz":
                segment_volume(model, self.device, file, name, self.dataset, writing)
            elif suffix == ".mp4":
                segment_video(model, self.device, file, name, writing, cut, self.batch_size)
            else:
                segment_raster(
                    model, self.device, file, name, self.dataset, writing, side=cut.side or SIDE, overlap=cut.overlap
                )
            self.done += 1
        except Exception as error:
            self._note(at, file, error)
        self._advance()

    def _batch(self) -> None:
        """The first photo, and those after it that have its size."""
        chosen: list[tuple[_Item, Photo]] = []
        while self._photos and len(chosen) < (self.batch_size if self.model.takes_batches else 1):
            item = self._photos[0]
            try:
                photo = item.read.result()
            except Exception as error:
                self._photos.popleft()
                self._note(item.at, item.file, error)
                self._advance()
                continue
            if chosen and (
                item.alone
                or photo.image.shape != chosen[0][1].image.shape
                or item.pixels * (len(chosen) + 1) > _AT_ONCE
            ):
                break
            self._photos.popleft()
            chosen.append((item, photo))
            if item.alone:
                break
        if not chosen:
            return
        try:
            found = segment_photos(self.model, self.device, [photo for _, photo in chosen], self.writing, self.cut)
        except Exception as error:
            if len(chosen) == 1:
                self._note(chosen[0][0].at, chosen[0][0].file, error)
                self._advance()
                return
            found = None
        if found is None:  # each alone, to tell which it was
            for item, photo in reversed(chosen):
                self._photos.appendleft(replace(item, read=_known(photo), alone=True))
            return
        for (item, photo), maps in zip(chosen, found, strict=True):
            self._writes.append((item, self._writer.submit(self._write, maps, photo)))

    def _write(self, maps: Maps, photo: Photo) -> None:
        if self._stopped:  # the disk is full, say
            return
        try:
            write_photo(maps, photo, self.model, self.writing)
        except OSError as error:
            self._stopped = error.errno is not None and error.errno not in _OF_THE_NAME
            raise

    def _written(self) -> None:
        item, future = self._writes.popleft()
        try:
            future.result()
            self.done += 1
        except Exception as error:
            self._note(item.at, item.file, error)
        self._advance()

    def _note(self, at: int, file: Path, error: Exception) -> None:
        """Keeps what to tell of an input that could not be done.

        Raises:
            UserError: the output is at fault: the next input would fare no better.
        """
        _log.debug("%s", shown(str(file)), exc_info=error)
        self._failed[at] = shown(fault(error, file, self.writing.folder).replace("\n", "\\n"), _LINE)


def _read(name: str, file: Path) -> Photo:
    return Photo(name, file, read_rgb(file))


def _known(photo: Photo) -> Future[Photo]:
    future: Future[Photo] = Future()
    future.set_result(photo)
    return future


def fault(error: Exception, file: Path, output: Path) -> str:
    """What to tell of an input that could not be done.

    Raises:
        UserError: the output is at fault: the next input would fare no better.
    """
    if isinstance(error, UserError):
        return str(error)
    if memory_ran_out(error):
        return (
            f"{file}: memory ran out; take a smaller window (window=512; where inference.mode is window, "
            "inference.window=[256,256]), or device=cpu if it was the GPU's"
        )
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        if error.errno in _OF_THE_NAME:
            return f"{file}: its output cannot be written below {output} ({reason}); rename the input"
        at = error.filename if isinstance(error.filename, str | os.PathLike) else None
        if at is not None and Path(at).is_relative_to(file):
            return f"{file}: cannot be read ({reason}); replace or remove it"
        if error.errno is not None:
            error.filename = error.filename or str(output)
            raise of_a_file(error) or UserError(
                f"output: {shown(str(output))} cannot be written to ({reason}); take another folder"
            )
    what = " ".join(str(error).split())[:160]
    return f"{file}: could not be segmented ({type(error).__name__}: {what}); replace or remove it (hydra.verbose=true: more)"
