"""Paths on the command line, with `sys.argv` as a shell gives it: the text that was typed is the path that is used."""

from __future__ import annotations

import random
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from src import evaluate, export, predict, report, train
from src.cli.command import _composed, compose, start
from src.cli.overrides import PATHS, WRITTEN, literal, misread, path_text, quoted, with_paths_quoted
from src.cli.request import long_key
from src.config.evaluation import Evaluation
from src.config.parts import Config

TEXTS = [
    "a b", "a,b", "a(1)", "it's", 'say "x"', "lr=0.1,seed=2", "Größe", "#1", "$HOME", "C:\\data\\new", "C:\\data\\", "{x}",
    "[1,2]", "~x", "a:b", "a;b&c|d", "épée (2)/x=1, y", "epoch=1-step=4.ckpt", "1", "1e3", "true", "100%", " a ", "a\\",
    "日本", "@x", "!", "^", "<>", "a=b=c", "(", "]", "'", '"', "*", "\u00a0",
]  # fmt: skip
# What each command makes of its config.
READS: dict[str, Callable[[Config], object]] = {
    "evaluate": Evaluation.of, "predict": predict.Prediction.of, "export": export.Export.of,
    "report": report.Comparison.of,
}  # fmt: skip
# Each key, the command that has it, and what else that one needs.
KEYS: list[tuple[str, str, list[str]]] = [
    ("data.root", "train", ["data=folder"]), ("data.root", "evaluate", ["ckpt=x"]), ("data.root", "inspect", ["data=voc"]),
    ("data.root", "optimize", ["data=voc", "output=x"]), ("data.cache_dir", "train", []), ("data.labeled_list", "train", []),
    ("init_from", "train", []),
    ("data.dataset.cache_dir", "train", ["data=streaming", "data.root=x"]),
    ("network.encoder_weights", "train", ["network=unet"]), ("ckpt", "evaluate", []), ("ckpt", "export", ["output=x"]),
    ("ckpt", "demo", []), ("ckpt_b", "demo", ["ckpt=x"]), ("input", "demo", ["ckpt=x"]),
    ("ckpt", "predict", ["input=x", "output=x"]), ("input", "predict", ["ckpt=x", "output=x"]),
    ("output", "predict", ["ckpt=x", "input=x"]), ("output", "export", ["ckpt=x"]), ("output", "inspect", []),
    ("output", "optimize", []), ("output", "report", []), ("dir", "report", []), ("run", "verify", []), ("run", "pack", []),
    ("output", "pack", ["run=x"]), ("output", "evaluate", ["ckpt=x"]), ("data.synthetic", "train", []),
    ("model.judge", "train", ["model=synthesis"]), ("model.teacher", "train", []),
    *((f"data.dataset.{key}", "train", ["data=folder", "data.root=x"]) for key in ("images", "masks", "depths", "lists")),
]  # fmt: skip


def value_of(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize(("key", "command", "others"), KEYS, ids=lambda value: value if isinstance(value, str) else "")
def test_each_key_takes_the_text_as_it_is(key: str, command: str, others: list[str]) -> None:
    """Composing is slow, so the grammar is asked for most texts, and the whole way gone for those that are all in one."""
    for text in TEXTS:
        (override,) = with_paths_quoted([f"{key}={text}"])
        assert OverridesParser.create().parse_override(override).value() == text
        assert with_paths_quoted([override]) == [override]
    text = 'épée (2)/it\'s, x=1 $y #z \\ {w} [v] "u".ckpt'
    assert value_of(compose(command, [*others, f"{key}={text}"]), key) == text


def test_every_path_is_tried() -> None:
    assert {key for key, *_ in KEYS} == PATHS - {"hydra.run.dir", "hydra.sweep.dir", "resume", "like", "sweep.resume"}


def test_several_checkpoints_are_a_list_and_a_file_in_brackets_is_one(tmp_path: Path) -> None:
    for command, others in (("evaluate", []), ("predict", ["input=x", "output=y"])):
        assert value_of(compose(command, ["ckpt=[a/b,'c d']", *others]), "ckpt") == ["a/b", "c d"]
        file = tmp_path / "[1,2].ckpt"
        file.touch()
        assert value_of(compose(command, [f"ckpt={file}", *others]), "ckpt") == str(file)
    assert with_paths_quoted(["ckpt=[a,b]"]) == ["ckpt='[a,b]'"]  # of a command that takes one


@pytest.mark.parametrize("text", ["a b,c", "x=1 (2)", "it's", "C:\\x", "#", "$x"])
def test_the_folders_of_runs_and_sweeps_too(tmp_path: Path, text: str) -> None:
    for key in ("hydra.run.dir", "sweep.dir"):
        composed = _composed("train", [f"{key}={tmp_path}/{text}"], with_hydra=True)
        assert value_of(composed, long_key(key)) == f"{tmp_path}/{text}"
    with_time = _composed("train", ["hydra.run.dir=my runs/${seed}"], with_hydra=True)
    assert with_time.hydra.run.dir == "my runs/42"
    at_home = _composed("train", ["hydra.run.dir=~/x y"], with_hydra=True)
    assert at_home.hydra.run.dir == f"{Path.home()}/x y"


def test_what_was_quoted_or_escaped_before_still_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epoch=1, b").touch()
    parse = OverridesParser.create().parse_override
    for typed, meant in [
        ("'a b'", "a b"), ('"a, b"', "a, b"), ("'it\\'s'", "it's"), ("epoch\\=1\\,\\ b", "epoch=1, b"), ("null", None),
        ("'null'", "null"), ("", ""), ("x/y.ckpt", "x/y.ckpt"),
    ]:  # fmt: skip
        (override,) = with_paths_quoted([f"ckpt={typed}"])
        assert parse(override).value() == meant
        if meant:
            assert path_text(typed) == meant
    monkeypatch.setenv("DATA", "/data")
    assert compose("train", ["data=folder", "data.root=${oc.env:DATA}/x y"])["data"]["root"] == "/data/x y"
    (tmp_path / "${seed}").mkdir()
    assert compose("train", ["data=folder", "data.root=${seed}"])["data"]["root"] == "${seed}"
    of_splits = compose("train", ["data=folder", "data.root=x", "data.dataset.images={train: a, val: b}"])
    assert of_splits["data"]["dataset"]["images"] == {"train": "a", "val": "b"}


@pytest.mark.parametrize(
    ("typed", "swept"),
    [
        ("a,b", ["a", "b"]),
        ("a b,c (1)", ["a b", "c (1)"]),
        ("'a,b',c", ["a,b", "c"]),
        ("a\\,b,c", ["a,b", "c"]),
        ("there, too", ["there, too"]),
        ("choice(a,b)", ["a", "b"]),
        ("alone=1", ["alone=1"]),
        ("it's,b", ["it's", "b"]),
    ],
)
def test_a_sweep_over_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, swept: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("there, too", "a,b"):
        (tmp_path / name).mkdir()
    if typed == "a,b":
        (tmp_path / "a,b").rmdir()
    _, override = with_paths_quoted(["-m", f"data.root={typed}"])
    parsed = OverridesParser.create().parse_override(override)
    values = [override.partition("=")[2]] if not parsed.is_sweep_override() else list(parsed.sweep_string_iterator())
    assert [OverridesParser.create().parse_override(f"k={value}").value() for value in values] == swept
    assert with_paths_quoted(["-m", override]) == ["-m", override]
    for key in WRITTEN:
        (one,) = with_paths_quoted(["-m", f"{key}={typed}"])[1:]
        assert typed.startswith("choice") or not OverridesParser.create().parse_override(one).is_sweep_override()


def test_any_text_can_be_a_value() -> None:
    letters = "ab ,()'\"=ü#$:{}[]~\\./*|!&;"
    draw = random.Random(0)
    parse = OverridesParser.create().parse_override
    for _ in range(300):
        text = "".join(draw.choice(letters) for _ in range(draw.randint(1, 8)))
        assert parse(f"k={quoted(text)}").value() == text
        assert OmegaConf.create({"k": parse(f"k={literal(text + '${x}')}").value()}).k == f"{text}${{x}}"


@pytest.mark.parametrize("text", ["a (1), b=2/it's.ckpt", "epoch=1-step=4.ckpt", "C:\\runs\\best.ckpt"])
@pytest.mark.parametrize(
    ("command", "others", "key"),
    [
        (evaluate, [], "ckpt"), (export, ["output=x"], "ckpt"), (predict, ["input=x.png", "output=x"], "ckpt"),
        (predict, ["ckpt=x", "output=x"], "input"), (report, [], "dir"), (train, ["data=folder"], "data.root"),
        (train, [], "resume"), (train, [], "like"), (train, [], "sweep.resume"),
    ],
)  # fmt: skip
def test_as_a_shell_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: Any, others: list[str],
    key: str, text: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [command.__file__, *others, f"{key}={text}"])
    (tmp_path / "x.png").touch()
    name = command.__name__.rpartition(".")[2]
    with pytest.raises(SystemExit) as end:
        train.main() if command is train else start(name, command._task, READS[name])
    said = capsys.readouterr().err
    assert end.value.code == 2 and text in said and "grammar" not in said and "mismatched" not in said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("monitor=a=b", """monitor: a=b cannot be read, for some of its characters have a meaning here; put it in quotes, and \
these in the shell's: "monitor='a=b'\""""),
        ("monitor=it's", "monitor: it's cannot be read"),
        ("data.crop=[64,64", 'data.crop: [64,64 cannot be read; close every bracket'),
        ("optimizer.lr=1,2", 'optimizer.lr: 1,2 are several values; sweep over them with -m, or take optimizer.lr=[1,2]'),
        ("optimizer.lr=range(3)", "optimizer.lr: range(3) is for a sweep; add -m"),
        ("unet", "unet: an override is key=value, e.g. seed=1"),
        ("=x", "'' is no key"),
        ("my key=1", "'my key' is no key"),
        ("monitor=\x1b[2J", "monitor: \\x1b[2J cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_our_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["src/train.py", typed])
    with pytest.raises(SystemExit) as end:
        train.main()
    error = capsys.readouterr().err
    assert (
        end.value.code == 2
        and error.startswith(f"error: {said}" if "is no key" not in said else "error: ")
        and said in error
    )
    assert len(error.splitlines()) == 1 and "hydra" not in error.lower() and "mismatched" not in error


def test_the_quotes_that_are_proposed_do() -> None:
    for text in (t for t in TEXTS if t.strip() and not t.startswith(("[", "{"))):
        said = misread(f"monitor={text}")
        (argument,) = shlex.split(said[said.index("shell's: ") + len("shell's: ") :])
        assert OverridesParser.create().parse_override(argument).value() == text


def test_no_path_among_several_in_a_sweep() -> None:
    assert with_paths_quoted(["-m", "init_from=null,/runs/a b.ckpt"])[1] == "init_from=null,'/runs/a b.ckpt'"
