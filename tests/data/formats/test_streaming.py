"""Data in chunks: what was written comes back, from a folder and from an object store, in an exact order."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from src.cli.command import compose
from src.data.chunk_order import chunk_order
from src.data.datamodule import SegmentationDataModule
from src.data.formats import chunks
from src.data.formats.streaming import Streaming
from src.data.samplers import EvaluationBatches, Key, TrainingBatches
from src.errors import UserError
from src.optimize import optimize
from src.training.build import build_data
from tests.conftest import settings

SIZE = (24, 32)
NAMES = "[background,road,car]"


def write_folder(root: Path, train: int = 23, val: int = 5) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            name = f"{split}/bild é {i}"
            Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)).save(root / f"images/{name}.jpg")
            Image.fromarray(rng.integers(0, 3, SIZE, np.uint8)).save(root / f"masks/{name}.png")
    return root


def converted(root: Path, output: Path, *overrides: str) -> dict[str, int]:
    given = ["data=folder", f"data.root={root}", f"data.dataset.names={NAMES}", f"output={output}", "chunk_mb=0.004"]
    return optimize(compose("optimize", [*given, *overrides]))


def datamodule(root: Path | str, *overrides: str, data: str = "streaming") -> SegmentationDataModule:
    options = [f"data={data}", f"data.root={root}", "data.crop=[16,16]", "data.batch_size=4", *overrides]
    return build_data(settings(Path(), *options, small=False)["data"], seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def written(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("streaming") / "set"
    assert converted(folder, output) == {"train": 23, "val": 5}
    return output


@pytest.mark.parametrize("encoding", ["auto", "png", "raw"])
def test_what_is_written_comes_back_to_the_bit(folder: Path, tmp_path: Path, encoding: str) -> None:
    output = tmp_path / "set"
    converted(folder, output, f"encoding={encoding}")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["set"]  # nothing is left beside it
    original = datamodule(folder, f"data.dataset.names={NAMES}", data="folder")
    for split in ("train", "val"):
        source, stored = original.source(split), Streaming(split, str(output))
        assert stored.label_set == source.label_set and len(stored.chunk_sizes) > 1
        by_name = {source.name(i): source.read(i) for i in range(len(source))}
        names = [stored.name(i) for i in range(len(stored))]
        assert sorted(names) == sorted(by_name)
        assert (names == list(by_name)) == (split == "val")  # training samples are mixed once
        for i, name in enumerate(names):
            image, mask = stored.read(i)
            assert torch.equal(image, by_name[name][0]) and torch.equal(mask, by_name[name][1])
    assert Streaming("test", str(output)).split == "val"
    photo = (folder / "images/val/bild é 0.jpg").read_bytes()
    assert any(photo in file.read_bytes() for file in (output / "val").glob("*.bin")) == (encoding == "auto")


def test_deep_and_gray_images_come_back_too(tmp_path: Path) -> None:
    from src.data.formats.sample_bytes import decode, encode

    mask = torch.randint(0, 3, SIZE, dtype=torch.uint8)
    for image in (
        torch.randint(0, 255, (1, *SIZE), dtype=torch.uint8),
        torch.randint(-1000, 3000, (1, *SIZE), dtype=torch.int16),
        torch.rand(5, *SIZE),
    ):
        again = decode(*encode(image, mask, "auto"), image.shape[0], "it")
        assert torch.equal(again[0], image) and again[0].dtype == image.dtype and torch.equal(again[1], mask)


def test_litdata_reads_the_chunks(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from litdata.streaming import dataset

    monkeypatch.setattr(dataset, "_check_version_and_prompt_upgrade", lambda version: None)  # it asks the network
    theirs, ours = dataset.StreamingDataset(str(written / "train")), Streaming("train", str(written))
    assert len(theirs) == len(ours) == 23
    assert [bytes(theirs[i][0]).decode() for i in range(23)] == [ours.name(i) for i in range(23)]


def _killed_in_the_middle(folder: Path, output: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    write = BinaryWriter.add_item

    def add_item(self: Any, index: int, items: Any) -> Any:
        if index == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, index, items)

    BinaryWriter.add_item = add_item
    converted(folder, output)


def test_a_conversion_that_is_killed_leaves_nothing_that_looks_whole(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "set"
    process = multiprocessing.get_context("fork").Process(target=_killed_in_the_middle, args=(folder, output))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list((tmp_path / ".set.partial").rglob("*.bin")) and not output.exists()
    assert converted(folder, output) == {"train": 23, "val": 5}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["set"]
    with pytest.raises(UserError, match=r"output: .*set is there already"):
        converted(folder, output)


def test_a_bad_file_ends_the_conversion_with_nothing_written(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", train=3, val=2)
    (folder / "images/val/bild é 1.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"bild é 1\.jpg: cannot be read as an image"):
        converted(folder, tmp_path / "set")
    assert not (tmp_path / "set").exists() and not (tmp_path / ".set.partial").exists()


def test_what_is_not_whole_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no dataset\.json; make it with python -m src\.optimize"):
        Streaming("train", str(folder))
    with pytest.raises(UserError, match=r"http://x is of no known kind; take a folder or one of s3://"):
        Streaming("train", "http://x")
    converted(folder, tmp_path / "set", "splits=[train]")
    with pytest.raises(UserError, match=r"has no split 'val', only train; convert it too"):
        Streaming("val", str(tmp_path / "set"))
    file = tmp_path / "set/train/chunk-0-1.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"chunk-0-1\.bin: this chunk is cut off"):
        [Streaming("train", str(tmp_path / "set")).read(i) for i in range(23)]


CHUNKS = torch.tensor([7, 7, 6, 8, 7, 7, 5, 8, 7, 7, 7, 3])  # 79 samples


def _of_rank(rank: int, world_size: int, epoch: int = 0, consumed: int = 0) -> list[list[int]]:
    order = partial(chunk_order, CHUNKS, 2, 8)
    batches = TrainingBatches(79, 8, 3, rank, world_size, epoch, consumed, order=order)
    return [[cast(Key, key)[1] for key in batch] for batch in batches]


def test_a_global_batch_of_chunked_data_is_the_same_set_on_any_number_of_devices() -> None:
    alone = _of_rank(0, 1)
    assert len(alone) == 9 and len({index for batch in alone for index in batch}) == 72
    assert alone != _of_rank(0, 1, epoch=1) and alone == _of_rank(0, 1)
    assert sorted(chunk_order(CHUNKS, 2, 8, torch.Generator())) == list(range(79))
    for world_size in (2, 4, 8):
        ranks = [_of_rank(rank, world_size) for rank in range(world_size)]
        assert [[*chain.from_iterable(shares)] for shares in zip(*ranks, strict=True)] == alone
    assert _of_rank(1, 2, consumed=4) == _of_rank(1, 2)[4:]


def test_each_device_reads_its_share_of_the_chunks_few_at_a_time() -> None:
    chunk_of = torch.arange(len(CHUNKS)).repeat_interleave(CHUNKS).tolist()
    for world_size in (1, 2, 4):
        places = 8 // world_size
        for rank in range(world_size):
            batches = _of_rank(rank, world_size)
            used = {chunk_of[index] for batch in batches for index in batch}
            assert len(used) <= 12 / world_size + 2 * 2  # its stretches, and windows that are cut at both ends
            for place in range(places):
                walked = [chunk_of[batch[place]] for batch in batches]
                assert len(set(walked)) <= 4  # 9 samples of windows of about 14
    ends = [list(EvaluationBatches(11, 2, rank, 3, in_stretches=True)) for rank in range(3)]
    assert [[index for batch in batches for _, index, *_ in batch] for batches in ends] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10],
    ]  # fmt: skip


def test_training_and_evaluation_see_each_sample_once(written: Path) -> None:
    data = datamodule(written, "data.num_workers=2", "data.dataset.window=2")
    data.prepare()
    trained = [name for batch in data.train_dataloader() for name in batch["id"]]
    assert len(trained) == len(set(trained)) == 20
    names = [data.source("val").name(i) for i in range(5)]
    assert [name for batch in data.val_dataloader() for name in batch["id"]] == names


def test_a_cache_does_not_change_the_order(written: Path) -> None:
    loaded = []
    for cache in ("null", "ram"):
        data = datamodule(written, f"data.cache={cache}")
        data.prepare()
        loaded.append([batch["id"] for batch in data.train_dataloader()])
    assert loaded[0] == loaded[1]


class Store:
    """An object store on this machine that speaks as much S3 as reading takes, and can be told to fail.

    Attributes:
        served: how often each object was asked for.
        failures: answers that will be errors.
        damaged: objects whose last byte is wrong.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.served, self.failures, self.damaged = root, Counter[str](), 0, set[str]()
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, with_body: bool) -> None:
                key = self.path.removeprefix("/bucket/").partition("?")[0]
                file = store.root / key
                store.served[key] += with_body
                if store.failures or not file.is_file():
                    store.failures -= bool(store.failures)
                    self.send_error(404 if not file.is_file() else 503)
                    return
                content = file.read_bytes()
                if key in store.damaged:
                    content = content[:-1] + bytes([content[-1] ^ 1])
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", '"x"')
                self.end_headers()
                if with_body:
                    self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def store(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    store = Store(written.parent)
    monkeypatch.setattr(chunks, "_WAITS", (0, 0, 0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    chunks._s3.cache_clear()
    yield store
    store.server.shutdown()
    chunks._s3.cache_clear()


def test_workers_stream_from_an_object_store_and_fetch_each_chunk_once(written: Path, store: Store) -> None:
    there, here = datamodule("s3://bucket/set", "data.num_workers=2"), datamodule(written)
    there.prepare()
    for remote, local in (
        (there.train_dataloader(), here.train_dataloader()),
        (there.val_dataloader(), here.val_dataloader()),
    ):
        for a, b in zip(remote, local, strict=True):
            assert a["id"] == b["id"] and torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])
    fetched = {key: count for key, count in store.served.items() if key.endswith(".bin")}
    assert len(fetched) > 6 and set(fetched.values()) == {1}
    again = Streaming("train", "s3://bucket/set")
    assert [again.name(i) for i in range(23)] == [here.source("train").name(i) for i in range(23)]
    assert store.served["set/train/index.json"] == 1


def test_the_cache_stays_within_its_limit(written: Path, store: Store, tmp_path: Path) -> None:
    limit = 10_000
    source, local = Streaming("train", "s3://bucket/set", cache_gib=limit / 2**30), Streaming("train", str(written))
    for i in [*range(23), *range(0, 23, 5)]:
        assert torch.equal(source.read(i)[0], local.read(i)[0])
        assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.bin")) <= limit


def test_a_store_that_fails_for_a_moment_is_asked_again_and_bytes_are_checked(store: Store) -> None:
    source = Streaming("train", "s3://bucket/set")
    store.failures = 3  # the client itself tries twice
    assert source.name(0)
    store.damaged.add("set/train/chunk-0-2.bin")
    with pytest.raises(UserError, match=r"chunk-0-2\.bin is not the chunk that was written"):
        [source.read(i) for i in range(23)]


def test_a_store_that_cannot_be_reached_ends_at_once_in_words(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"s3://bucket/other/dataset\.json cannot be fetched \(.*404.*\); check the address"
    ):
        Streaming("train", "s3://bucket/other")
    chunks._s3.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError) as caught:
        Streaming("train", "s3://bucket/set")
    assert re.search(
        r"Could not connect.*check the address, the network and the store's credentials", str(caught.value)
    )
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"gs://bucket/set/dataset\.json cannot be fetched"):
        Streaming("train", "gs://bucket/set")


def test_chunks_are_copied_from_a_network_drive(written: Path, tmp_path: Path) -> None:
    source = Streaming("val", f"local:{written}", cache_dir=str(tmp_path))
    assert source.name(4) == Streaming("val", str(written)).name(4)
    assert len(list(tmp_path.rglob("*.bin"))) == 1
