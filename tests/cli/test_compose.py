"""A config that is made from one that Hydra composed before is what Hydra would compose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.errors import HydraException

from src.cli import command
from src.cli.command import compose, plain
from src.errors import UserError


def asked_of_hydra(overrides: list[str]) -> object:
    return list(plain(command._composed("train", overrides), output_dir="").items())


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=gan", "discriminator=patchgan", "discriminator.norm=group", "seed=3", "monitor=val/loss"],
        ["data=camvid", "+paths.data=/d", "data.root=${paths.data}", "callbacks.pictures=null", "callbacks.swa=true"],
        ["data.augment.scale=[1,2]", "data.augment={flip: 0.1}", "~data.dataset._target_", "+model.lrr=1"],
        ["callbacks=[default,swa]", "metrics.my._target_=a.B"],
    ],
)
def test_it_is_what_hydra_composes(overrides: list[str]) -> None:
    assert [list(compose("train", overrides).items()) for _ in range(2)] == [asked_of_hydra(overrides)] * 2


WRONG = ["data.nope=3", "network=nope", "optimizer.lr=1,2", "~data.nope", "data.crop=[", "loss=null"]


@pytest.mark.parametrize("override", WRONG)
def test_what_is_wrong_is_said_in_hydras_words(override: str) -> None:
    overrides, said = ["data.batch_size=4", override], []
    for ask in (lambda: compose("train", overrides), lambda: asked_of_hydra(overrides)):
        with pytest.raises((HydraException, UserError)) as caught:
            ask()
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CONFIG_DIR", tmp_path)
    (tmp_path / "train.yaml").write_text("a: 1\nb: 1\n")
    assert compose("train", ["b=2"]) == {"a": 1, "b": 2}
    (tmp_path / "train.yaml").write_text("a: 10\nb: 1\n")
    assert compose("train", ["b=2"]) == {"a": 10, "b": 2}
    known = compose("train", [])
    known["a"] = 0
    assert compose("train", []) == {"a": 10, "b": 1}
