"""A run says with what it was made; `src.verify` says whether its scores come out again, and names what is different."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.cli.command import compose
from src.cli.request import Request
from src.config.settings import Settings
from src.errors import UserError
from src.provenance import code, differences, record, surroundings
from src.provenance.code import Package
from src.provenance.record import Code, Fingerprint, Patch, Record
from src.storage import run_folder
from src.storage.trust import OWN
from src.train import train
from src.verify import Verification, verify
from tests.conftest import ROOT, settings
from tests.data.formats.test_folder import NAMES, write

Say = Callable[[], str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and its data as files."""
    folder = tmp_path_factory.mktemp("made")
    for split in ("train", "val"):
        write(folder / "data", split)
    given = ["data=folder", f"data.root={folder}/data", f"data.dataset.names=[{','.join(NAMES)}]", "network=tiny",
             "trainer=cpu", "trainer.max_epochs=1", "data.batch_size=1", "data.num_workers=0", "data.crop=[16,16]",
             "callbacks.pictures=null"]  # fmt: skip
    (folder / "run").mkdir()
    train(settings(folder / "run", *given, small=False), trust=OWN)
    return folder / "run", folder / "data"


@pytest.fixture
def copy(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    for folder in made:
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path / "run", tmp_path / "data"


def check(run: Path, data: Path, *overrides: str) -> bool:
    return verify(compose("verify", [f"run={run}", f"data.root={data}", *overrides]))


def changed_record(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((run / run_folder.PROVENANCE).read_text())
    change(content)
    (run / run_folder.PROVENANCE).write_text(json.dumps(content))


def test_a_run_records_with_what_it_was_made(made: tuple[Path, Path]) -> None:
    run, data = made
    found = record.read(run)
    assert found is not None and found.data is not None and found.device is not None
    import torch

    assert torch.__version__.startswith(found.packages["torch"])
    assert found.code["src"].files["src/train.py"] and found.code["src"].files["conf/train.yaml"]
    assert (found.device.accelerator, found.device.devices, found.device.precision) == ("cpu", 1, "32-true")
    files = {file.relative_to(data).as_posix() for file in data.rglob("*.png")}
    assert set(found.data["train"].hashed) | set(found.data["val"].hashed) == files
    digest = subprocess.run(
        ["sha256sum", str(data / min(files))], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    hashed = found.data["train"].hashed | found.data["val"].hashed
    assert hashed[min(files)] == ((data / min(files)).stat().st_size, digest)


def test_an_untouched_run_is_verified(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(*made)
    said = capsys.readouterr().out
    assert said.startswith("verified: ") and "to the digit" in said
    assert "different" not in said


def test_one_changed_label_is_named(copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, data = copy
    before = record.read(run)
    assert before is not None and before.data is not None
    label = next(name for name in before.data["val"].hashed if "mask" in name)
    with Image.open(data / label) as image:
        image.point(lambda value: (value + 1) % len(NAMES)).save(data / label)
    assert not check(run, data)
    said = capsys.readouterr().out
    assert said.startswith("not verified: ") and "val/miou: " in said
    assert [line for line in said.splitlines() if line.startswith("  data: ")] == [
        line for line in said.splitlines() if label in line
    ]
    assert sum(label in line for line in said.splitlines()) == 1
    assert "  code: " not in said and "  package: " not in said


def test_another_torch_is_named_though_the_scores_agree(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    changed_record(copy[0], lambda content: content["packages"].update(torch="1.0.0"))
    assert check(*copy)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("verified: ")
    assert [line for line in said if line.startswith("  ")] == [
        f"  package: torch 1.0.0 then, {surroundings.packages()['torch']} now"
    ]


def test_a_score_that_was_written_by_hand_is_not_verified(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = run_folder.read_metrics(copy[0])
    assert metrics is not None
    metrics["val"]["miou"] += 1e-9
    run_folder.write_metrics(copy[0], metrics)
    assert not check(*copy)
    assert "nothing that was recorded is different now" in capsys.readouterr().out
    assert check(*copy, "tolerance=0.001")


def test_a_run_of_earlier_versions_is_verified_by_its_scores(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (copy[0] / run_folder.PROVENANCE).unlink()
    assert check(*copy)
    assert "has no provenance.json" in capsys.readouterr().out


def test_a_stranger_s_record_is_refused_in_one_line(copy: tuple[Path, Path]) -> None:
    file = copy[0] / run_folder.PROVENANCE
    file.write_text('{"packages": {"torch": 5}}')
    with pytest.raises(UserError, match=r"provenance\.json: is damaged .*packages\.torch"):
        check(*copy)
    changed = {"code": {"src": {"commit": "--output=x", "files": {}}}}
    file.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"code\.src\.commit"):
        check(*copy)
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        check(*copy)


def test_the_folder_is_a_plain_argument() -> None:
    for command in ("verify", "pack"):
        assert Request.parse(command, ["logs/a b"]).arguments == ("run='logs/a b'",)
    with pytest.raises(UserError, match="one device"):
        Verification.of(compose("verify", ["run=x", "trainer=ddp_cpu"]))


def test_what_goes_on_keeps_what_was(tmp_path: Path) -> None:
    for number in range(3):
        if number:
            record.keep_earlier(tmp_path)
        record.write(tmp_path, Record(time=str(number), patch=Patch()))
        (tmp_path / run_folder.PATCH).write_text(str(number))
    found = {file.name: file.read_text() for file in tmp_path.glob("code*.patch")}
    assert found == {"code.patch": "2", "code.1.patch": "0", "code.2.patch": "1"}
    assert record.read(tmp_path) == Record(time="2")


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    base = tmp_path / "checkout"
    (base / "mine").mkdir(parents=True)
    (base / "mine/net.py").write_text("".join(f"line_{n} = {n}\n" for n in range(60)))
    (base / "mine/same.py").write_text("pass\n")
    git(base, "init", "-q")
    git(base, "add", ".")
    git(base, "commit", "-qm", "x")
    return Package("mine", base, {"mine": base / "mine"})


def of(package: Package) -> Record:
    return Record(code={package.name: code.code_of(package)}, packages={"a": "1"}, python="3")


def test_an_edited_line_is_named(package: Package) -> None:
    before = of(package)
    assert differences.of_code(before, of(package), [package]) == []
    file = package.base / "mine/net.py"
    file.write_text(file.read_text().replace("line_40 = 40", "line_40 = 41"))
    (package.base / "mine/new.py").write_text("pass\n")
    found = [str(one) for one in differences.of_code(before, of(package), [package])]
    assert found == ["code: mine/net.py was edited (line 41)", "code: mine/new.py is new"]


def test_the_patch_brings_the_uncommitted_change_back(package: Package, tmp_path: Path) -> None:
    assert code.patch_of([package]) == (b"", Patch())
    git(package.base, "clone", "-q", ".", str(tmp_path / "clone"))
    (package.base / "mine/net.py").write_text("changed = 1\n")
    (package.base / "mine/new.py").write_text("no newline at its end")
    (package.base / "mine/data.bin").write_bytes(b"x" * 100)
    text, told = code.patch_of([package])
    assert told == Patch(bytes=len(text))
    (tmp_path / "clone/code.patch").write_bytes(text)
    git(tmp_path / "clone", "apply", "code.patch")
    assert (tmp_path / "clone/mine/net.py").read_text() == "changed = 1\n"
    assert (tmp_path / "clone/mine/new.py").read_text() == "no newline at its end\n"
    assert code.code_of(package).uncommitted == ["mine/net.py", "mine/new.py"]


def test_a_large_change_is_left_out_and_named(package: Package) -> None:
    (package.base / "mine/net.py").write_text("a = 1\n" * 300_000)
    (package.base / "mine/same.py").write_text("b = 1\n")
    text, told = code.patch_of([package])
    assert told.left_out == ["mine/net.py"]
    assert b"# left out, too large: mine/net.py" in text and b"+b = 1" in text and len(text) < 10_000


def test_without_git_files_are_hashed_all_the_same(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = code.code_of(package)
    assert found.commit is None and set(found.files) == {"mine/net.py", "mine/same.py"}
    text, _ = code.patch_of([package])
    assert b"+line_40 = 40" in text  # the whole, since no commit has it


def test_a_repository_around_an_installed_package_is_not_its(package: Package) -> None:
    (package.base / ".gitignore").write_text("site\n")
    (package.base / "site/other").mkdir(parents=True)
    (package.base / "site/other/a.py").write_text("pass\n")
    other = Package("other", package.base / "site", {"other": package.base / "site/other"})
    assert code.code_of(other).commit is None


def test_the_packages_of_a_config_are_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses.py").write_text("raise SystemExit('was run')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {
        "loss": {"_target_": "my_losses.Mine"},
        "optimizer": {"_target_": "torch.optim.AdamW"},
        "x": {"_target_": "os.x"},
    }
    found = code.packages_of(config)
    assert [one.name for one in found] == ["src", "my_losses"]
    assert dict(found[1].files()) == {"my_losses.py": tmp_path / "my_losses.py"}


def test_like_says_what_is_other_than_it_was(tmp_path: Path) -> None:
    assert differences.made_otherwise(tmp_path) is None
    now = Record(
        python=surroundings.python(), packages=surroundings.packages(), code={"src": code.code_of(code.program())}
    )
    record.write(tmp_path, now)
    assert differences.made_otherwise(tmp_path) is None
    files = now.code["src"].files | {"src/train.py": "0" * 16}
    record.write(
        tmp_path,
        now.model_copy(update={"code": {"src": Code(files=files)}, "packages": now.packages | {"numpy": "0.1"}}),
    )
    said = differences.made_otherwise(tmp_path)
    assert said is not None and "\n" not in said
    assert f"src/train.py was edited, numpy 0.1 then, {now.packages['numpy']} now" in said


def test_data_are_told_apart() -> None:
    digest = "a" * 64
    was = Fingerprint(
        of="files", samples=2, names=digest, files=2, bytes=2, sizes=digest, hashed={"a": (1, digest), "b": (1, digest)}
    )

    def said(**other: Any) -> list[str]:
        return [str(one) for one in differences.of_data({"val": was}, {"val": was.model_copy(update=other)})]

    assert said() == []
    assert said(hashed={"a": (1, digest), "b": (2, "b" * 64)}) == [
        "data: val: b has other content (1 bytes then, 2 now)"
    ]
    assert said(hashed={"a": (1, digest)}, samples=1) == ["data: val: b is gone", "data: val: 2 samples then, 1 now"]
    assert said(names="b" * 64) == ["data: val: other names of samples"]
    assert said(sizes="b" * 64)[0].startswith("data: val: a file that was not hashed has another size")
    assert [str(one) for one in differences.of_data({"val": was}, {})] == ["data: val: cannot be opened"]


def test_no_secret_and_no_home_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = [f"{tmp_path}/venv/bin/python", "-m", "src.train", f"data.root={tmp_path}/data", "logger.wandb.api_key=abc",
             "data.root=https://me:word@x/y"]  # fmt: skip
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc")
    assert surroundings.command() == ["python", "-m", "src.train", "data.root=~/data", "logger.wandb.api_key=***",
                                      "data.root=https://***@x/y"]  # fmt: skip
    assert surroundings.environment()["OMP_NUM_THREADS"] == "3"
    assert "abc" not in str(surroundings.environment())


def test_how_much_is_hashed_is_a_key() -> None:
    assert compose("train", [])["fingerprint"] == "auto"
    assert Settings.__dataclass_fields__["fingerprint"].default == "auto"
    assert ROOT.is_dir()
