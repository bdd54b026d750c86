"""Each private part of a library that the program leans on is there and does what we rely on, in the installed version."""

from __future__ import annotations

import copy
import datetime
import importlib
import inspect
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.strategies.launchers import subprocess_script
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from src.distributed import library_internals


def test_launched_processes_go_to_our_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    own = subprocess_script._launch_process_observer  # type: ignore[attr-defined]
    assert list(inspect.signature(own).parameters) == ["child_processes"]
    monkeypatch.setattr(subprocess_script, "_launch_process_observer", own)  # puts it back at the end
    seen: list[list[subprocess.Popen[bytes]]] = []
    library_internals.observe_launched(seen.append)

    class Launcher(subprocess_script._SubprocessScriptLauncher):
        def _call_children_scripts(self) -> None:
            """Starts none."""

    Launcher(LightningEnvironment(), num_processes=1, num_nodes=1).launch(lambda: None)
    assert seen == [[]]


def test_ranks_are_not_asked_for_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).fit_loop.epoch_loop
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(type(loop).advance)
    asked: list[object] = []
    monkeypatch.setattr(dist, "broadcast", lambda *given, **_: asked.append(given))
    loop._broadcast_sigterm_tensor()
    assert len(asked) == 1
    library_internals.ask_no_rank_for_sigterm(loop.trainer)
    loop._broadcast_sigterm_tensor()
    assert len(asked) == 1


def test_timeout_of_collectives(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = DDPStrategy()
    assert isinstance(strategy._timeout, datetime.timedelta)
    library_internals.set_timeout(strategy, datetime.timedelta(minutes=7))
    given: dict[str, Any] = {}
    module = inspect.getmodule(DDPStrategy)
    monkeypatch.setattr(module, "_init_dist_connection", lambda *_, **more: given.update(more))
    strategy.parallel_devices = [torch.device("cpu")]
    strategy.cluster_environment = LightningEnvironment()
    strategy.setup_distributed()
    assert given["timeout"] == datetime.timedelta(minutes=7)


def test_weights_are_cut_over_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = ModelParallelStrategy(tensor_parallel_size=1)
    assert strategy._data_parallel_size == "auto"
    strategy.parallel_devices, strategy.num_nodes = [torch.device("cpu")] * 3, 2
    library_internals.shard_over_all(strategy)
    assert vars(strategy)["_data_parallel_size"] == 6
    assert "self._data_parallel_size" in inspect.getsource(ModelParallelStrategy.setup_environment)


def test_batch_norms_are_synchronised_before_the_cut() -> None:
    strategy = DDPStrategy()
    assert strategy._layer_sync is None
    part = nn.Sequential(nn.BatchNorm2d(2))
    library_internals.synchronise_batch_norms(strategy, part)
    assert isinstance(part[0], nn.BatchNorm2d)
    applied: list[nn.Module] = []

    class Sync(TorchSyncBatchNorm):
        def apply(self, model: nn.Module) -> nn.Module:
            applied.append(model)
            return super().apply(model)

    strategy._layer_sync = Sync()
    library_internals.synchronise_batch_norms(strategy, part)
    assert applied == [part]
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=True, logger=False)
    assert isinstance(trainer.strategy, DDPStrategy) and isinstance(trainer.strategy._layer_sync, TorchSyncBatchNorm)


def test_tensors_are_broadcast(tmp_path: Path) -> None:
    assert callable(dist.distributed_c10d._get_default_group)
    assert callable(dist._broadcast_coalesced)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        tensors = [torch.tensor([1.0, 2.0]), torch.tensor(3)]
        library_internals.broadcast_coalesced(tensors)
    finally:
        dist.destroy_process_group()
    assert tensors[0].tolist() == [1, 2] and int(tensors[1]) == 3


def test_deepspeed_keeps_its_fragments() -> None:
    pytest.importorskip("deepspeed")
    linkage = importlib.import_module("deepspeed.utils.mixed_precision_linkage")
    fragments = importlib.import_module("deepspeed.utils.tensor_fragment")
    assert "._hp_mapping = " in inspect.getsource(linkage)
    parameter, shard = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(5))
    parameter._hp_mapping = None  # type: ignore[attr-defined]
    library_internals.lend_optimizer_state(parameter, shard, {})  # this process has no part of it
    fragment = object.__new__(fragments.tensor_fragment)
    fragment.hp_fragment_address = fragments.fragment_address(numel=2, start=3)
    parameter._hp_mapping = fragment  # type: ignore[attr-defined]
    state = {"exp_avg": torch.arange(5.0), "step": torch.tensor(1.0)}
    library_internals.lend_optimizer_state(parameter, shard, state)
    assert fragment.get_optim_state_fragment("exp_avg").tolist() == [3, 4]


def test_batch_norms_have_one_parent() -> None:
    for norm in (nn.BatchNorm1d(1), nn.BatchNorm2d(1), nn.BatchNorm3d(1), nn.SyncBatchNorm(1)):
        assert library_internals.is_batch_norm(norm)
    for other in (nn.GroupNorm(1, 1), nn.InstanceNorm2d(1), nn.LayerNorm(1)):
        assert not library_internals.is_batch_norm(other)


def test_schedule_goes_on_from_a_step() -> None:
    def schedule() -> LambdaLR:
        return LambdaLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), lambda step: 1 / (1 + step))

    walked, put = schedule(), schedule()
    for _ in range(3):
        walked.optimizer.step()
        walked.step()
    put.optimizer.param_groups[0]["lr"] = walked.get_last_lr()[0]
    library_internals.set_schedule_position(put, 3, walked.get_last_lr())
    for key in ("last_epoch", "_step_count", "_last_lr", "base_lrs"):
        assert put.state_dict()[key] == walked.state_dict()[key], key


class _SaveAtStart(Callback):
    def __init__(self) -> None:
        self.saved: list[dict[str, Any]] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 2:
            self.saved.append(copy.deepcopy(trainer._checkpoint_connector.dump_checkpoint()))

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_idx == 1:
            self.saved.append(copy.deepcopy(trainer._checkpoint_connector.dump_checkpoint()))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved.append(copy.deepcopy(trainer._checkpoint_connector.dump_checkpoint()))


@pytest.fixture
def saved(tmp_path: Path) -> list[dict[str, Any]]:
    """What Lightning saves at the end of the second batch of four, at the third's start, and after it, where it stops."""
    callback = _SaveAtStart()
    trainer = L.Trainer(
        accelerator="cpu", max_steps=3, limit_train_batches=4, limit_val_batches=0, logger=False, callbacks=[callback],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(BoringModel())
    return callback.saved


def test_a_checkpoint_between_batches_counts_none_too_many(saved: list[dict[str, Any]]) -> None:
    at_end, at_start, _ = saved
    stepped = at_start["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
    library_internals.uncount_started_batch(at_start)
    loops = at_start["loops"]["fit_loop"]
    assert loops["epoch_loop.state_dict"]["_batches_that_stepped"] == stepped - 1
    now, then = loops["epoch_loop.batch_progress"], at_end["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert now["current"]["ready"] == then["current"]["ready"] == 2
    assert now["is_last_batch"] is False


def test_a_checkpoint_of_a_cut_epoch_goes_on_within_it(saved: list[dict[str, Any]]) -> None:
    loops = saved[-1]["loops"]["fit_loop"]
    before = copy.deepcopy(loops)
    library_internals.uncount_cut_epoch(saved[-1])
    for scope in ("total", "current"):
        assert loops["epoch_progress"][scope]["processed"] == before["epoch_progress"][scope]["processed"] - 1 == 0
        completed = before["epoch_loop.batch_progress"][scope]["completed"]
        assert completed == 3
        assert loops["epoch_loop.batch_progress"][scope]["completed"] == completed - 1


def test_each_operation_is_looked_at() -> None:
    sizes: list[Any] = []
    with library_internals.before_each_operation(lambda args: sizes.append(args[0] if args else None)):
        nn.Linear(3, 5)
    assert [5, 3] in sizes

    def refuse(_: tuple[Any, ...]) -> None:
        raise ValueError("too many")

    with pytest.raises(ValueError, match="too many"), library_internals.before_each_operation(refuse):
        torch.empty(2)


def test_strategies_name_their_backend_in_public() -> None:
    assert isinstance(DDPStrategy.process_group_backend, property) and issubclass(DDPStrategy, Strategy)
