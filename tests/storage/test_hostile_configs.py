"""A config that someone else has written runs nothing, and reads and writes nothing outside: each kind is one line of a list.

To try another kind, add it to `HOSTILE` (a run folder's config, as text or as a change of a good one) or to `IN_CHECKPOINTS`.
"""

from __future__ import annotations

import copy
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from src.callbacks.monitor import Monitor
from src.cli.command import CONFIG_DIR, compose
from src.cli.request import Request, written_out
from src.cli.user_errors import report_user_errors
from src.config.parts import Trainer
from src.data.formats.voc import VOC
from src.data.labels import LabelSet
from src.errors import UserError
from src.evaluate import evaluate
from src.export import export
from src.predict import predict
from src.storage import run_folder
from src.storage.checkpoints import AtomicCheckpointIO, read
from src.storage.run_config import filled, is_so, read_config, said_by, trust_in
from src.storage.trust import OWN, STRANGER, Trust, check_targets, options, split_packages
from src.train import _like, _resume, main, train
from src.training.build import build_trainer, make, model_from_checkpoint
from tests.conftest import SMALL, run_config, settings

Config = dict[str, Any]
MARK = "MARK"  # in a hostile text: a file that must not be made
SHELL = {"_target_": "os.system", "command": "touch 'MARK'"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as Hydra writes it, with a checkpoint."""
    run_dir = tmp_path_factory.mktemp("trained")
    train(settings(run_dir, "debug=fast", "~logger", "test=false"))
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", [*SMALL, "debug=fast", "test=false"])
    (run_dir / ".hydra").mkdir()
    (run_dir / run_folder.CONFIG).write_text(OmegaConf.to_yaml(config))
    return run_dir


def put(**at: Any) -> Callable[[Config], None]:
    """A change of a config: `data__augment={…}` puts a value at `data.augment`."""

    def change(config: Config) -> None:
        for path, value in at.items():
            node: Any = config
            *above, last = path.split("__")
            for key in above:
                node = node.setdefault(key, {})
            node[last] = value

    return change


def text(added: str) -> Callable[[Config], str]:
    return lambda config: yaml.safe_dump(config) + added


# What a run folder's config may not do, and what is said. A change of a good config, or the text that it becomes.
HERE = {"run_dir": "x", "save_dir": "x"}
HOSTILE: dict[str, tuple[Callable[[Config], str | None], str]] = {
    "a defaults list": (text("defaults: [other]\n"), "the key defaults"),
    "a hydra node": (text("hydra: {job: {env_set: {LD_PRELOAD: /x}}}\n"), "the key hydra"),
    "an unknown key": (text("more: {_target_: os.system}\n"), "the key more"),
    "an interpolation of the environment": (put(data__root="${oc.env:HOME}"), "only OmegaConf could resolve"),
    "an escaped interpolation": (put(data__root="\\${oc.env:HOME}"), "only OmegaConf could resolve"),
    "a double-escaped one": (put(data__root="\\\\${oc.create:{_target_:os.system}}"), "only OmegaConf could resolve"),
    "a node out of a resolver": (put(network="${oc.create:{_target_: os.system}}"), "is damaged"),
    "a target out of a resolver": (put(network___target_="${oc.decode:${oc.env:X}}"), "only OmegaConf could resolve"),
    "a resolver that changes": (put(network___target_="src.networks.tiny.${now:%f}"), "only OmegaConf could resolve"),
    "halves of an interpolation": (put(monitor="$", seed="${monitor}{oc.env:HOME}"), "only OmegaConf could resolve"),
    "a reference to itself": (put(monitor="${monitor}"), "is damaged"),
    "references that multiply": (put(monitor="${monitor_mode}" * 999, monitor_mode="x" * 99), "only OmegaConf"),
    "a reference to a node": (put(network="${model}"), "is damaged"),
    "aliases that multiply": (
        lambda _: "a: &a [x]\n" + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghi")
        ),
        "more than 100,000 values"),
    "an object": (text("more: !!python/object/apply:os.system [id]\n"), "no plain value"),
    "a group that is a list": (put(callbacks=[SHELL]), "is damaged"),
    "code": (put(network=SHELL), "wants to build 'os.system'"),
    "code with _args_": (put(network___args_=["x"]), "the key network._args_"),
    "code with _partial_": (put(network___partial_=True), "the key network._partial_"),
    "code with _recursive_": (put(data___recursive_=False), "the key data._recursive_"),
    "code with _convert_": (put(data__augment___convert_="all"), "the key data.augment._convert_"),
    "code in a list": (put(data__dataset__others=[[SHELL]]), "wants to build 'os.system'"),
    "code in a node without a target": (put(data__dataset__labels={"a": {"b": SHELL}}), "wants to build 'os.system'"),
    "code inside our own": (put(network__width=SHELL), r"network\.width\._target_"),
    "a module's own imports": (put(network___target_="src.networks.tiny.nn.Linear"), "none of this program's parts"),
    "a helper of ours": (put(network___target_="src.networks.weights._torch_load"), "none of this program's parts"),
    "a data set in an augmentation's place": (
        put(data__augment={"_target_": "src.data.formats.streaming.Streaming", "root": "x", "split": "train"}), "data.augment"),
    "a data set in the strong one's place": (put(data__strong={"_target_": "src.data.formats.voc.VOC"}), "data.strong"),
    "a data set in a callback's place": (put(callbacks__x={"_target_": "src.data.formats.voc.VOC"}), "callbacks.x"),
    "a callback in a logger's place": (put(logger__x={"_target_": "src.callbacks.monitor.Monitor"}), "logger.x"),
    "a loss in a network's place": (put(network={"_target_": "src.losses.dice.Dice"}), "network._target_"),
    "a model in a network's place": (put(network={"_target_": "src.models.cnn.CNNSegmenter"}), "network._target_"),
    "no optimizer but of torch.optim": (put(optimizer___target_="torch.optim.Optimizer.load_state_dict"), "optimizer"),
    "a scheduler in an optimizer's place": (put(optimizer___target_="torch.optim.lr_scheduler.StepLR"), "optimizer"),
    "a checkpoint callback, which deletes": (
        put(callbacks__x={"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "/x"}), "callbacks.x"),
    "a callback of functions": (
        put(callbacks__x={"_target_": "lightning.pytorch.callbacks.LambdaCallback", "on_fit_start": "x"}), "callbacks.x"),
    "a logger that sends": (put(logger__x={"_target_": "lightning.pytorch.loggers.WandbLogger"}), "logger.x"),
    "our logger, online": (
        put(logger__x={"_target_": "src.loggers.wandb.WandB", "mode": "online"} | HERE), "would send the run away"),
    "our logger at a server": (
        put(logger__x={"_target_": "src.loggers.mlflow.MLflow", "server": "http://x"} | HERE), "would write to"),
    "a trainer that uploads": (put(trainer__model_registry="x/y"), "the key trainer.model_registry"),
    "a trainer with plugins": (put(trainer__plugins=["x"]), "the key trainer.plugins"),
    "a logger elsewhere": (put(logger__tensorboard__save_dir="/x"), "would write to '/x'"),
    "a logger at a URL": (put(logger__tensorboard__save_dir="local:///x"), "would write to"),
    "a logger at a store": (put(logger__tensorboard__save_dir="s3://x/y"), "would write to"),
    "a logger at a chain of URLs": (put(logger__tensorboard__save_dir="simplecache::file:///x"), "would write to"),
    "a logger that climbs": (put(logger__tensorboard__version="../../x"), "would write to"),
    "a logger that expands": (put(logger__tensorboard__sub_dir="$HOME/x"), "would write to"),
    "a logger at home": (put(logger__tensorboard__name="~/x"), "would write to"),
    "a logger's file that climbs": (put(logger__tensorboard__filename_suffix="/../../x"), "would write to"),
    "checkpoints elsewhere": (put(callbacks__checkpoint__run_dir="/x"), "would write to '/x'"),
    "a cache elsewhere": (put(data__cache_dir="/x"), "would write to '/x'"),
    "a cache beside": (put(data__cache_dir="x"), "would write to 'x'"),
    "a data set's cache elsewhere": (put(data__dataset__cache_dir="/x"), "would write to '/x'"),
    "data at a URL": (put(data__root="s3://bucket/x"), "no URL is taken"),
    "data of a local URL": (put(data__root="local:/etc"), "no URL is taken"),
    "data of a pattern's URL": (put(data__dataset__images="https://x/{split}"), "no URL is taken"),
    "weights of a hub": (put(network__encoder="hf-hub:someone/model"), "no URL is taken"),
    "a data set of a hub": (
        put(data__dataset={"_target_": "src.data.formats.huggingface.HuggingFace"}, data__root="some/set"), "of a hub"),
    "a thousand workers": (put(data__num_workers=1000), "1000 processes"),
    "a thousand ranks": (put(trainer__devices=1000), "1000 processes"),
    "a number of 400 digits": (text("more: " + "9" * 400), "digits"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_strangers_run_folder(trained: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / MARK
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((trained / run_folder.CONFIG).read_text().replace("MARK", str(mark)))
    change, said = HOSTILE[kind]
    written = change(config) or yaml.safe_dump(config)
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run" / run_folder.CONFIG).write_text(written.replace(MARK, str(mark)))
    (tmp_path / "run/.hydra/other.yaml").write_text(yaml.safe_dump({"network": SHELL}).replace(MARK, str(mark)))
    before = sorted(tmp_path.rglob("*"))
    for key, use in (("resume", _resume), ("like", _like)):
        with pytest.raises(UserError, match=f"^{key}: .*({said})"):
            use(Request.parse("train", [f"{key}={tmp_path}/run"]))
    assert sorted(tmp_path.rglob("*")) == before
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put(network__encoder_weights="/etc/passwd"), "not in the run folder"),
        (put(network__encoder_weights="weights.pth"), "not in the run folder"),
        (put(init_from="/x.ckpt"), "not in the run folder"),
        (put(init_from="https://x/y.ckpt"), "no URL is taken"),
        (put(init_from="hf:a/b"), "no URL is taken"),
        (put(init_from="mmseg:/x.pth"), "no URL is taken"),
    ],
)
def test_weights_to_start_from_are_not_taken_and_not_looked_for_where_a_run_goes_on(
    trained: Path, tmp_path: Path, change: Callable[[Config], str | None], said: str
) -> None:
    config = yaml.safe_load((trained / run_folder.CONFIG).read_text())
    change(config)
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run" / run_folder.CONFIG).write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=f"^like: .*({said})"):
        _like(Request.parse("train", [f"like={tmp_path}/run"]))
    run_config(tmp_path / "run", "resume")


def test_a_run_that_started_from_another_ones_weights_goes_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import settings

    run_dir = tmp_path / "run"
    start = settings(run_dir, f"init_from={trained}", "test=false", "~logger")
    train(start)
    (run_dir / ".hydra").mkdir()
    (run_dir / run_folder.CONFIG).write_text(yaml.safe_dump(start))
    _resume(Request.parse("train", [f"resume={run_dir}", "trainer.max_epochs=3"]))
    assert (run_folder.read_metrics(run_dir) or {})["epochs"] == 3


# What a checkpoint's config may not do; it is given to everything that takes one.
IN_CHECKPOINTS: dict[str, tuple[Callable[[Config], str | None], str]] = {
    "code": (put(network=SHELL), "wants to build"),
    "code in a model's part": (put(model__semi=SHELL), "wants to build"),
    "a data set in a model's part": (put(model__noise={"_target_": "src.data.formats.voc.VOC"}), "wants to build"),
    "tasks of another kind": (put(tasks={"_target_": "src.networks.tiny.tiny"}), "wants to build"),
    "weights of a hub": (
        put(network={"_target_": "src.networks.smp_models.unet", "encoder": "hf-hub:a/b"}), "none is taken out of"),
    "a network of terabytes": (put(network__width=10**9), "far larger than the weights"),
    "a network of a wrong type": (put(network__width="wide"), "should be"),
    "a network that cannot be built": (put(network={"_target_": "src.networks.smp_models.unet", "encoder": "x"}), "."),
    "a group that is a list": (put(trainer=["x"]), "no group of settings"),
    "a data set that is a list": (put(data__dataset=["x"]), "no group of settings"),
    "a value of 400 digits": (put(seed=10**400), "digits"),
    "a value that is nested": (put(seed=[[[[[]]]]] * 50_000), "too many"),
    "a key that is no text": (lambda config: config.update({7: 7}), "no text"),  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize("kind", IN_CHECKPOINTS)
def test_a_strangers_checkpoint(trained: Path, tmp_path: Path, kind: str) -> None:
    content = torch.load(trained / run_folder.BEST, weights_only=True)
    change, said = IN_CHECKPOINTS[kind]
    config = copy.deepcopy(content["segmenter"]["config"])
    change(config)
    content["segmenter"]["config"] = yaml.safe_load(yaml.safe_dump(config).replace(MARK, str(tmp_path / MARK)))
    file = tmp_path / "stranger.ckpt"
    torch.save(content, file)
    with pytest.raises(UserError, match=f"{file}.*({said})"):
        model_from_checkpoint(file)
    assert not (tmp_path / MARK).exists()


def test_evaluation_asks_no_store_for_a_data_set_in_another_place(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / run_folder.BEST, weights_only=True)
    for augment, said in (
        ({"_target_": "src.data.formats.streaming.Streaming", "root": "s3://x/y", "split": "train"}, "wants to build"),
        (
            {"_target_": "src.data.augment.transforms.Augment", "scale": "local:/etc"},
            "none is taken out of a checkpoint",
        ),
    ):
        content["segmenter"]["config"]["data"]["augment"] = augment
        torch.save(content, tmp_path / "stranger.ckpt")
        given = compose("evaluate", [f"ckpt={tmp_path}/stranger.ckpt", "trainer.accelerator=cpu"])
        given["paths"]["output_dir"] = str(tmp_path / "scores")
        with pytest.raises(UserError, match=said):
            evaluate(given)


# ---------------------------------------------------------------- where things are built


@pytest.mark.parametrize(
    ("slot", "node", "said"),
    [
        ("network", SHELL, "wants to build"),
        ("data.augment", {"_target_": "src.data.formats.voc.VOC"}, "wants to build"),
        ("network", {"_target_": "src.networks.tiny.tiny", "width": SHELL}, "wants to build"),
        ("network", {"_target_": "src.networks.tiny.tiny", "x": [{"y": [SHELL]}]}, "wants to build"),
        ("network", {"_target_": "src.networks.tiny.tiny", "_args_": [8]}, "has the key"),
        ("optimizer", {"_target_": "torch.optim.Adam2"}, "."),
        ("nowhere", {"_target_": "src.networks.tiny.tiny"}, "wants to build"),
        ("callbacks.x", {"_target_": ["os.system"]}, "names nothing"),
    ],
)
def test_nothing_else_is_built_whoever_forgot_to_check(slot: str, node: Config, said: str) -> None:
    with pytest.raises((UserError, ImportError), match=said):
        make(node, slot, num_classes=2)


@pytest.mark.parametrize(
    "node", [{}, {"_target_": None}, {"_target_": 3}, {"_target_": ["os.system"]}, "os.system", None, 5]
)
def test_a_node_that_names_nothing(node: Any) -> None:
    with pytest.raises(UserError, match="network: names nothing that can be built"):
        make(node, "network")


def test_the_object_counts_and_not_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch)
    trust = Trust("resume: x", ("mine_net",))
    assert make({"_target_": "mine_net.Net"}, "network", trust=trust, num_classes=2, in_channels=3) is not None
    with pytest.raises(UserError, match=r"'mine_net\.os\.system'.*which is of 'posix'"):
        make({"_target_": "mine_net.os.system"}, "network", trust=trust, command="true")
    monkeypatch.setattr(torch.optim, "Sneaky", os.system, raising=False)
    with pytest.raises(UserError, match="which is no Optimizer"):
        make({"_target_": "torch.optim.Sneaky"}, "optimizer", command="true")


def test_what_the_user_says_is_the_users() -> None:
    said = said_by(
        ["callbacks.x={_target_: a.B, n: {m: 1}}", "network._target_=a.N", "data.root=${network}", "~logger"]
    )
    assert said == ("callbacks.x._target_", "callbacks.x.n.m", "network._target_")
    config: Config = {"callbacks": {"x": {"_target_": "a.B", "evil": SHELL}}, "network": {"_target_": "a.N"}}
    with pytest.raises(UserError, match=r"callbacks\.x\.evil\._target_"):  # merged into what a stranger has there
        check_targets(config, Trust("like: x", said=said))
    del config["callbacks"]["x"]["evil"]
    check_targets(config, Trust("like: x", said=said))
    assert is_so({"data": {"cache_dir": "/x"}}, "data.cache_dir=/x")
    assert not is_so({"data": {"cache_dir": "/x"}}, "data.cache_dir=/y")


def test_a_place_that_the_user_repeats_is_taken(trained: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((trained / run_folder.CONFIG).read_text())
    config["data"]["cache_dir"] = "/scratch"
    (tmp_path / ".hydra").mkdir()
    (tmp_path / run_folder.CONFIG).write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"say so: data\.cache_dir=/scratch"):
        run_config(tmp_path, "resume")
    assert run_config(tmp_path, "resume", overrides=["data.cache_dir=/scratch"])["data"]["cache_dir"] == "/scratch"


def test_a_run_folders_own_interpolations_are_filled_in(trained: Path, tmp_path: Path) -> None:
    """Also where the folder's name looks like one."""
    run_dir = tmp_path / "${oc.env:HOME}"
    (run_dir / ".hydra").mkdir(parents=True)
    content = yaml.safe_load((trained / run_folder.CONFIG).read_text())
    content["data"] |= {"limit": "${data.batch_size}", "eval_batch_size": "${seed}"}
    content["callbacks"]["mine"] = {"_target_": "src.callbacks.monitor.Monitor", "folder": "${paths.output_dir}/mine"}
    (run_dir / run_folder.CONFIG).write_text(yaml.safe_dump(content))
    config = read_config(run_dir, "resume")
    plain = filled(config, run_dir, ["data.batch_size=2"], "x")
    assert plain["callbacks"]["checkpoint"]["run_dir"] == plain["paths"]["output_dir"] == str(run_dir)
    assert plain["logger"]["tensorboard"]["save_dir"] == f"{run_dir}/tensorboard"
    assert plain["callbacks"]["mine"]["folder"] == f"{run_dir}/mine"
    assert plain["callbacks"]["checkpoint"]["monitor"] == "val/miou"
    assert (plain["data"]["limit"], plain["data"]["eval_batch_size"]) == (2, 42)


def test_a_run_like_a_strangers_writes_into_its_own_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the stranger's config names the stranger's own folder, which that one may write to."""
    theirs = tmp_path / "theirs"
    (theirs / ".hydra").mkdir(parents=True)
    config = yaml.safe_load((trained / run_folder.CONFIG).read_text())
    config["callbacks"]["checkpoint"]["run_dir"] = str(theirs)
    config["paths"]["output_dir"] = str(theirs)
    (theirs / run_folder.CONFIG).write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys, "argv", ["train", f"like={theirs}", f"hydra.run.dir={tmp_path}/ours"])
    with pytest.raises(SystemExit):
        main()
    assert not (theirs / run_folder.CHECKPOINTS).exists()


# ---------------------------------------------------------------- states


def test_states_of_callbacks_that_delete_are_dropped(trained: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    content = torch.load(trained / run_folder.LAST, weights_only=True)
    foreign, known = ModelCheckpoint(dirpath=tmp_path), EarlyStopping("val/miou")
    content["callbacks"] |= {
        foreign.state_key: {"last_model_path": str(victim), "best_model_path": str(victim)},
        known.state_key: {"wait_count": 3},
    }
    content |= {"hyper_parameters": {"x": 1}, "hparams_name": "x", "datamodule_hyper_parameters": {"x": 1}}
    torch.save(content, tmp_path / "stranger.ckpt")
    given = settings(tmp_path, "~logger")
    given["callbacks"]["stop"] = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/miou"}
    trainer = build_trainer(Trainer.of(given["trainer"]), str(tmp_path), given["callbacks"], {})
    read_by_it = trainer.strategy.checkpoint_io.load_checkpoint(tmp_path / "stranger.ckpt")
    assert known.state_key in read_by_it["callbacks"] and foreign.state_key not in read_by_it["callbacks"]
    assert not {"hyper_parameters", "hparams_name", "datamodule_hyper_parameters"} & read_by_it.keys()
    assert not STRANGER.keeps_state_of(foreign) and STRANGER.keeps_state_of(Monitor())
    assert Trust("x", ("lightning",)).keeps_state_of(foreign)
    assert foreign.state_key in AtomicCheckpointIO().load_checkpoint(tmp_path / "stranger.ckpt")["callbacks"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pytorch-lightning_version", "2.x; rm"), ("pytorch-lightning_version", 7), ("epoch", -1), ("epoch", "x"),
        ("global_step", 2**60), ("optimizer_states", {"x": 1}), ("lr_schedulers", [1]), ("loops", []), ("callbacks", [1]),
        ("state_dict", [1]), ("state_dict", {"x": 1}), ("state_dict", {1: torch.ones(1)}),
        ("state_dict", {"x": torch.ones(1).expand(10**12)}),
        ("segmenter", {}), ("segmenter", {"config": 1}),
    ],
)  # fmt: skip
def test_a_checkpoint_that_lies_about_itself(trained: Path, tmp_path: Path, key: str, value: Any) -> None:
    content = torch.load(trained / run_folder.LAST, weights_only=True) | {key: value}
    torch.save(content, tmp_path / "stranger.ckpt")
    with pytest.raises(UserError, match=r"^ckpt: .*stranger\.ckpt"):
        model_from_checkpoint(tmp_path / "stranger.ckpt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channels", 10**9), ("channels", "3"), ("channels", 0), ("channels", True), ("intensity", [1.0, 1.0]),
        ("intensity", [0.0, float("inf")]), ("intensity", [0.0]), ("intensity", "xy"), ("class_weights", [1.0]),
        ("class_weights", [float("nan")] * 6), ("class_weights", "balanced"), ("label_set", 3),
    ],
)  # fmt: skip
def test_a_description_that_lies(trained: Path, tmp_path: Path, key: str, value: Any) -> None:
    content = torch.load(trained / run_folder.BEST, weights_only=True)
    content["segmenter"][key] = value
    torch.save(content, tmp_path / "stranger.ckpt")
    with pytest.raises(UserError, match=r"^ckpt: .*stranger\.ckpt"):
        model_from_checkpoint(tmp_path / "stranger.ckpt")


GOOD = {"names": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]], "ignore_index": 255}


@pytest.mark.parametrize(
    "change",
    [
        {"names": [1, 2]}, {"names": ["a", "a\x1b[2J"]}, {"names": ["a", ""]}, {"names": ["a", " "]},
        {"names": ["a", "x" * 300]}, {"names": ["a", "a"]}, {"names": ["a"]}, {"names": "ab c"}, {"names": ["a\n", "b"]},
        {"names": [str(k) for k in range(10_000)], "colors": [[0, 0, 0]] * 10_000}, {"names": ["a", "\u202eb"]},
        {"colors": [[0, 0, 0], [0, 0, 256]]}, {"colors": [[0, 0, 0], [0, 0]]}, {"colors": [[0, 0, 0], "abc"]},
        {"ignore_index": 10**400}, {"ignore_index": "x"}, {"ignore_index": 1}, {"ignore_index": True},
    ],
)  # fmt: skip
def test_a_label_set_that_is_none(change: Config) -> None:
    assert LabelSet.from_dict(GOOD).names == ("a", "b")
    with pytest.raises((UserError, ValueError, TypeError)) as caught:
        LabelSet.from_dict({**GOOD, **change})
    assert len(str(caught.value)) < 500 and "\x1b" not in str(caught.value)


def test_what_goes_to_the_terminal_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UserError(f"x: \x1b[2J{'y' * 2000}\nsecond line {'z' * 9000}")

    with pytest.raises(SystemExit):
        report_user_errors(fail)
    said = capsys.readouterr().err
    assert "\x1b" not in said and "y" * 2000 in said and "\nsecond" in said and len(said) < 5000


# ---------------------------------------------------------------- one's own parts


NET = """
import os
from torch import nn

class Net(nn.Module):
    pixel_mean, pixel_std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.last = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, image):
        return {"logits": self.last(image)}

class Loss(nn.Module):
    def __init__(self, ignore_index, class_weights=None):
        super().__init__()
        self.loss = nn.CrossEntropyLoss(ignore_index=ignore_index)
        self.scale = nn.Parameter(nn.init.ones_(__import__("torch").empty(1)))

    def forward(self, logits, mask):
        return self.loss(logits.float(), mask.long()) * self.scale.detach().sum()
"""


def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine_net").mkdir(exist_ok=True)
    (folder / "mine_net/__init__.py").write_text(NET)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "mine_net", raising=False)


def test_what_trains_can_be_used_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network and a loss of one's own: evaluated, predicted with, exported and resumed with trust=mine_net; and
    predicted with without the loss."""
    package(tmp_path, monkeypatch)
    run_dir = tmp_path / "run"
    given = settings(run_dir, "debug=fast", "test=false", "~logger")
    given["network"], given["loss"] = {"_target_": "mine_net.Net"}, {"_target_": "mine_net.Loss"}
    with pytest.raises(UserError, match=r"wants to build 'mine_net\.Net'"):
        train(given)
    train(given, trust=OWN)
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "photos/a.png")
    trust = "trust=mine_net"
    named = [f"ckpt={run_dir}", f"input={tmp_path}/photos", f"output={tmp_path}/drawn", "device=cpu"]
    with pytest.raises(UserError, match=r"if you trust it, name its package: trust="):
        predict(compose("predict", named))
    assert predict(compose("predict", [*named, trust])) == []
    assert (tmp_path / "drawn/masks/a.png").is_file()
    written = f"output={tmp_path}/model.pt2"
    export(compose("export", [f"ckpt={run_dir}", written, "format=pt2", "size=[32,48]", "trust=mine_net,more"]))
    scoring = ["evaluate", [f"ckpt={run_dir}", "trainer.accelerator=cpu", "splits=[val]"]]
    for more, said in (([], "mine_net.Net"), (["trust=mine_net.Net"], "mine_net.Loss")):
        with pytest.raises(UserError, match=said):
            evaluate(scores(tmp_path, *scoring[1], *more))
    assert evaluate(scores(tmp_path, *scoring[1], trust))["val"]["loss"] > 0
    file = run_dir / run_folder.BEST
    model, _ = model_from_checkpoint(file, ["mine_net.Net"])  # the loss is not needed, nor trusted
    assert type(model.network).__name__ == "Net"
    (run_dir / ".hydra").mkdir()
    (run_dir / run_folder.CONFIG).write_text(yaml.safe_dump(given))
    with pytest.raises(UserError, match="mine_net"):
        run_config(run_dir, "resume")
    resumed = run_config(run_dir, "resume", ["mine_net"])
    resumed["trainer"]["max_epochs"] = 2
    assert train(resumed, resume=True, trust=trust_in(run_dir, "resume", ["mine_net"])).metrics["epochs"] == 2


def scores(folder: Path, *overrides: str) -> Config:
    composed = compose("evaluate", list(overrides))
    composed["paths"]["output_dir"] = str(folder / "scores")
    return composed


def test_who_is_trusted() -> None:
    assert split_packages("a,b.c") == split_packages("[a,b.c]") == split_packages(["a", "b.c"]) == ("a", "b.c")
    assert split_packages(None) == split_packages("null") == split_packages("") == ()
    for bad in ("a b", "a;b", "../a", "a..b"):
        with pytest.raises(UserError, match="is no package"):
            split_packages(bad)
    assert written_out(["trust=a,b"]) == ["trust=[a,b]"]


def test_every_slot_offers_its_own_alone() -> None:
    assert options("network") & options("loss") == options("data.augment") & options("data.dataset") == frozenset()
    assert "src.callbacks.checkpoint.RunCheckpoint" in options("callbacks.any")
    assert options("network.encoder") == options("nowhere") == frozenset()
    assert f"{VOC.__module__}.{VOC.__qualname__}" in options("data.dataset")


def test_a_damaged_best_checkpoint_is_named(trained: Path, tmp_path: Path) -> None:
    content = bytearray((trained / run_folder.BEST).read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "best.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"ckpt: .*best\.ckpt is damaged"):
        read(tmp_path / "best.ckpt")
