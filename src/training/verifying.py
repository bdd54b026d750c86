"""Whether a run's recorded scores come out again, and in what this code, machine and data differ from those of then."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src.config.evaluation import Evaluation
from src.config.parts import Node, Paths
from src.data.sources import Source
from src.errors import UserError
from src.files.untrusted import shown
from src.provenance import differences, record
from src.provenance.code import packages_of
from src.provenance.differences import Difference
from src.provenance.record import Device, Record
from src.provenance.recorder import fingerprints, made_with
from src.storage import run_folder
from src.storage.trust import split_packages
from src.training import machine
from src.training.scoring import Opened, open_checkpoint, score

OFF_CPU = 0.001  # how far a score made on an accelerator, or on several devices, may be from the recorded one
_LISTED = 20
_SPLITS: tuple[Literal["val", "test"], ...] = ("val", "test")


@dataclass(frozen=True)
class Score:
    """One score, e.g. "val/miou", as it was recorded and as it is now; None where it is not there."""

    name: str
    then: float | None
    now: float | None

    def agrees(self, tolerance: float) -> bool:
        """A loss, which has no unit, may differ by a share of itself."""
        if self.then is None or self.now is None:
            return self.then == self.now
        scale = max(1.0, abs(self.then)) if self.name.endswith("loss") else 1.0
        return self.then == self.now or abs(self.then - self.now) <= tolerance * scale


def verified(
    run: str, data: Node, trainer: Node, tolerance: float | None = None, trust: Sequence[str] | None = None
) -> bool:
    """Scores the best checkpoint of a run again and prints what came of it; see `src.verify`."""
    run_dir = Path(run).expanduser()
    if not run_dir.is_dir():
        raise UserError(f"run: there is no folder {run_dir}; give a run folder")
    run_folder.check_own(run_dir, run_folder.OWN)
    recorded = run_folder.read_metrics(run_dir) or {}
    splits = [split for split in _SPLITS if isinstance(recorded.get(split), Mapping) and recorded[split]]
    if not splits:
        raise UserError(
            f"run: {run_dir} has no scores of val or test in {run_folder.METRICS}; there is nothing to verify"
        )
    then = record.read(run_dir)
    packages = split_packages(trust)
    opened = open_checkpoint(_evaluation(run_dir, splits, data, trainer, trust))
    kind = _accelerator(opened)
    device = Device(accelerator=kind, devices=1, precision=str(opened.on.precision))
    now = machine.with_device(made_with({}, packages), device)
    found = _differences(then, now, opened, packages)
    with tempfile.TemporaryDirectory() as written:
        asked = _evaluation(run_dir, splits, data, trainer, trust, written)
        results = score(asked, prints=False, opened=opened)
    exact = kind == "cpu" and (
        then is None or then.device is None or (then.device.accelerator, then.device.devices) == ("cpu", 1)
    )
    most = tolerance if tolerance is not None else 0.0 if exact else OFF_CPU
    scores = [one for split in splits for one in _scores(split, recorded[split], results[split])]
    wrong = [one for one in scores if not one.agrees(most)]
    _tell(run_dir, then, scores, wrong, most, device, found)
    return not wrong


def _evaluation(
    run_dir: Path, splits: list[Literal["val", "test"]], data: Node, trainer: Node, trust: Sequence[str] | None,
    output: str = "",
) -> Evaluation:  # fmt: skip
    asked = Evaluation(
        ckpt=str(run_dir), splits=splits, data=data, trainer={**trainer, "devices": 1, "strategy": "auto"}, inference={},
        metrics={"of": []}, bootstrap={"samples": 0, "group": None, "seed": 0}, calibrate=False, output=None,
        paths=Paths(output_dir=output), trust=None if trust is None else list(trust),
    )  # fmt: skip
    asked.check()
    return asked


def _accelerator(opened: Opened) -> str:
    import torch

    if opened.on.accelerator == "cpu":
        return "cpu"
    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else found.type


def _differences(then: Record | None, now: Record, opened: Opened, packages: Sequence[str]) -> list[Difference]:
    if then is None:
        return []
    found: list[Difference] = []
    if then.data is not None:
        sources = {split: source for split in then.data if (source := _source(opened, split)) is not None}
        wanted = {split: one.hashed.keys() for split, one in then.data.items()}
        found += differences.of_data(then.data, fingerprints(sources, opened.root, wanted=wanted))
    found += differences.of_code(then, now, packages_of({}, packages))
    return found + differences.of_packages(then, now) + differences.of_device(then, now)


def _source(opened: Opened, split: str) -> Source | None:
    """A split of the data; None where it is not there any more."""
    try:
        if split in ("train", "val", "test"):
            source = opened.datamodule.source(split)  # type: ignore[arg-type]
            return source if source.split == split else None
    except UserError:
        pass
    return None


def _scores(split: str, then: Mapping[str, object], now: Mapping[str, float]) -> list[Score]:
    def number(value: object) -> float | None:
        return float(value) if isinstance(value, int | float) and value == value else None

    return [
        Score(f"{split}/{key}", number(then.get(key)), number(now.get(key))) for key in dict.fromkeys([*then, *now])
    ]


def _tell(
    run_dir: Path, then: Record | None, scores: list[Score], wrong: list[Score], most: float, device: Device,
    found: list[Difference],
) -> None:  # fmt: skip
    how = "to the digit" if most == 0 else f"within {most:g}"
    where = f"on one {device.accelerator} device, {device.precision}"
    if wrong:
        print(f"not verified: {run_dir}: {len(wrong)} of {len(scores)} scores do not come out again {how}, {where}")
        for one in wrong[:_LISTED]:
            print(f"  {shown(one.name)}: {one.then} recorded, {one.now} now")
        if len(wrong) > _LISTED:
            print(f"  and {len(wrong) - _LISTED} more")
    else:
        print(f"verified: {run_dir}: {len(scores)} scores come out again {how}, {where}")
    if found:
        print("what is different now:" if wrong else "different now, without a change of the scores:")
        for difference in found[:_LISTED]:
            print(f"  {difference}")
        if len(found) > _LISTED:
            print(f"  and {len(found) - _LISTED} more")
    elif then is None:
        print(f"the run has no {run_folder.PROVENANCE}, which says with what it was made; earlier versions wrote none")
    elif wrong:
        print("nothing that was recorded is different now" + _not_hashed(then))
    if then is not None and then.data is None:
        print(f"{run_folder.PROVENANCE} says nothing of the data: the run ended before that was hashed")


def _not_hashed(then: Record) -> str:
    parts = [
        f"{len(one.hashed)} of {one.files if one.of == 'files' else one.samples} {one.of} of {split}"
        for split, one in (then.data or {}).items()
        if len(one.hashed) < (one.files if one.of == "files" and one.files else one.samples)
    ]
    return (
        f", but of the data only {', '.join(parts)} were hashed (fingerprint=all, in training, hashes each)"
        if parts
        else ""
    )
