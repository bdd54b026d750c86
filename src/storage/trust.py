"""What may be built of a config that someone else may have written: a checkpoint's, a run folder's, a sweep's.

A `_target_` is called with whatever the config says, so it is as good as code. `src.training.build.make` is the one place
where it is called, and asks here with the very value that it is about to call. What stands in the user's own command line or
`conf/` may be anything (`OWN`); of everything else each slot (network, model.noise, data.augment, callbacks.*, …) takes what
this program's own `conf/` offers there, and a few classes of PyTorch and Lightning that neither run nor write anything that
their keys could name.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.config.schema import GROUPS, TYPES
from src.errors import UserError
from src.files.untrusted import plain_yaml, read_text, read_yaml, shown
from src.which_src import CONFIG_DIR

_CONF = CONFIG_DIR
# Read together with the groups; their files say where in the config they belong.
_GLOBAL = ("experiment", "debug")
_ANY_NAME = ("metrics", "callbacks", "logger")  # groups whose parts have names of their own

# Of libraries, by slot: the texts, and the class that what they name must be of.
_FAMILIES = {
    "optimizer": (re.compile(r"torch\.optim\.[A-Z]\w*"), "torch.optim", "Optimizer"),
    "metrics.*": (re.compile(r"torchmetrics\.(classification|segmentation)\.[A-Z]\w*"), "torchmetrics", "Metric"),
    "scheduler": (re.compile(r"torch\.optim\.lr_scheduler\.[A-Z]\w*"), "torch.optim.lr_scheduler", "LRScheduler"),
}
# Each was read: with plain keys, and with any state of theirs that a checkpoint may bring, they run nothing, and write nothing
# but what the logger is told. Not ModelCheckpoint: it deletes the files that its state calls its own.
_HARMLESS = {
    "callbacks.*": frozenset(
        f"lightning.pytorch.callbacks.{name}"
        for name in (
            "DeviceStatsMonitor", "EarlyStopping", "LearningRateMonitor", "ModelSummary", "RichModelSummary",
            "RichProgressBar", "TQDMProgressBar", "Timer",
        )
    ),
    "logger.*": frozenset(f"lightning.pytorch.loggers.{name}" for name in ("CSVLogger", "TensorBoardLogger")),
    "trainer": frozenset({"lightning.Trainer", "lightning.pytorch.Trainer"}),
}  # fmt: skip
# Of Lightning's Trainer a stranger may set what bears on the training; other keys load plugins or send models away.
_KEYS = {
    "trainer": {
        "_target_", *TYPES["trainer"], "enable_model_summary", "detect_anomaly", "inference_mode", "max_time",
        "enable_progress_bar",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Trust:
    """Whom a config is from, and so what may be built of it.

    Attributes:
        of: whose it is, for errors, e.g. "ckpt: FILE"; None: the user's own, of which anything may be built.
        packages: packages or dotted paths that the user trusts (`trust=…`).
        said: keys of the config that the user's own command line has given, whatever the rest is.
    """

    of: str | None
    packages: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    def check(self, slot: str, node: Mapping[str, object]) -> None:
        """Checks a node's keys and the text of its target, before what it names is imported.

        Raises:
            UserError: this slot takes no such thing from a stranger.
        """
        if self.of is None:
            return
        known = _KEYS.get(slot)
        for key in node:
            if self._is_said(f"{slot}.{key}"):
                continue
            if key.startswith("_") and key != "_target_":
                raise UserError(
                    f"{self.of} has the key {slot}.{shown(key)}, which decides how things are built; refused"
                )
            if known is not None and key not in known:
                raise UserError(f"{self.of} has the key {slot}.{shown(key)}, which only you may give; refused")
        target = node["_target_"]
        if not (self._is_said(f"{slot}._target_") or self._allows(slot, target)):
            raise UserError(
                f"{self.of} wants to build {shown(repr(target))} ({slot}._target_), which is none of this program's parts "
                f"there; if you trust it, name its package: {_said_again(target, self.packages)}"
            )

    def check_object(self, slot: str, target: str, found: object) -> None:
        """Checks what a target's text turned out to name.

        Raises:
            UserError: it is something else than the text says.
        """
        if self.of is None or self._is_said(f"{slot}._target_") or target in options(slot):
            return
        if self.covers(target):
            home = str(getattr(found, "__module__", ""))
            if not self.covers(home) and not self.covers(f"{home}.{getattr(found, '__qualname__', '')}"):
                raise UserError(
                    f"{self.of} wants to build {target!r} ({slot}._target_), which is of {home or 'no module'!r}; if you "
                    f"trust that too, name it: {_said_again(home, self.packages)}"
                )
            return
        family_of = _family(slot)
        assert family_of is not None
        _, module, base = family_of
        family = getattr(__import__(module, fromlist=[base]), base)
        if not (inspect.isclass(found) and issubclass(found, family)):
            raise UserError(f"{self.of} wants to build {target!r} ({slot}._target_), which is no {base}; refused")

    def covers(self, target: str) -> bool:
        """Whether a dotted path is of a package that the user trusts."""
        return any(target == trusted or target.startswith(f"{trusted}.") for trusted in self.packages)

    def keeps_state_of(self, callback: object) -> bool:
        """Whether a callback may be given the state that a checkpoint has for it."""
        target = f"{type(callback).__module__}.{type(callback).__qualname__}"
        public = f"lightning.pytorch.callbacks.{type(callback).__qualname__}"
        ours = target.startswith("src.") or (target.startswith("lightning.") and public in _HARMLESS["callbacks.*"])
        return ours or self.covers(target)

    def _allows(self, slot: str, target: object) -> bool:
        if not isinstance(target, str):
            return False
        family = _family(slot)
        return target in options(slot) or self.covers(target) or bool(family and family[0].fullmatch(target))

    def _is_said(self, path: str) -> bool:
        return any(path == key or path.startswith(f"{key}.") for key in self.said)


def _family(slot: str) -> tuple[re.Pattern[str], str, str] | None:
    return _FAMILIES.get(re.sub(r"^metrics\.[^.]+$", "metrics.*", slot))


def _said_again(target: object, packages: Sequence[str]) -> str:
    """`trust=…` with, where a target is of a package that this machine's user wrote, its name and the whole command again. Of
    Python's own modules and of installed libraries no name is offered: a stranger's file would choose what is typed."""
    package = str(target).partition(".")[0]
    if not package.isidentifier() or package in {"src", *sys.stdlib_module_names}:
        return "trust=…"
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    places = [] if found is None else [*(found.submodule_search_locations or []), found.origin or ""]
    if not places or any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places):
        return "trust=…"
    trusted = f"trust={','.join(dict.fromkeys([*packages, package]))}"
    started = sys.orig_argv[1:]
    if "-m" not in started or not started[started.index("-m") + 1 :][0].startswith("src."):
        return trusted
    given = [a for a in started if not a.startswith("trust=")]
    return f"{trusted} (python {shlex.join([*given, trusted])})"


OWN = Trust(None)
STRANGER = Trust("this config")


def split_packages(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The packages of `trust=a,b` or `trust=[a,b]`.

    Raises:
        UserError: one of them is no dotted name.
    """
    parts = given.strip("[]").split(",") if isinstance(given, str) else list(given or [])
    named = tuple(part.strip() for part in parts if part.strip() and part.strip() != "null")
    for name in named:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"trust: {name!r} is no package; name packages or dotted paths, e.g. trust=mypackage")
    return named


def check_targets(settings: Mapping[str, object], trust: Trust, at: str = "") -> None:
    """Checks everything that would be built of a config, before anything is; `src.training.build.make` checks it again.

    Args:
        settings: plain containers, interpolations resolved.
        at: the slot that they are of, "data" say; "" for a whole config.

    Raises:
        UserError: the first thing that may not be.
    """
    for slot, node in nodes(settings, at):
        trust.check(slot, node)


def nodes(value: object, slot: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every node that names a target or says how it is called, with its slot: `data.augment` say."""
    if isinstance(value, Mapping):
        if "_target_" in value or any(str(key).startswith("_") for key in value):
            yield slot, value if "_target_" in value else {**value, "_target_": None}
        for key, inner in value.items():
            yield from nodes(inner, f"{slot}.{key}" if slot else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from nodes(inner, slot)


def options(slot: str) -> frozenset[str]:
    """The targets that this program itself offers in a slot."""
    group, _, rest = slot.partition(".")
    if group in _ANY_NAME and rest:
        _, _, below = rest.partition(".")
        slot = f"{group}.*.{below}" if below else f"{group}.*"
    if slot == "loss.terms":  # of a sum: whatever may be the loss
        slot = "loss"
    return _offered().get(slot, frozenset()) | _HARMLESS.get(slot, frozenset())


def _files_of(group: str) -> list[Path]:
    """A group's options, and what they have in common."""
    return [*sorted((_CONF / group).glob("*.yaml")), *(_CONF / "hydra/base").glob(f"{group}.yaml")]


@functools.cache
def _offered() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for group in (*GROUPS, *_GLOBAL):
        for file in _files_of(group):
            try:
                content = read_yaml(file)
            except UserError:  # a file of the user's that is more than plain data offers nothing to strangers
                continue
            for slot, node in nodes(content, "" if group in _GLOBAL else group):
                top, _, rest = slot.partition(".")
                if top in _ANY_NAME and rest:
                    _, _, below = rest.partition(".")
                    slot = f"{top}.*.{below}" if below else f"{top}.*"
                if isinstance(node["_target_"], str):
                    found.setdefault(slot, set()).add(node["_target_"])
    return {slot: frozenset(targets) for slot, targets in found.items()}


@functools.cache
def own_interpolations() -> frozenset[str]:
    """The texts with `${` that this program's own configs of a run have, word for word."""
    found: set[str] = set()
    for group in (*GROUPS, *_GLOBAL):
        for file in _files_of(group):
            try:
                written = read_text(file)
                if "${" in written:
                    found.update(text for _, text in texts(plain_yaml(written, str(file))) if "${" in text)
            except UserError:
                continue
    return frozenset(found)


def texts(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in plain containers, with the path of its keys."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from texts(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from texts(value, f"{path}.{number}" if path else str(number))
