"""Between two logged steps nothing asks the device for a value: a GPU would first have to finish all that it was given."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from src.data.datamodule import SegmentationDataModule
from src.storage.trust import OWN
from src.train import train
from tests.conftest import settings

# What takes a value to the host to go on, or the size of its result from one.
ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "bincount", "repeat_interleave")
METHODS = ("tolist", "numpy", "cpu")  # which torch answers on the CPU without an operation
LOGGED_EVERY = 3


class Asked(TorchDispatchMode):
    """While it lasts, keeps what asks for a value, with the line that does."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._before: dict[str, Any] = {}

    def __enter__(self) -> Asked:
        self._before = {name: getattr(torch.Tensor, name) for name in METHODS}
        for name, method in self._before.items():
            setattr(torch.Tensor, name, self._noted(name, method))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for name, method in self._before.items():
            setattr(torch.Tensor, name, method)

    def __torch_dispatch__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> object:
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in ASKS or by_mask:
            self._note(name)
        return function(*args, **(kwargs or {}))

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._note(name)
            return method(tensor, *args, **kwargs)

        return noted

    def _note(self, name: str) -> None:
        calls = traceback.extract_stack()[:-2]
        if (
            any(call.name == "_get_value" for call in calls)
            or threading.current_thread() is not threading.main_thread()
        ):
            return  # an optimizer's count of its steps, which torch keeps on the host; or provenance, which reads files
        shown = [f"{call.filename}:{call.lineno}" for call in calls if "/torch/" not in call.filename]
        self.found.append(f"{name} <- " + " <- ".join(reversed(shown[-3:])))


class Window(L.Callback):
    """Looks from the first step after a logged one to the beginning of the next logged one; loading, which is the host's work,
    was done before."""

    def __init__(self) -> None:
        self.asked = Asked()
        self.steps = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, number: int
    ) -> None:
        if number == LOGGED_EVERY:
            self.asked.__enter__()
        elif number == 2 * LOGGED_EVERY - 1:
            self.asked.__exit__(None, None, None)
        self.steps += LOGGED_EVERY <= number < 2 * LOGGED_EVERY - 1


class Loaded:
    """The batches of a loader, made beforehand."""

    def __init__(self, loader: Iterable[object]) -> None:
        self.batches = list(loader)

    def __iter__(self) -> Iterator[object]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@pytest.fixture
def loaded_before(monkeypatch: pytest.MonkeyPatch) -> None:
    load = SegmentationDataModule.train_dataloader
    monkeypatch.setattr(SegmentationDataModule, "train_dataloader", lambda self: Loaded(load(self)))


def asked(run_dir: Path, *overrides: str) -> list[str]:
    given = settings(
        run_dir, "trainer.max_epochs=1", f"trainer.log_every_n_steps={LOGGED_EVERY}", "trainer.limit_val_batches=0",
        "test=false", "+callbacks.window._target_=tests.training.test_host_syncs.Window", *overrides,
    )  # fmt: skip
    outcome = train(given, trust=OWN)
    (window,) = (c for c in outcome.trainer.callbacks if isinstance(c, Window))  # type: ignore[attr-defined]
    assert window.steps == LOGGED_EVERY - 1
    return window.asked.found


SEMI = ["data.labeled_fraction=1/2", "data.unlabeled_batch_size=2", "model.semi.threshold=0.1"]
BOTH = ["model.ema_decay=0.9", "trainer.gradient_clip_val=0.1"]
GAN = ["model=gan", "discriminator=small"]


@pytest.mark.usefixtures("loaded_before")
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(BOTH, id="cnn"),
        *(
            pytest.param(overrides, id=name, marks=pytest.mark.slow)
            for name, overrides in {
                "plain cnn": [],
                "gan": [*GAN, *BOTH],
                "gan, all of it": [*GAN, "model.feature_weight=1", "model.r1_weight=1", "model.r1_every=4"],
                "gan, gumbel": [*GAN, "model.generated=gumbel", "model.truth=smooth", "model.l1_weight=1"],
                "accumulated": [*BOTH, "trainer.accumulate_grad_batches=2"],
                "frozen batch norm": ["model.batch_norm=frozen"],
                "tasks": ["tasks=boundary"],
                "fixmatch": [*SEMI, "model.semi.method=fixmatch", *BOTH],
                "fixmatch, aligned": [
                    *SEMI, "model.semi.method=fixmatch", "model.semi.align=true", "model.semi.dice_weight=1",
                    "model.semi.apart=true", *BOTH,
                ],
                "mean teacher": [*SEMI, "model.semi.method=mean_teacher", *BOTH],
                "unimatch": [*SEMI, "model.semi.method=unimatch", "network=small"],
                "unimatch v2": [*SEMI, "model.semi.method=unimatch_v2", "model.ema_decay=0.9", "network=small"],
                "cps": [*SEMI, "model.semi.method=cps"],
                "s4gan": [
                    "model=gan", "discriminator=whole_image", *SEMI, "model.semi.method=s4gan", "model.feature_weight=0.1",
                    "model.semi.discriminator_threshold=0.6", "model.adversarial_weight=0",
                ],
                "adversarial": [
                    *GAN, *SEMI, "model.semi.method=adversarial", "model.semi.discriminator_threshold=0.1",
                    "model.semi.adversarial_weight=0.01",
                ],
            }.items()
        ),
    ],
)  # fmt: skip
def test_no_step_between_two_logged_ones_asks_for_a_value(tmp_path: Path, overrides: list[str]) -> None:
    found = asked(tmp_path, *overrides)
    assert not found, "\n".join(sorted(set(found)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(), lambda x: bool(x.sum() > 0), lambda x: float(x.sum()), lambda x: int(x.sum()),
        lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x.numpy(), lambda x: x[x > 1], lambda x: x.nonzero(),
        lambda x: torch.bincount(x.long()), lambda x: torch.nn.functional.one_hot(x.long(), 3),
    ],
)  # fmt: skip
def test_what_asks_is_found(ask: Callable[[torch.Tensor], object]) -> None:
    with Asked() as watched:
        values = torch.arange(3.0)
        (values + 1).softmax(0).clamp(0, 1)
        assert watched.found == []
        ask(values)
    assert watched.found
    before = len(watched.found)
    values.tolist()
    assert len(watched.found) == before  # all is as it was


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("overrides", [BOTH, [*GAN, *BOTH], [*SEMI, "model.semi.method=fixmatch", *BOTH]])
def test_no_step_waits_for_the_gpu(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch, loaded_before: None
) -> None:
    """CUDA's own word for it: it raises where the host waits."""
    monkeypatch.setattr(Asked, "__enter__", lambda self: torch.cuda.set_sync_debug_mode("error"))
    monkeypatch.setattr(Asked, "__exit__", lambda self, *_: torch.cuda.set_sync_debug_mode("default"))
    asked(tmp_path, "trainer=gpu", *overrides)
