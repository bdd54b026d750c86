"""Several nodes: processes that torchrun or srun started are one run, in one folder, and give what one node gives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from src.distributed import rendezvous
from src.distributed.rendezvous import Place
from src.storage import run_folder
from tests.conftest import SMALL, command, environment

Run = Callable[..., subprocess.CompletedProcess[str]]
# Without batch norm in the way the same global batches give the same weights on any number of ranks.
SAME = [
    *SMALL, "model.batch_norm=frozen", "optimizer=sgd", "optimizer.lr=0.05", "trainer.log_every_n_steps=1",
    "data.augment.scale=[0.7,1.5]", "data.crop=[32,32]",
]  # fmt: skip
STARTED = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NAME")


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4"}, Place(3, 4)),
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "train"}, Place(1, 2)),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "interactive"}, None),
        ({"TORCHELASTIC_RUN_ID": "a", "RANK": "1", "WORLD_SIZE": "8", "SLURM_NTASKS": "2"}, Place(1, 8)),
    ],
)
def test_where_a_process_stands(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: Place | None
) -> None:
    for name in STARTED:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rendezvous.place() == place


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def two_hosts() -> Iterator[list[tuple[list[str], str]]]:
    """For each of two hosts what a command begins with there, and its address: two network namespaces joined by a
    cable where this user may make them, else this host twice."""
    cable = "link add va netns hosta type veth peer name vb netns hostb"
    steps = ["netns add hosta", "netns add hostb", cable]
    for name, address in (("a", "10.77.0.1"), ("b", "10.77.0.2")):
        steps += [f"-n host{name} addr add {address}/24 dev v{name}"]
        steps += [f"-n host{name} link set {device} up" for device in ("lo", f"v{name}")]
    allowed = shutil.which("ip") is not None
    try:
        for step in steps:
            allowed = allowed and subprocess.run(["ip", *step.split()], capture_output=True).returncode == 0
        if allowed:
            into = [["ip", "netns", "exec", f"host{n}", "env", f"GLOO_SOCKET_IFNAME=v{n}"] for n in "ab"]
            yield list(zip(into, ("10.77.0.1", "10.77.0.2"), strict=True))
        else:
            yield [([], "127.0.0.1")] * 2
    finally:
        if shutil.which("ip"):
            for name in ("hosta", "hostb"):
                subprocess.run(["ip", "netns", "del", name], capture_output=True)


def single(run: Run, run_dir: Path) -> None:
    assert run("src.train", *SAME, f"hydra.run.dir={run_dir}").returncode == 0


def assert_equal_results(run_dir: Path, other: Path) -> None:
    ours, theirs = (torch.load(folder / run_folder.LAST, weights_only=True) for folder in (run_dir, other))
    assert ours["global_step"] == theirs["global_step"] == 12
    for key, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][key], value, rtol=1e-4, atol=1e-6)
    figures: list[dict[str, Any]] = [run_folder.read_metrics(folder) or {} for folder in (run_dir, other)]
    for split in ("val", "test"):
        assert figures[0][split] == pytest.approx(figures[1][split], abs=1e-4)


@pytest.mark.slow
def test_two_nodes_of_torchrun_give_the_result_of_one(run: Run, tmp_path: Path) -> None:
    port = free_port()
    with two_hosts() as hosts:
        agents = []
        for node, (into, _) in enumerate(hosts):
            torchrun = ["torch.distributed.run", "--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1"]
            torchrun += [f"--master-addr={hosts[0][1]}", f"--master-port={port}", "-m", "src.train", *SAME]
            torchrun += ["trainer=ddp_cpu", "trainer.num_nodes=2", "trainer.devices=1"]
            agents.append(subprocess.Popen([*into, *command(*torchrun)], cwd=tmp_path, env=environment()))
            time.sleep(1.5)  # the nodes' clocks, and so their time stamps, differ
        assert [agent.wait(timeout=200) for agent in agents] == [0, 0]
    (run_dir,) = (tmp_path / "logs/train/runs").iterdir()
    assert {"metrics.json", "train.log", ".hydra", "checkpoints"} <= {f.name for f in run_dir.iterdir()}
    single(run, tmp_path / "single")
    assert_equal_results(run_dir, tmp_path / "single")


def tasks(tmp_path: Path, *arguments: str) -> list[subprocess.Popen[bytes]]:
    """Two processes as srun would start them, with a `scontrol` that writes down what it is asked."""
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir(exist_ok=True)
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    port = str(free_port())
    shared = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": port,
        "PATH": f"{scontrol.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    return [
        subprocess.Popen(
            command("src.train", *arguments), cwd=tmp_path,
            env=environment() | shared | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_slurm_job_is_put_back_in_the_queue_and_goes_on(run: Run, tmp_path: Path) -> None:
    on_cpu = ["trainer=slurm", "trainer.accelerator=cpu", "trainer.sync_batchnorm=false"]
    job = tasks(tmp_path, *SAME, *on_cpu, "callbacks.checkpoint.every_n_steps=1")
    until = time.monotonic() + 200
    while not list(tmp_path.glob("logs/train/runs/*/checkpoints/last.ckpt")) and time.monotonic() < until:
        time.sleep(0.01)
    for process in job:
        process.send_signal(signal.SIGUSR1)
    assert [process.wait(timeout=100) for process in job] == [130, 130]
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    (run_dir,) = (tmp_path / "logs/train/runs").iterdir()
    metrics = run_folder.read_metrics(run_dir)
    assert metrics is not None
    assert metrics["status"] == "interrupted"
    assert metrics["steps"] < 12
    job = tasks(tmp_path, f"resume={run_dir}")
    assert [process.wait(timeout=200) for process in job] == [0, 0]
    single(run, tmp_path / "single")
    assert_equal_results(run_dir, tmp_path / "single")


@pytest.mark.slow
def test_sharded_training_gives_the_result_of_one_device(run: Run, tmp_path: Path) -> None:
    options = [*SAME, "model.ema_decay=0.9", "trainer.gradient_clip_val=0.5", "trainer.accumulate_grad_batches=2"]
    options += ["optimizer=adamw", "optimizer.eps=0.01"]
    fsdp = ["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=false"]
    pictures = "callbacks.pictures={_target_: src.callbacks.pictures.Pictures, samples: 1}"
    for name, more in (("single", []), ("sharded", [*fsdp, pictures])):
        result = run("src.train", *options, *more, f"hydra.run.dir={tmp_path}/{name}")
        assert result.returncode == 0, result.stderr
    ours, theirs = (torch.load(tmp_path / name / run_folder.LAST, weights_only=True) for name in ("sharded", "single"))
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    for key, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][key], value, rtol=1e-3, atol=1e-5)
    moments, expected = ours["optimizer_states"][0]["state"], theirs["optimizer_states"][0]["state"]
    torch.testing.assert_close(moments[0]["exp_avg"], expected[0]["exp_avg"], rtol=1e-3, atol=1e-5)
    evaluated = run("src.evaluate", f"ckpt={tmp_path}/sharded", f"hydra.run.dir={tmp_path}/evaluated")
    assert evaluated.returncode == 0, evaluated.stderr
    figures = [run_folder.read_metrics(tmp_path / name) or {} for name in ("evaluated", "sharded")]
    assert figures[0]["test"]["miou"] == figures[1]["test"]["miou"]
