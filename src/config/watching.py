"""What loggers and callbacks need of the rest of a config, and of the machine."""

from __future__ import annotations

from collections.abc import Iterator

from src.config import signatures
from src.config.monitored import check_metric, check_one_direction
from src.config.parts import Part
from src.config.settings import Settings
from src.config.synthesis import trains_on
from src.errors import UserError
from src.optional_packages import check_installed

_MONITORING = ("src.callbacks.early_stopping.EarlyStopping", "src.callbacks.top_k.TopK")
_SWA, _LR_FINDER = "src.callbacks.swa.SWA", "src.callbacks.lr_finder.LRFinder"


def check_watching(settings: Settings) -> None:
    """Checks that loggers have their packages, and that callbacks can do what they are for.

    Raises:
        UserError: the first thing that does not fit, with the mend.
    """
    for key, part in _parts(settings):
        signature = signatures.read(part.target) if part.target.startswith("src.") else None
        extra = None if signature is None else signature.constants.get("EXTRA")
        if isinstance(extra, tuple):
            module, name = extra
            check_installed(module, name, key)
        if part.target in _MONITORING:
            _check_monitored(key, part, settings)
        elif part.target == _SWA:
            _check_averaging(key, part, settings)
        elif part.target == _LR_FINDER:
            _check_range_test(key, part, settings)


def _parts(settings: Settings) -> Iterator[tuple[str, Part]]:
    for group, named in (("logger", settings.logger), ("callbacks", settings.callbacks)):
        for name, node in named.items():
            if node is not None:
                yield f"{group}.{name}", Part(node=node)


def _check_monitored(key: str, part: Part, settings: Settings) -> None:
    monitor, mode = str(part.node.get("monitor")), part.node.get("mode")
    check_metric(f"{key}.monitor", monitor, settings, ("val",))
    check_one_direction(f"{key}.mode", monitor, mode if isinstance(mode, str) else None)


def _check_averaging(key: str, part: Part, settings: Settings) -> None:
    epochs, start = settings.trainer.max_epochs, part.node.get("start", 0.75)
    if trains_on(settings.model.target) == "images":
        raise UserError(f"{key}: averages segmenters, and model=synthesis draws images; take model.ema_decay")
    if settings.model.ema_decay is not None:
        raise UserError(
            f"{key}: model.ema_decay averages the weights already; take one of them: ~{key} or model.ema_decay=null"
        )
    if settings.trainer.strategy in ("fsdp", "deepspeed"):
        raise UserError(f"{key}: needs the whole weights on each device; take trainer=ddp")
    if epochs is None:
        raise UserError(f"{key}: averages at the end of epochs; give trainer.max_epochs")
    if isinstance(start, int) and start >= epochs:
        raise UserError(f"{key}.start: {start} of {epochs} epochs leaves none to average; take less than {epochs}")


def _check_range_test(key: str, part: Part, settings: Settings) -> None:
    lowest, highest = part.node.get("lowest", 1e-6), part.node.get("highest", 1.0)
    if trains_on(settings.model.target) == "images" or settings.model.has_adversary:
        raise UserError(
            f"{key}: the loss of a network that learns against a discriminator tells nothing of its rate; take model=cnn"
        )
    if settings.trainer.strategy in ("fsdp", "deepspeed") or (settings.trainer.processes or 1) > 1:
        raise UserError(f"{key}: tries rates on one device; take trainer.devices=1, then train with the rate on many")
    if settings.trainer.needs_gpu:
        raise UserError(
            f"{key}: 16-mixed skips steps whose gradients overflow; take bf16-mixed or 32-true to find a rate"
        )
    if isinstance(lowest, int | float) and isinstance(highest, int | float) and lowest >= highest:
        raise UserError(f"{key}.lowest: {lowest} should be below {key}.highest, {highest}")
