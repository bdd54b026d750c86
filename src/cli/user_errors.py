"""How a command ends: a user's mistake is one line and status 2, a signal is status 130; neither shows a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

import src.which_src
from src.cli.output import Steady, steady, was_read
from src.errors import Interrupted, UserError, absent_package, of_a_file
from src.files.untrusted import shown

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130
_LONGEST = 4000  # characters of a message, some of which list all options


def shows_tracebacks() -> bool:
    """Whether the user wants to see where an error comes from."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def as_mistake(error: Exception) -> UserError | None:
    """What an error says to a user who can mend it; None where it is a fault of the program's."""
    return error if isinstance(error, UserError) else of_a_file(error) or absent_package(error)


def report_user_errors(
    action: Callable[[], None], say: Callable[[Exception], str] = str, only_prints: bool = False
) -> None:
    """Runs `action`; an error that the user can mend is printed in words, without a traceback, and ends with status 2.

    Output that cannot be written ends nothing. A reader that has gone (`| head`) has seen enough; any other cause is said.

    Args:
        say: the words for an error of Hydra's or OmegaConf's.
        only_prints: whether what is printed is what the command is for: lost, it ends with status 1.
    """
    src.which_src.hand_on()
    full = shows_tracebacks()
    with steady() as (out, _):
        try:
            action()
            _say_if_lost(out, only_prints)
        except SystemExit as end:  # of Hydra's, after --help
            if not end.code:
                _say_if_lost(out, only_prints)
            raise
        except Interrupted as stop:
            print(f"interrupted ({stop})", file=sys.stderr)
            sys.exit(INTERRUPTED_STATUS)
        except Exception as error:
            of_config = isinstance(error, UserError | HydraException | OmegaConfBaseException)
            told = say(error) if of_config and not full else as_mistake(error)
            if full or told is None:
                raise
            print(f"error: {shown(str(told), _LONGEST)}", file=sys.stderr)
            sys.exit(USER_ERROR_STATUS)
        finally:
            if not full:
                os.environ.pop("HYDRA_FULL_ERROR", None)


def _say_if_lost(out: Steady, only_prints: bool) -> None:
    out.flush()
    if not was_read(out):
        print(
            f"{'error' if only_prints else 'warning'}: what was printed is lost, since standard output cannot be written "
            f"({getattr(out.lost, 'strerror', out.lost)}); all else is done",
            file=sys.stderr,
        )
        if only_prints:
            sys.exit(1)


def end_with(failed: Sequence[str], listed: int | None = None) -> None:
    """Prints what went wrong with single inputs, a line each, and ends with status 1 if anything did.

    Args:
        listed: the most lines; None prints all.
    """
    for line in failed[:listed]:
        print(f"error: {line}", file=sys.stderr)
    if listed is not None and len(failed) > listed:
        print(f"error: and {len(failed) - listed} more", file=sys.stderr)
    if failed:
        sys.exit(1)
