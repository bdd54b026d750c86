"""A stranger's checkpoint, run folder or archive runs no code and takes no path from its config."""

from __future__ import annotations

import ast
import contextlib
import copy
import hashlib
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from src.cli.command import compose
from src.cli.request import Request
from src.config.schema import GROUPS
from src.errors import UserError
from src.evaluate import evaluate
from src.predict import predict
from src.storage import run_folder
from src.storage.trust import Trust, check_targets
from src.train import _like, _resume, train
from src.training.build import model_from_checkpoint
from tests.conftest import ROOT, run_config, settings

Content = dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("trained")
    train(settings(run_dir, "debug=fast", "~logger"))
    composed = settings(run_dir, "~logger")
    (run_dir / ".hydra").mkdir()
    (run_dir / run_folder.CONFIG).write_text(yaml.safe_dump(composed))
    return run_dir


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def running(mark: Path) -> dict[str, Content]:
    """Nodes that would make a file if anything built them."""
    hub = mark.parent / "hub"
    hub.mkdir(exist_ok=True)
    (hub / "hubconf.py").write_text(f"open({str(mark)!r}, 'w')\ndef net(**given): pass\n")
    touch = f"touch '{mark}'"
    shell = {"_target_": "os.system", "command": touch}
    return {
        "shell": shell,
        "eval": {"_target_": "builtins.eval", "_args_": [f"open({str(mark)!r}, 'w')"]},
        "hub": {"_target_": "torch.hub.load", "repo_or_dir": str(hub), "model": "net", "source": "local"},
        "instantiate": {"_target_": "hydra.utils.instantiate", "config": shell},
        "partial": {**shell, "_partial_": True},
        "our loader": {"_target_": "src.training.build.make", "node": shell},
        "our import": {"_target_": "src.networks.tiny.tiny", "width": shell},
        "through a module": {"_target_": "src.storage.run_folder.os.system", "command": touch},
        "a class of ours with another inside": {"_target_": "src.data.formats.shapes.Shapes", "seed": shell},
        "a class of Lightning's": {"_target_": "lightning.pytorch.callbacks.LambdaCallback", "on_fit_start": shell},
    }


KINDS = [
    "shell", "eval", "hub", "instantiate", "partial", "our loader", "our import", "through a module",
    "a class of ours with another inside", "a class of Lightning's",
]  # fmt: skip


def every_kind_and_every_group(*groups: str, others: tuple[str, ...]) -> list[tuple[str, str]]:
    """Every kind of node in some groups of the config, and one kind in the others."""
    return [(kind, group) for group in groups for kind in KINDS] + [("shell", group) for group in others]


def stranger(trained: Path, file: Path, change: Callable[[Content], None]) -> Path:
    """The run's checkpoint with something changed in its config."""
    content = torch.load(trained / run_folder.BEST, weights_only=True)
    content["segmenter"] = copy.deepcopy(content["segmenter"])
    change(content["segmenter"]["config"])
    torch.save(content, file)
    return file


def uses(file: Path, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that takes a checkpoint."""
    scoring = compose("evaluate", [f"ckpt={file}", "trainer.accelerator=cpu"])
    scoring["paths"]["output_dir"] = str(folder / "scores")
    (folder / "photos").mkdir(exist_ok=True)
    from PIL import Image

    Image.new("RGB", (32, 32)).save(folder / "photos/a.png")
    drawing = compose("predict", [f"ckpt={file}", f"input={folder}/photos", f"output={folder}/drawn", "device=cpu"])
    yield "evaluate", lambda: evaluate(scoring)
    yield "predict", lambda: predict(drawing)
    yield "build", lambda: model_from_checkpoint(file)
    yield "init_from", lambda: train(settings(folder / "fine", f"init_from={file}", "debug=fast", "test=false"))


@pytest.mark.parametrize(
    ("kind", "group"),
    every_kind_and_every_group(
        "network", "data.dataset", others=("model", "loss", "tasks", "data", "data.augment", "trainer", "callbacks.x")
    ),
)
def test_a_checkpoints_config_runs_nothing(trained: Path, tmp_path: Path, kind: str, group: str) -> None:
    mark = tmp_path / "mark"
    node = running(mark)[kind]

    def change(config: Content) -> None:
        *path, last = group.split(".")
        for key in path:
            config = config[key]
        config[last] = {**config.get(last, {}), **node} if group == "data" else node

    file = stranger(trained, tmp_path / "stranger.ckpt", change)
    for name, use in uses(file, tmp_path):
        if name == "init_from":
            continue  # takes the weights alone; see below
        scored = name == "evaluate" and group.startswith(("data", "loss"))
        if group in ("network", "model", "tasks") or scored:
            with pytest.raises(UserError, match=re.escape(str(file))):
                use()
        elif name != "evaluate":  # the group plays no part, and that it does not is what is tested
            with contextlib.suppress(UserError):  # of a data set that no data set can be
                use()
    if group in ("trainer", "callbacks.x"):
        next(use for name, use in uses(file, tmp_path) if name == "evaluate")()
    assert not mark.exists()


def test_a_checkpoint_with_code_is_not_opened(trained: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    content = torch.load(trained / run_folder.BEST, weights_only=True)
    content["extra"] = Payload(mark)
    torch.save(content, tmp_path / "payload.ckpt")
    for _, use in uses(tmp_path / "payload.ckpt", tmp_path):
        with pytest.raises(UserError, match="could run code"):
            use()
    # nor by a library that asks for it
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        torch.load(tmp_path / "payload.ckpt", weights_only=False)
    assert not mark.exists()


def test_weights_alone_build_nothing(trained: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    file = stranger(trained, tmp_path / "s.ckpt", lambda config: config.update(network=running(mark)["shell"]))
    dict(uses(file, tmp_path))["init_from"]()
    assert not mark.exists()


def test_no_path_is_taken_out_of_a_checkpoint(trained: Path, tmp_path: Path) -> None:
    def rooted(config: Content) -> None:
        config["data"] |= {"root": str(tmp_path), "dataset": {"_target_": "src.data.formats.camvid.CamVid"}}

    def listed(config: Content) -> None:
        config["data"] |= {
            "dataset": {"_target_": "src.data.formats.folder.Folder", "names": ["a", "b"], "images": "../../x"}
        }

    for change, said in ((rooted, f"data.root={tmp_path}"), (listed, "none is taken out of a checkpoint")):
        file = stranger(trained, tmp_path / "stranger.ckpt", change)
        with pytest.raises(UserError, match=re.escape(said)):
            dict(uses(file, tmp_path))["evaluate"]()

    def weighted(config: Content) -> None:
        config["network"] = compose("train", ["network=unet", "network.encoder_weights=/etc/passwd"])["network"]

    # the weights do not fit a U-Net; that it gets so far shows that no other file was looked for
    with pytest.raises(UserError, match="do not fit the network"):
        model_from_checkpoint(stranger(trained, tmp_path / "weighted.ckpt", weighted))


@pytest.mark.parametrize(
    ("kind", "group"),
    every_kind_and_every_group(
        "network", "callbacks.x", others=("trainer", "logger.x", "optimizer", "data.dataset", "new")
    ),
)
def test_a_strangers_run_folder_runs_nothing(trained: Path, tmp_path: Path, kind: str, group: str) -> None:
    mark = tmp_path / "mark"
    config = yaml.safe_load((trained / run_folder.CONFIG).read_text().replace(str(trained), str(tmp_path / "run")))
    config["logger"] = {}
    node = config
    *path, last = group.split(".")
    for key in path:
        node = node[key]
    node[last] = running(mark)[kind]
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run" / run_folder.CONFIG).write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"resume: .*/config\.yaml (wants to build|has the key)"):
        _resume(Request.parse("train", [f"resume={tmp_path}/run"]))
    with pytest.raises(UserError, match=r"like: .*/config\.yaml (wants to build|has the key)"):
        _like(Request.parse("train", [f"like={tmp_path}/run"]))
    assert not mark.exists()


def test_a_strangers_run_folder_is_written_to_alone(trained: Path, tmp_path: Path) -> None:
    def resumed(change: Callable[[Content], None] = lambda _: None, text: str = "") -> Content:
        config = yaml.safe_load((trained / run_folder.CONFIG).read_text().replace(str(trained), str(tmp_path / "run")))
        change(config)
        (tmp_path / "run/.hydra").mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / run_folder.CONFIG).write_text(yaml.safe_dump(config) + text)
        return run_config(tmp_path / "run", "resume")

    assert resumed()["callbacks"]["checkpoint"]["run_dir"] == str(tmp_path / "run")
    for place in ("/somewhere", "../x", "~/x", str(tmp_path)):
        with pytest.raises(UserError, match="not in the run folder; refused"):
            resumed(lambda config, place=place: config["callbacks"]["checkpoint"].update(run_dir=place))  # type: ignore[misc]
    with pytest.raises(UserError, match="no plain value; refused"):
        resumed(text=f"x: !!python/object/apply:os.system ['touch {tmp_path}/mark']\n")
    hidden = {"_target_": "${monitor}", "command": f"touch {tmp_path}/mark"}
    with pytest.raises(UserError, match=r"wants to build 'os\.system'"):
        resumed(lambda config: config.update(monitor="os.system", network=hidden))
    assert not (tmp_path / "mark").exists()


def test_what_the_user_trusts_may_be_built() -> None:
    node = {"network": {"_target_": "mine.net.Net"}}
    with pytest.raises(UserError, match=r"wants to build 'mine\.net\.Net' \(network\._target_\)"):
        check_targets(node, Trust("resume: x"))
    check_targets(node, Trust("resume: x", ("mine",)))
    with pytest.raises(UserError):
        check_targets(node, Trust("resume: x", ("min",)))


def test_every_option_of_the_program_may_be_resumed() -> None:
    for group in (*GROUPS, "experiment"):
        for file in sorted(
            [*(ROOT / "conf" / group).glob("*.yaml"), *(ROOT / "conf/hydra/base").glob(f"{group}.yaml")]
        ):
            settings = yaml.safe_load(file.read_text(encoding="utf-8"))
            settings.pop("defaults", None)
            check_targets(settings if group == "experiment" else {group: settings}, Trust(str(file)))


# ---------------------------------------------------------------- the source

LOADS = {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load", "cloudpickle.load", "marshal.load",
         "shelve.open", "pandas.read_pickle", "pd.read_pickle", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all",
         "os.system", "os.popen", "torch.hub.load", "hydra.utils.instantiate", "instantiate", "hydra.utils.call",
         "torch.jit.load"}  # fmt: skip


def dangerous(call: ast.Call) -> str | None:
    """Why a call could run what a file says; None where it could not."""
    name = ast.unparse(call.func)
    keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name in LOADS:
        return name
    if name.endswith("torch.load") and keywords.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if keywords.get("allow_pickle", "False") != "False":
        return "allow_pickle"
    if name == "yaml.load" and keywords.get("Loader") not in ("yaml.SafeLoader", "yaml.CSafeLoader"):
        return "yaml.load without a safe loader"
    if name.endswith((".extractall", ".extract")) and keywords.get("filter") != "'data'":
        return "an archive without filter='data'"
    if keywords.get("shell", "False") != "False" or keywords.get("trust_remote_code", "False") != "False":
        return "shell or trust_remote_code"
    if name in ("eval", "exec") and not (len(call.args) > 1 and "__builtins__" in ast.unparse(call.args[1])):
        return name
    return None


def test_no_source_file_loads_what_could_run() -> None:
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {why}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and (why := dangerous(node))
    ]
    assert len(files) > 50
    assert found == []


@pytest.mark.parametrize(
    "code",
    ["torch.load(f)", "torch.load(f, weights_only=False)", "pickle.load(f)", "np.load(f, allow_pickle=True)", "yaml.load(t)",
     "tar.extractall(p)", "subprocess.run(c, shell=True)", "eval(t)", "torch.hub.load('a', 'b')"],
)  # fmt: skip
def test_the_scan_finds_it(code: str) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert dangerous(call)


@pytest.mark.slow
def test_the_dashboard_listens_on_this_machine_only(tmp_path: Path) -> None:
    """As `make dashboard` starts it, on a port of the system's choice."""
    (line,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if "/tensorboard " in line)
    arguments = line.replace("$(ARGS)", "--port 0").replace("$(BIN)", str(Path(sys.executable).parent)).split()
    process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "http://" in line or "error" in line)
        listening = [c for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    finally:
        process.kill()
        process.wait()
    assert "http://localhost:" in said
    assert listening
    assert all(connection.laddr.ip in ("127.0.0.1", "::1") for connection in listening)


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize("member", ["../outside", "/outside", "link/outside"])
def test_an_archive_leaves_nothing_outside_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    from torchvision.datasets import voc

    outside = tmp_path / "outside"
    archive = tmp_path / "root/got.tar"  # fetched already
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        if member.startswith("link"):
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            tar.addfile(link)
        name = str(outside) if member.startswith("/") else member
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    release = {"url": archive.as_uri(), "filename": "got.tar", "md5": hashlib.md5(archive.read_bytes()).hexdigest()}
    monkeypatch.setitem(voc.DATASET_YEAR_DICT, "2012", {**voc.DATASET_YEAR_DICT["2012"], **release})
    from src.data.formats.voc import VOC

    with pytest.raises(UserError, match="could not be fetched"):
        VOC("train", str(tmp_path / "root"), download=True)
    assert not outside.exists()
