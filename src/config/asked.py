"""What a command is told, typed: its fields are the schema of its config."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from typing import Self

from src.config.check import check_keys
from src.config.parts import Config, Node, filled, types_of


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The keys of a command, each a field with its type and range. A group is a field that is a part, or a plain node."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """What a composed config asks for.

        Raises:
            UserError: the first thing that is wrong in it.
        """
        check_keys(config, {key: Node if is_dataclass(kind) else kind for key, kind in types_of(cls).items()})
        asked = filled(cls, config)
        asked.check()
        return asked

    def check(self) -> None:
        """Checks what no single key's type can tell.

        Raises:
            UserError: it is wrong, with the mend.
        """
