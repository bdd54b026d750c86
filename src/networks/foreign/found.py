"""What a peer's file gives: tensors by this program's names, and what its last layer's rows are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from src.config.parts import Part
from src.errors import UserError

CORE = "core."  # stands before the names of a network's own part
_OURS = "src.networks."


@dataclass(frozen=True)
class Foreign:
    """Weights of a model that another program made.

    Attributes:
        origin: where they are from, for what is said of them.
        state: by the names of a `SegmentationNetwork`; what has none there keeps the name it had.
        classes: what the rows of the last layer stand for; None where the file does not say.
        remarks: what else there is to know, a line each.
    """

    origin: str
    state: dict[str, Tensor]
    classes: list[str] | None = None
    remarks: tuple[str, ...] = ()


def check_network(network: Part, origin: str, name: str | None, keys: Mapping[str, object]) -> None:
    """Checks that a run's network is the one that weights are of. A network of the user's own is not held against it.

    Args:
        name: of the function that builds it; None where only the keys count.

    Raises:
        UserError: it is another one, with the overrides that would fit.
    """
    own = {key: value.removeprefix("tu-") if isinstance(value, str) else value for key, value in network.node.items()}
    others = [key for key, value in keys.items() if own.get(key) != value]
    if network.target.startswith(_OURS) and (others or name not in (None, network.name)):
        raise UserError(f"init_from: {origin} is of another network; take {overrides_of(name, keys)}")


def overrides_of(name: str | None, keys: Mapping[str, object]) -> str:
    """A network's choice and keys as they are typed."""
    chosen = [] if name is None else [f"network={name}"]
    return " ".join([*chosen, *(f"network.{key}={typed(value)}" for key, value in keys.items())])


def typed(value: object) -> str:
    """A value as it is typed behind a key."""
    return "null" if value is None else str(value).replace(" ", "")


class Table:
    """Names of one program and what they are called in ours.

    A name's `{s}` and `{b}` are numbers; in ours `{n}` is the stage counted from one, `{d}` counted from the deepest of four.
    What follows the name in a key (`.weight`, `.bias`, a batch norm's averages) stays.
    """

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._rows = [
            (re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(theirs)) + r"(?P<rest>\.\w+)"), ours)
            for theirs, ours in rows.items()
        ]

    def ours(self, key: str) -> str | None:
        """A key's name in this program; None where the table has no row for it."""
        for pattern, name in self._rows:
            if match := pattern.fullmatch(key):
                numbers = {group: int(value) for group, value in match.groupdict().items() if group != "rest"}
                stage = numbers.get("s", 0)
                return name.format(**numbers, n=stage + 1, d=3 - stage) + match["rest"]
        return None

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by our names; those without a row keep their own."""
        return {CORE + ours if (ours := self.ours(key)) is not None else key: value for key, value in state.items()}


def as_text(names: object) -> list[str] | None:
    """A list of class names that a file brings, None where it is none."""
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        return None
    return [str(name) for name in names] if all(isinstance(name, str) for name in names) else None
