"""Writes a run's provenance beside its training: a run waits for nothing of it, and nothing of it ends a run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook

from src.data.fingerprint import How, Stopped, fingerprint
from src.data.sources import Source
from src.files.atomic import write_atomically
from src.provenance import record, surroundings
from src.provenance.code import code_of, packages_of, patch_of
from src.provenance.record import Fingerprint, Record
from src.storage import run_folder

_log = logging.getLogger(__name__)
_SECONDS = 5  # that a stopped recorder may take to notice
_FIRST_STEP = 5  # seconds that the recorder waits for the run's first step, which it would slow down


def made_with(config: Mapping[str, object], trusted: Collection[str] = (), began: datetime | None = None) -> Record:
    """What is there now, all but the device and the data.

    Args:
        config: plain containers; the user's own packages that it names are looked at too.
        trusted: packages that the user trusts.
        began: when the run did; None for now.
    """
    return Record(
        time=(began or datetime.now(UTC)).isoformat(timespec="seconds"), command=surroundings.command(),
        program=surroundings.program_version(), python=surroundings.python(),
        code={package.name: code_of(package) for package in packages_of(config, trusted)},
        packages=surroundings.packages(), hardware=surroundings.hardware(), environment=surroundings.environment(),
    )  # fmt: skip


def fingerprints(
    sources: Mapping[str, Source], root: str | None, how: How = "auto", wanted: Mapping[str, Collection[str]] | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> dict[str, Fingerprint]:  # fmt: skip
    """The fingerprint of each split; see `src.data.fingerprint.fingerprint`."""
    return {
        split: Fingerprint.model_validate(
            asdict(fingerprint(source, root, how, None if wanted is None else wanted.get(split, ()), go_on))
        )
        for split, source in sources.items()
    }


class Recorder:
    """Makes provenance.json and code.patch in a thread of its own, after the run's first step: first all that is told at once,
    then with the data.

    Args:
        run_dir: the run's folder.
        config: the run's, as plain containers.
        trusted: packages that the user trusts.
        sources: the splits.
        root: `data.root`.
        how: how much of the data is hashed.
        complete: adds the device.
        resume: whether the run goes on: what was written before is kept beside.
    """

    def __init__(
        self, run_dir: Path, config: Mapping[str, object], trusted: Collection[str], sources: Mapping[str, Source],
        root: str | None, how: How, complete: Callable[[Record], Record], resume: bool,
    ) -> None:  # fmt: skip
        self._run_dir, self._config, self._trusted, self._complete = run_dir, config, trusted, complete
        self._sources, self._root, self._how, self._resume = sources, root, how, resume
        self._began = datetime.now(UTC)
        self._stopped, self._stepped = threading.Event(), threading.Event()
        self._hook = register_optimizer_step_post_hook(lambda *_: self._stepped.set())
        self._thread = threading.Thread(target=self._work, name="provenance", daemon=True)
        self._thread.start()

    def close(self, wait: bool) -> None:
        """Ends it: once all is written, or soon, without the data, where the run may not wait."""
        if not wait:
            self._stopped.set()
        self._hook.remove()
        self._stepped.set()
        self._thread.join(None if wait else _SECONDS)

    def _work(self) -> None:
        try:
            self._stepped.wait(_FIRST_STEP)
            made = self._complete(made_with(self._config, self._trusted, self._began))
            text, patch = patch_of(packages_of(self._config, self._trusted))
            made = made.model_copy(update={"patch": patch})
            if self._resume:
                record.keep_earlier(self._run_dir)
            if text:
                write_atomically(self._run_dir / run_folder.PATCH, lambda stream: stream.writelines([text]))
            record.write(self._run_dir, made)
            data = fingerprints(self._sources, self._root, self._how, go_on=lambda: not self._stopped.is_set())
            record.write(self._run_dir, made.model_copy(update={"data": data}))
        except Stopped:
            pass
        except Exception as error:
            _log.warning(
                "%s is not complete (%s: %s); the run goes on", run_folder.PROVENANCE, type(error).__name__, error
            )
