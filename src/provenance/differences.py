"""In what two records differ, in words that name it: a file of the code, a package, a file of the data, the device."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src.errors import UserError
from src.files.untrusted import shown
from src.provenance import record, surroundings
from src.provenance.code import Package, code_of, lines_changed, packages_of
from src.provenance.record import Code, Fingerprint, Record

Kind = Literal["code", "package", "data", "device", "precision", "environment"]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was: of what kind, and which, with what was and what is."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {shown(self.text)}"


def of_code(then: Record, now: Record, packages: Iterable[Package]) -> list[Difference]:
    """Files of the code, of the packages that are looked at."""
    found: list[Difference] = []
    for package in packages:
        was, is_ = then.code.get(package.name), now.code.get(package.name)
        if was is not None and is_ is not None:
            found += [Difference("code", text) for text in _files(package, was, is_)]
    return found


def of_packages(then: Record, now: Record) -> list[Difference]:
    """Packages by their versions, and Python's."""
    found = [("python", then.python, now.python)] if then.python != now.python else []
    before, after = ({_canonical(name): (name, v) for name, v in one.packages.items()} for one in (then, now))
    for key in sorted({*before, *after}):
        name = (after.get(key) or before[key])[0]
        was, is_ = (side[key][1] if key in side else None for side in (before, after))
        if was != is_:
            found.append((name, was or "not there", is_ or "not there"))
    return [Difference("package", f"{name} {was} then, {is_} now") for name, was, is_ in found]


def of_device(then: Record, now: Record) -> list[Difference]:
    """Device, hardware, precision, and the environment."""
    found = []
    if then.device is not None and now.device is not None:
        was, is_ = then.device, now.device
        if (was.accelerator, was.devices) != (is_.accelerator, is_.devices):
            text = f"{was.devices} x {was.accelerator} then, {is_.devices} x {is_.accelerator} now"
            found.append(Difference("device", text))
        if was.precision != is_.precision:
            found.append(Difference("precision", f"{was.precision} then, {is_.precision} now"))
    for key in ("cpu", "gpus", "cuda", "cudnn"):
        before, after = then.hardware.get(key), now.hardware.get(key)
        if before != after and not (key != "cpu" and None in (before, after)):
            found.append(Difference("device", f"{key}: {before} then, {after} now"))
    for name in sorted({*then.environment, *now.environment}):
        before, after = then.environment.get(name, "not set"), now.environment.get(name, "not set")
        if before != after:
            found.append(Difference("environment", f"{name}: {before} then, {after} now"))
    return found


def of_data(then: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> list[Difference]:
    """Files, or samples, of each split."""
    return [
        Difference("data", f"{split}: {text}")
        for split, was in then.items()
        for text in (_split(was, now[split]) if split in now else ["cannot be opened"])
    ]


def made_otherwise(run_dir: Path, trusted: Sequence[str] = ()) -> str | None:
    """On one line in what code and packages differ from those that a run was made with; None where they do not, or where that
    is not known.

    Args:
        trusted: packages of the user's whose code is compared too.
    """
    try:
        then = record.read(run_dir)
    except UserError as error:
        return str(error)
    if then is None:
        return None
    looked_at = packages_of({}, trusted)
    now = Record(
        python=surroundings.python(), packages=surroundings.packages(), code={p.name: code_of(p) for p in looked_at}
    )
    found = [*of_code(then, now, looked_at), *of_packages(then, now)]
    if not found:
        return None
    return f"{run_dir} was made with other code or packages: {in_brief(found)}; python -m src.verify {run_dir} says all"


def in_brief(found: Collection[Difference], most: int = 3) -> str:
    """The first few on one line."""
    texts = [shown(one.text) for one in found]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _files(package: Package, was: Code, is_: Code) -> Iterable[str]:
    for name in sorted({*was.files, *is_.files}):
        before, after = was.files.get(name), is_.files.get(name)
        if before is None or after is None:
            yield f"{name} is new" if before is None else f"{name} is gone"
        elif before != after:
            yield f"{name} was edited{lines_changed(package, was, name)}"


def _split(was: Fingerprint, is_: Fingerprint) -> Iterable[str]:
    named = False
    for name, (size, digest) in sorted(was.hashed.items()):
        if name not in is_.hashed:
            yield f"{name} is gone"
        elif is_.hashed[name] != (size, digest):
            bytes_ = "" if size == is_.hashed[name][0] else f" ({size:,} bytes then, {is_.hashed[name][0]:,} now)"
            yield f"{name} has other content{bytes_}"
        else:
            continue
        named = True
    if was.samples != is_.samples:
        yield f"{was.samples} samples then, {is_.samples} now"
    elif was.names != is_.names:
        yield "other names of samples"
    elif was.sizes != is_.sizes and not named:
        yield "a file that was not hashed has another size (fingerprint=all, in training, hashes each)"


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
