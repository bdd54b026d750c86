"""`src.publish` writes what others need, pushes it only when told to, and `load("hf:…")` predicts the same pixels from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from src import load
from src.cli.command import compose
from src.errors import UserError
from src.publish import publish
from src.storage import checkpoints
from src.storage.run_folder import BEST
from src.train import train
from tests.conftest import settings
from tests.sharing.hub_server import TOKEN, Hub, commit_of, hub

pytest.importorskip("huggingface_hub")
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = ["trainer.max_epochs=1", "test=false", "model.ema_decay=0.5", "~logger"]
    given = settings(tmp_path_factory.mktemp("runs") / "run", *overrides)
    folder = train(given).run_dir
    (folder / ".hydra").mkdir()
    typed = [*overrides, "data.root=/home/someone/pictures", "hydra.run.dir=/home/someone/run"]
    for name, content in (("config", given), ("overrides", typed)):
        (folder / f".hydra/{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(run_dir: Path) -> Path:
    return publish(compose("publish", asked(run_dir, run_dir.parent / "pub", "license=mit")))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with hub() as one:
        monkeypatch.setattr(constants, "ENDPOINT", one.url)
        template = f"{one.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield one


def asked(run_dir: Path, output: Path, *more: str) -> list[str]:
    return [f"ckpt={run_dir}", "repo=me/shapes", f"output={output}", *more]


def test_the_folder_and_its_card(run_dir: Path, folder: Path) -> None:
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    state = load_file(folder / "model.safetensors")
    assert not any("ema" in key for key in state)  # the averaged weights stand for the others
    ours = checkpoints.read(run_dir / BEST)["state_dict"]
    averaged = [key for key in ours if key.startswith("ema.module.") and ours[key].is_floating_point()]
    assert averaged and all(torch.equal(ours[key], state[f"network.{key[11:]}"]) for key in averaged)
    told = json.loads((folder / "config.json").read_text("utf-8"))
    assert told["segmenter"]["config"]["network"]["_target_"] == "src.networks.tiny.tiny"
    assert str(run_dir) not in (folder / "config.json").read_text("utf-8")
    head, _, card = (folder / "README.md").read_text("utf-8").removeprefix("---\n").partition("\n---\n")
    about = yaml.safe_load(head)
    assert (about["license"], about["pipeline_tag"]) == ("mit", "image-segmentation")
    miou = json.loads((run_dir / "metrics.json").read_text("utf-8"))["val"]["miou"]
    assert about["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(miou, abs=1e-4)
    assert f"| mIoU | {miou:.4f} |" in card
    assert 'load("hf:me/shapes")' in card
    assert "trainer.max_epochs=1\n" in card and "data.root=pictures\n" in card
    assert "someone" not in card and "hydra.run" not in card


def test_intervals_of_an_evaluation_of_these_weights_alone(run_dir: Path, tmp_path: Path) -> None:
    from src.evaluation.matrices import sha256

    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    measured = {
        "as_trained": True, "checkpoint_sha256": sha256(copy / BEST), "data_set": {"miou_interval": [0.125, 0.5]},
        "bootstrap": {"samples": 1000, "groups": 5, "level": 0.95},
    }  # fmt: skip
    (copy / "evaluation/val").mkdir(parents=True)
    file = copy / "evaluation/val/metrics.json"
    file.write_text(json.dumps(measured), encoding="utf-8")
    card = (publish(compose("publish", asked(copy, tmp_path / "a"))) / "README.md").read_text("utf-8")
    assert "[0.1250, 0.5000]" in card and "95 % bootstrap intervals, 1000 draws of 5 images" in card
    assert "None was given: ask before you use it." in card
    file.write_text(json.dumps({**measured, "checkpoint_sha256": "0" * 64}), encoding="utf-8")
    card = (publish(compose("publish", asked(copy, tmp_path / "b"))) / "README.md").read_text("utf-8")
    assert "[0.1250" not in card


def test_the_same_pixels_from_the_folder(run_dir: Path, folder: Path) -> None:
    expected = load(run_dir, device="cpu").predict(PICTURE)
    found = load(folder, device="cpu").predict(PICTURE)
    assert np.array_equal(found.mask, expected.mask)
    assert np.array_equal(found.probabilities, expected.probabilities)
    assert (found.names, found.colors) == (expected.names, expected.colors)


def test_nothing_is_pushed_unasked(
    server: Hub, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(compose("publish", asked(run_dir, tmp_path / "pub")))
    assert server.asked == []
    told = capsys.readouterr().out
    assert "the hub's me/shapes (public, if it is new)" in told and "model.safetensors" in told
    assert "nothing was pushed" in told


def test_to_the_hub_and_back(server: Hub, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(compose("publish", asked(run_dir, tmp_path / "pub", "push=true", "private=true")))
    (pushed,) = server.repos["me/shapes"]
    assert pushed == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert server.made[0]["visibility"] == "private"
    expected = load(run_dir, device="cpu").predict(PICTURE).mask
    server.asked.clear()
    assert np.array_equal(load("hf:me/shapes", device="cpu").predict(PICTURE).mask, expected)
    fetched = {path.rpartition("/")[2] for path in server.asked if path.startswith("GET")}
    assert fetched == {"config.json", "model.safetensors"}
    # a later commit with other weights leaves the revision as it was
    state = {key: torch.zeros_like(value) for key, value in load_file(folder / "model.safetensors").items()}
    save_file(state, tmp_path / "zeros.safetensors")
    server.repos["me/shapes"].append({**pushed, "model.safetensors": (tmp_path / "zeros.safetensors").read_bytes()})
    assert not np.array_equal(load("hf:me/shapes", device="cpu").predict(PICTURE).mask, expected)
    first = load("hf:me/shapes", device="cpu", revision=commit_of(0))
    assert np.array_equal(first.predict(PICTURE).mask, expected)
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match=r"repo: me/shapes was not pushed \(.*hf auth login.*all of it is in"):
        publish(compose("publish", asked(run_dir, tmp_path / "pub", "push=true")))


def test_what_the_hub_has_not(server: Hub) -> None:
    server.repos["me/other"] = [{"pytorch_model.bin": b"x"}]
    for words, place, revision in (
        ("no such model, or none that you may see", "hf:me/none", None), ("it has no revision v9", "hf:me/other@v9", None),
        ("no config.json and model.safetensors", "hf:me/other", None), ("is no model of the hub", "hf:me", None),
        ("revision: is of one model of the hub", "somewhere", "v1"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            load(place, device="cpu", revision=revision)


def test_without_network_it_is_said_at_once(
    server: Hub, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(
        UserError, match=r"^hf:me/shapes could not be loaded \(the hub cannot be reached, and nothing of it"
    ):
        load("hf:me/shapes", device="cpu")
    with pytest.raises(UserError, match=r"^repo: me/shapes was not pushed \(.*all of it is in"):
        publish(compose("publish", asked(run_dir, tmp_path / "pub", "push=true")))
    assert (tmp_path / "pub/README.md").is_file() and server.asked == []


def test_a_strangers_folder(folder: Path, tmp_path: Path) -> None:
    """What a description may name is what a checkpoint's may; nothing is unpickled, whatever the file is called."""
    told = json.loads((folder / "config.json").read_text("utf-8"))

    def changed(name: str, **keys: object) -> Path:
        other = shutil.copytree(folder, tmp_path / name)
        (other / "config.json").write_text(json.dumps({**told, **keys}), encoding="utf-8")
        return other

    about = told["segmenter"]
    config = about["config"]
    hostile = {**about, "config": {**config, "network": {"_target_": "os.system", "command": "true"}}}
    huge = {**about, "config": {**config, "network": {**config["network"], "width": 8192}}}
    for words, place in (
        ("wants to build 'os.system'", changed("code", segmenter=hostile)),
        ("describes no model of this program", changed("format", format="bert")),
        ("is not a checkpoint of this program", changed("none", segmenter=None)),
        ("far larger than the weights|do not fit", changed("huge", segmenter=huge)),
    ):
        with pytest.raises(UserError, match=words):
            load(place, device="cpu")
    pickled = shutil.copytree(folder, tmp_path / "pickle")
    torch.save({"a": torch.zeros(1)}, pickled / "model.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load(pickled, device="cpu")
    linked = shutil.copytree(folder, tmp_path / "link")
    (linked / "config.json").unlink()
    (linked / "config.json").symlink_to(folder / "config.json")
    with pytest.raises(UserError, match="is a link"):
        load(linked, device="cpu")


def test_what_is_asked_is_checked() -> None:
    for words, given in (
        ("repo: shapes is no OWNER/NAME", ["repo=shapes"]),
        ("license: 'My own' is no key|license: My own is no key", ["repo=a/b", "license='My own'"]),
    ):
        with pytest.raises(UserError, match=words):
            publish(compose("publish", ["ckpt=x", *given]))
