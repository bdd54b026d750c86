"""The file of per-image matrices: what numpy reads of it, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.errors import UserError
from src.evaluation import matrices
from tests.evaluation.images import NAMES, cells, per_image, predicted, random_truths


def test_what_is_written_is_what_numpy_reads(tmp_path: Path) -> None:
    made = predicted(random_truths(70, 0), 1)
    images = per_image(made)
    matrices.write(tmp_path / "x/images.npz", images, cells(made))
    with np.load(tmp_path / "x/images.npz", allow_pickle=False) as read:
        assert read["matrices"].dtype == np.int64
        assert np.array_equal(read["matrices"], np.stack(made))
        assert (list(read["ids"]), list(read["names"]), str(read["split"])) == (images.ids, list(NAMES), "val")
    again = matrices.read(tmp_path / "x/images.npz")
    assert (again.ids, again.wholes, again.about) == (images.ids, images.wholes, images.about)
    for ours, theirs in ((again.right, images.right), (again.true, images.true), (again.predicted, images.predicted)):
        assert np.array_equal(ours, theirs)
    assert [f.name for f in (tmp_path / "x").iterdir()] == ["images.npz"]


def changed(file: Path, **arrays: object) -> None:
    """Rewrites a file with some arrays in place of its own."""
    with np.load(file) as read:
        content = {**{name: read[name] for name in read.files}, **arrays}
    np.savez(file, **content)


@pytest.mark.parametrize("name", ["cut", "negative", "objects", "shape", "twice", "about", "text"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "images.npz"
    made = predicted(random_truths(3, 0), 1)
    matrices.write(file, per_image(made), cells(made))
    if name == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif name == "negative":
        changed(file, matrices=-np.stack(made))
    elif name == "objects":
        stream = io.BytesIO()
        np.save(stream, np.array([{}], object), allow_pickle=True)
        with zipfile.ZipFile(file, "w") as parts:
            parts.writestr("ids.npy", stream.getvalue())
    elif name == "shape":
        changed(file, matrices=np.zeros((3, 3, 3), np.int64))
    elif name == "twice":
        changed(file, ids=np.array(["a", "a", "b"]))
    elif name == "about":
        changed(file, about=np.array("[1]"))
    else:
        file.write_text("hello")
    with pytest.raises(UserError, match=r"images\.npz: is damaged, or no file of python -m src\.evaluate"):
        matrices.read(file)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link.npz").symlink_to(tmp_path / "other.npz")
    with pytest.raises(UserError, match="is a link"):
        matrices.read(tmp_path / "link.npz")
    with pytest.raises(FileNotFoundError):
        matrices.read(tmp_path / "none.npz")
