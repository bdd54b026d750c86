"""Compares what a model was trained on with what it is given: kind of image, how it was read, samples, classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hydra.utils import get_object

from src.config.parts import Node
from src.config.settings import Trained
from src.config.signatures import own_signature
from src.data.folds import is_held_out
from src.data.labels import LabelSet
from src.data.layout.splits import Drawn
from src.data.readers.volume import OF_CT
from src.data.samples import Split
from src.data.sources import Source, digest, innermost
from src.errors import UserError
from src.files.untrusted import shown

CHECKPOINT_KEY = "segmenter"  # where a Lightning checkpoint holds what makes it a segmenter's
_WORD = re.compile(r"[A-Za-z0-9]{1,16}")


@dataclass(frozen=True)
class Images:
    """The images that a model takes, or that a source gives.

    Args:
        channels: of each.
        intensity: lowest and highest value that is told apart; (0, 255) for 8 bits.
        dtype: of the files' values, e.g. "uint16"; None where unknown (an old checkpoint) or of no matter, since values
            have a unit of their own.
        modality: DICOM's word, e.g. "CT"; None where unknown.
    """

    channels: int
    intensity: tuple[float, float]
    dtype: str | None = None
    modality: str | None = None

    @classmethod
    def of_checkpoint(cls, about: Mapping[str, Any]) -> Images:
        """What a checkpoint says; files of older versions say less.

        Raises:
            ValueError: a word is none, in a stranger's file.
        """
        low, high = about["intensity"]
        words = [about.get(key) for key in ("dtype", "modality")]
        if any(word is not None and not (isinstance(word, str) and _WORD.fullmatch(word)) for word in words):
            raise ValueError("dtype or modality")
        return cls(int(about["channels"]), (float(low), float(high)), *words)

    @classmethod
    def of_source(cls, source: Source) -> Images:
        """What a split gives: its own word for the dtype where it has one, else that of its first sample."""
        inner = innermost(source)
        known = hasattr(inner, "dtype")
        dtype = inner.dtype if known else str(source.read(0)[0].dtype).removeprefix("torch.")  # type: ignore[attr-defined]
        low, high = source.intensity
        return cls(source.channels, (float(low), float(high)), dtype, getattr(inner, "modality", None))

    @property
    def expects(self) -> str | None:
        """The modality: a range that begins far below 0 is in Hounsfield units where the data did not say."""
        return self.modality or ("CT" if self.intensity[0] <= OF_CT and self.dtype is None else None)

    def contradiction(self, given: Images, other: str = "the model was trained on") -> str | None:
        """Why these images cannot be taken where ours were, in words; None where they can.

        Args:
            other: what ours are, as the words have it.
        """
        if given.channels != self.channels:
            return f"{given.channels} channel{'' if given.channels == 1 else 's'} but {other} {self.channels}"
        if depth := self.other_depth(given.dtype, other):
            return f"values of {depth}"
        if given.intensity != self.intensity:
            return f"values from {_range(given.intensity)} but {other} {_range(self.intensity)}"
        return self.other_modality(given.modality, other)

    def other_depth(self, dtype: str | None, other: str = "the model was trained on") -> str | None:
        """Why values of this dtype cannot be taken: 8 bits where it was more, or the reverse, look all alike to a model."""
        if dtype is None:
            return None
        eight = dtype == "uint8"
        if self.dtype is not None:
            differs = (self.dtype == "uint8") != eight
        else:  # an old checkpoint, or values with a unit
            differs = self.intensity[1] > 255 if eight else self.intensity == (0.0, 255.0)
        ours = "8 bits" if not eight else f"{self.dtype or 'more than 8 bits'} from {_range(self.intensity)}"
        return f"{dtype} but {other} {ours}" if differs else None

    def other_modality(self, modality: str | None, other: str = "the model was trained on") -> str | None:
        """Why images of this modality cannot be taken."""
        if modality is None or self.expects in (None, modality):
            return None
        why = "" if self.modality else f" (values from {_range(self.intensity)})"
        return f"modality {modality} but {other} {self.expects}{why}"

    def doubt(self, given: Images) -> str | None:
        """What is worth a word though it may fit."""
        if None in (self.dtype, given.dtype) or self.dtype == given.dtype:
            return None
        return (
            f"values of {given.dtype} but the model was trained on {self.dtype}; they are taken as they are, from "
            f"{_range(self.intensity)}"
        )


def check_alike(sources: Mapping[str, Source]) -> None:
    """Checks that the splits of a data set hold images of one kind.

    Raises:
        UserError: two do not.
    """
    (first, source), *others = sources.items()
    ours = Images.of_source(source)
    for split, its in others:
        given, other = Images.of_source(its), f"the split {first!r} has"
        reason = ours.contradiction(given, other)
        if reason is None and ours.dtype != given.dtype:
            reason = f"values of {given.dtype} but {other} {ours.dtype}"
        if reason is not None:
            raise UserError(f"data: the split {split!r} has {reason}; convert one, so that all splits are alike")


def other_samples(source: Source, known: Sequence[object]) -> str | None:
    """Why a split is not the one that a checkpoint knows, in words that follow "it has"; None where it is.

    Args:
        known: how many samples that had, and their digest.
    """
    return difference([len(source), digest(source)], known)


def difference(now: Sequence[object], known: Sequence[object]) -> str | None:
    """The same of two numbers of samples, each with a digest."""
    if list(now) == list(known):
        return None
    if now[0] == known[0]:
        return "other names than it had"
    return f"{now[0]} samples where it had {shown(str(known[0]), 20)}"


def check_same(known: Mapping[str, Sequence[object]], now: Mapping[str, Sequence[object]], drawn: bool) -> None:
    """Checks that a run goes on with the samples that it began with, by part: their number, and a digest.

    Args:
        drawn: whether the data's splits are drawn; the run's weights may then have learnt from what is val now.

    Raises:
        UserError: they are others, so that their order would be another.
    """
    mend = "start anew from the run's weights: init_from=RUN_DIR"
    if drawn:
        mend = "if it began with version 0.1, which drew splits by another rule, go on with that; or start anew: "
        mend += "python -m src.train like=RUN_DIR"
    for part, then in known.items():
        if (what := difference(now.get(part, [0, ""]), then)) is not None:
            raise UserError(f"data.root: the {part} data has {what} when the run began; put them back, or {mend}")


def is_drawn(source: Source) -> bool:
    inner = innermost(source)
    return isinstance(inner, Drawn) and inner.drawn


def check_unseen(
    source_of: Callable[[Split], Source],
    scored: Sequence[Split],
    known: Mapping[str, Sequence[object]],
    checkpoint: str,
) -> list[str]:
    """Checks that the splits that are scored, of a checkpoint's own data, hold nothing that the model was trained on.

    Args:
        source_of: gives the source of a split.
        known: what the checkpoint knows of the run's "training" and "validation" data: how many samples, and a digest.

    Returns:
        What is worth a word: the data merely changed, or it is not known what a drawn split was.

    Raises:
        UserError: a split that is drawn is another share than it was.
    """
    notes: list[str] = []
    for split in scored:
        held_out = is_held_out(source_of(split))
        drawn = held_out or is_drawn(source_of(split))
        if not drawn and source_of(split).split != "val":
            continue  # a test split in a place of its own, of which no checkpoint knows
        of_val = not held_out and (source_of(split).split == "val" or is_drawn(source_of("val")))
        part = "validation" if of_val else "training"
        if part not in known:
            if drawn:
                notes.append(
                    f"{checkpoint} does not say which images were its {split} data; they are drawn, and may be others now, "
                    "also some that it was trained on"
                )
            continue
        reason = other_samples(source_of("val" if of_val else "train"), known[part])
        if reason is not None and drawn:
            raise UserError(
                f"ckpt: the {part} data of {checkpoint} has {reason} in training, and the split {split!r} is drawn (by another "
                "rule before version 0.2), so it may hold images that the model learnt from; score it with the version and the "
                "data of then, train anew (python -m src.train like=RUN_DIR), or give images that it has not seen: data=… "
                "data.root=…"
            )
        if reason is not None:
            notes.append(f"the {part} data of {checkpoint} has {reason} in training; its scores then were of those")
    return notes


def typed_keys(overrides: Sequence[str]) -> frozenset[str]:
    """The keys that a command line names: `data.dataset.window` of `data.dataset.window=[40,400]`."""
    return frozenset(override.partition("=")[0].lstrip("+~") for override in overrides)


def as_trained(
    chosen: Mapping[str, object], trained: Mapping[str, object], keys: Sequence[str], typed: Collection[str]
) -> tuple[dict[str, object], list[str], list[str]]:
    """A data set's settings with those of a checkpoint's that belong to the model, since what bears on how images look to the
    network is as it was trained, but for what the user typed.

    Args:
        chosen: the settings of `data.dataset`.
        trained: those in the checkpoint. They may be a stranger's: what comes of them is to be checked.
        keys: those that belong to the model.
        typed: keys of the whole config that the user typed.

    Returns:
        The settings; `key=value` of what was taken from the checkpoint; and of what was typed otherwise than trained.
    """
    merged, taken, otherwise = dict(chosen), [], []
    for key in keys:
        if key not in trained or chosen.get(key) == trained[key]:
            continue
        if _is_typed(f"data.dataset.{key}", typed):
            otherwise.append(f"data.dataset.{key}={_short(chosen.get(key))} (trained with {_short(trained[key])})")
        else:
            merged[key] = trained[key]
            taken.append(f"data.dataset.{key}={_short(trained[key])}")
    return merged, taken, otherwise


def differences(trained: Mapping[str, Any], images: Images, dataset: Mapping[str, Any]) -> list[str]:
    """In what a run's images differ from those of the checkpoint that it starts from, in words.

    Args:
        trained: what the checkpoint says of itself; may be a stranger's.
        images, dataset: the run's images, and its settings `data.dataset`.
    """
    theirs = Images.of_checkpoint(trained)
    reason = theirs.contradiction(images) or theirs.doubt(images)
    before = Trained.of(trained.get("config") or {}).dataset.node
    keys = getattr(get_object(dataset["_target_"]), "HOW_READ", ())
    _, _, otherwise = as_trained(dataset, before, keys, [f"data.dataset.{key}" for key in keys])
    return [*([f"the data have {reason}"] if reason else []), *otherwise]


def how_read(images: Images, dataset: Node) -> dict[str, object]:
    """What another program must know to give a checkpoint's network the images that it was trained on: their kind, and the
    keys by which they were read (window, spacing, bands …).

    Args:
        dataset: the checkpoint's `data.dataset`; may be a stranger's.
    """
    target = dataset.get("_target_")
    keys: Sequence[str] = ()
    if isinstance(target, str) and target.startswith("src.data.") and own_signature(target) is not None:
        keys = getattr(get_object(target), "HOW_READ", ())
    return asdict(images) | {key: dataset[key] for key in keys if key in dataset}


def labels_in_order(labels: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    """Label values by class, in the order of `names` where all of them are among these."""
    return {name: labels[name] for name in names if name in labels} if set(labels) <= set(names) else dict(labels)


def check_classes(ours: LabelSet, given: LabelSet, checkpoint: str) -> None:
    """Checks that data have a model's classes, in its order.

    Raises:
        UserError: they have not.
    """
    if given.names == ours.names and given.ignore_index == ours.ignore_index:
        return
    if given.names == ours.names:
        raise UserError(
            f"ckpt: {checkpoint} ignores the mask value {ours.ignore_index} and the data {given.ignore_index}; make it one"
        )
    if set(given.names) == set(ours.names):
        raise UserError(
            f"ckpt: {checkpoint} has the data's classes in another order ({', '.join(ours.names)}; the data: "
            f"{', '.join(given.names)}), so their numbers mean other things; number the masks' classes in its order"
        )
    raise UserError(
        f"ckpt: {checkpoint} knows {len(ours.names)} classes ({', '.join(ours.names)}), "
        f"the data has {len(given.names)} ({', '.join(given.names)}); they must be the same"
    )


def _is_typed(path: str, typed: Collection[str]) -> bool:
    """Whether a key, a part of its value or the whole data set's node was typed; `data=nifti` types none of its keys."""
    return any(
        one == path or one.startswith(f"{path}.") or path.startswith(f"{one}.") for one in typed if one != "data"
    )


def _short(value: object) -> str:
    text = "null" if value is None else str(value).replace("'", "").replace(", ", ",")
    return shown(text)[:80]


def _range(intensity: tuple[float, float]) -> str:
    return f"{intensity[0]:g} to {intensity[1]:g}"
