"""`evaluation/SPLIT/images.npz`: the confusion matrix of each image of a split. Imports no torch.

Every score over classes, of the data set, of an image or of a resampled data set, depends on three counts of each image and
class only: the pixels that truth and prediction agree on, those of the truth, those of the prediction. So a file is read matrix
by matrix into these, and 5000 images of 171 classes take 20 MB, not the 1.2 GB of their matrices.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.untrusted import open_regular, shown

FILE = "images.npz"
Counts = npt.NDArray[np.int64]
_ROWS = 64  # matrices that are written or read at a time
_MOST = 200_000_000  # counts of a file, N times K
_TEXT = 64 << 20  # bytes of one list of names


@dataclass(frozen=True)
class Cells:
    """The cells of one image's confusion matrix that are not 0: `cell` = row x K + column, rising, and their counts."""

    cell: npt.NDArray[np.int32]
    count: Counts


@dataclass(frozen=True)
class PerImage:
    """What was counted of each of N images for K classes.

    Attributes:
        ids: the images' names, in the order of the split.
        wholes: of each image the name of what it is cut out of (a volume, a scene); its own where it is a whole.
        names: the K classes.
        split: "val" or "test".
        right, true, predicted: int64 [N, K], pixels. Ignored pixels are in none of them.
        about: of which checkpoint (its SHA-256) and protocol these are.
    """

    ids: Sequence[str]
    wholes: Sequence[str]
    names: Sequence[str]
    split: str
    right: Counts
    true: Counts
    predicted: Counts
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def taken(self, rows: npt.NDArray[np.integer]) -> PerImage:
        """The same of some of the images, in this order."""
        return PerImage(
            [self.ids[i] for i in rows], [self.wholes[i] for i in rows], self.names, self.split,
            self.right[rows], self.true[rows], self.predicted[rows], self.about,
        )  # fmt: skip


def of_cells(
    ids: Sequence[str], wholes: Sequence[str], names: Sequence[str], split: str, matrices: Sequence[Cells],
    about: Mapping[str, Any],
) -> PerImage:  # fmt: skip
    """The counts of matrices that are in memory."""
    k = len(names)
    right, true, predicted = (np.zeros((len(ids), k), np.int64) for _ in range(3))
    for row, matrix in enumerate(_dense(matrices, k)):
        right[row], true[row], predicted[row] = np.diagonal(matrix), matrix.sum(1), matrix.sum(0)
    return PerImage(ids, wholes, names, split, right, true, predicted, about)


def write(file: Path, images: PerImage, matrices: Sequence[Cells]) -> None:
    """Writes the file, whole or not at all: `ids`, `wholes`, `matrices` int64 [N, K, K] (rows truth, columns prediction),
    `names`, `split` and `about` (JSON), as `numpy.load` reads them; in a few MB of memory.

    Raises:
        OSError: it cannot be written.
    """
    k = len(images.names)
    texts = {
        "ids": np.array(images.ids, np.str_), "wholes": np.array(images.wholes, np.str_),
        "names": np.array(images.names, np.str_), "split": np.array(images.split),
        "about": np.array(json.dumps(images.about)),
    }  # fmt: skip

    def fill(stream: Any) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as parts:
            for name, values in texts.items():
                with parts.open(f"{name}.npy", "w") as part:
                    np.lib.format.write_array(part, values, allow_pickle=False)
            with parts.open("matrices.npy", "w", force_zip64=True) as part:
                header = {"descr": "<i8", "fortran_order": False, "shape": (len(images), k, k)}
                np.lib.format.write_array_header_1_0(part, header)
                for matrix in _dense(matrices, k):
                    part.write(matrix.astype("<i8").tobytes())

    write_atomically(file, fill)


def read(file: Path) -> PerImage:
    """Reads a file, which may be a stranger's.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is damaged or none of ours.
    """
    try:
        with open_regular(file) as stream, zipfile.ZipFile(stream) as parts:
            ids, wholes, names = (_texts(parts, name) for name in ("ids", "wholes", "names"))
            (split,), (about,) = _texts(parts, "split"), _texts(parts, "about")
            with parts.open("matrices.npy") as part:
                right, true, predicted = _counts(part, len(ids), len(names))
            said = json.loads(about)
            if len(wholes) != len(ids) or len(set(ids)) != len(ids) or not isinstance(said, dict):
                raise ValueError("its parts contradict one another")
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        reason = shown(" ".join(str(error).split()), 120)
        raise UserError(f"{file}: is damaged, or no file of python -m src.evaluate ({reason}); remove it") from None
    return PerImage(ids, wholes, names, split, right, true, predicted, said)


def sha256(file: Path) -> str:
    """The SHA-256 of a file, a checkpoint say, in hexadecimal digits."""
    total = hashlib.sha256()
    with open_regular(file, links=True) as stream:
        while block := stream.read(1 << 22):
            total.update(block)
    return total.hexdigest()


def _dense(matrices: Sequence[Cells], k: int) -> Iterator[Counts]:
    for cells in matrices:
        matrix = np.zeros(k * k, np.int64)
        matrix[cells.cell] = cells.count
        yield matrix.reshape(k, k)


def _header(part: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if np.lib.format.read_magic(part) != (1, 0):
        raise ValueError("an array of another version")
    return np.lib.format.read_array_header_1_0(part)


def _texts(parts: zipfile.ZipFile, name: str) -> list[str]:
    """A list of texts, or a single one, as a terminal may be given them."""
    with parts.open(f"{name}.npy") as part:
        shape, _, kind = _header(part)
        count = int(np.prod(shape, dtype=object))
        if kind.kind != "U" or len(shape) > 1 or not 0 < count * max(kind.itemsize, 1) <= _TEXT:
            raise ValueError(f"{name} is no list of texts")
        values = np.frombuffer(_exactly(part, count * kind.itemsize), kind)
    return [shown(str(value), 1 << 20 if name == "about" else 1000) for value in values]


def _counts(part: IO[bytes], n: int, k: int) -> tuple[Counts, Counts, Counts]:
    shape, _, kind = _header(part)
    if shape != (n, k, k) or kind != np.dtype("<i8") or n * k > _MOST:
        raise ValueError(f"matrices are {kind} {shape} for {n} images and {k} classes")
    right, true, predicted = (np.zeros((n, k), np.int64) for _ in range(3))
    for begin in range(0, n, _ROWS):
        rows = slice(begin, min(begin + _ROWS, n))
        count = rows.stop - rows.start
        matrices = np.frombuffer(_exactly(part, count * k * k * 8), "<i8").reshape(count, k, k)
        if (matrices < 0).any():
            raise ValueError("a count is below 0")
        right[rows], true[rows], predicted[rows] = matrices.diagonal(0, 1, 2), matrices.sum(2), matrices.sum(1)
    return right, true, predicted


def _exactly(part: IO[bytes], count: int) -> bytes:
    content = part.read(count)
    if len(content) != count:
        raise EOFError("it ends too early")
    return content
