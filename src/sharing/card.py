"""A model card: what was trained on what, how good it is and how sure that is, and how to use it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.data.labels import LabelSet
from src.files.untrusted import shown

_SCORES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "dice": "Dice"}
_SPLITS = ("val", "test")


@dataclass(frozen=True)
class Told:
    """What a card tells.

    Attributes:
        repo: OWNER/NAME.
        network, encoder, data: in a person's words; encoder may be None.
        license: the hub's key; None where none was given.
        labels: the classes.
        scores: by split, as in metrics.json.
        measured: by split, as in evaluation/SPLIT/metrics.json; only of these very weights.
        images: channels and range.
        overrides: of the command line that trained it.
        version: of this program.
    """

    repo: str
    network: str
    encoder: str | None
    data: str
    license: str | None
    labels: LabelSet
    scores: Mapping[str, Mapping[str, Any]]
    measured: Mapping[str, Mapping[str, Any]]
    images: str
    overrides: Sequence[str]
    version: str | None

    @property
    def splits(self) -> list[str]:
        return [split for split in _SPLITS if self.scores.get(split, {}).get("miou") is not None]


def card(told: Told) -> str:
    """README.md, with the hub's metadata at its head."""
    name = told.repo.partition("/")[2]
    parts = [
        f"---\n{_metadata(told)}\n---\n# {name}",
        f"Semantic segmentation: {_network(told)}, {told.labels.num_classes} classes, trained on {_plain(told.data)} with "
        f"Pixelwise {told.version or ''}".rstrip()
        + ".",
        "## Use",
        f'```python\nfrom src import load  # from a checkout of Pixelwise\n\nsegmenter = load("hf:{told.repo}")\n'
        'found = segmenter.predict("photo.jpg")\nfound.mask, found.names, found.overlay()\n```',
        f"Input: {told.images}. `model.safetensors` has the weights, `config.json` what they are of: classes, colours, "
        "network, and the whole config of the training. No code is run from this repository.",
        "## Scores",
        *(_scores(told) or ["None were recorded."]),
        "## Classes",
        _classes(told),
        "## Training",
        f"Data: {_plain(told.data)}. Changed settings; all of them are in `config.json`:",
        "```\n" + ("\n".join(shown(one).replace("`", "'") for one in told.overrides) or "none") + "\n```",
        "## Licence",
        f"`{told.license}`, of the weights. The data have terms of their own."
        if told.license
        else "None was given: ask before you use it.",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(told: Told) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-segmentation", task_name="Semantic segmentation", dataset_type=_key(told.data),
            dataset_name=told.data, dataset_split="validation" if split == "val" else "test", metric_type="mean_iou",
            metric_name="mIoU", metric_value=round(float(told.scores[split]["miou"]), 4),
        ) for split in told.splits
    ]  # fmt: skip
    about = ModelCardData(
        license=told.license, library_name="pixelwise", pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "pixelwise", "pytorch"], model_name=told.repo.partition("/")[2],
        eval_results=results or None,
    )  # fmt: skip
    return str(about.to_yaml()).strip()


def _key(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-") or "data"


def _network(told: Told) -> str:
    over = f" over {_plain(told.encoder)}" if told.encoder else ""
    return f"{_plain(told.network)}{over}"


def _scores(told: Told) -> list[str]:
    """A table of each score by split, the mIoU with its interval, and what that is."""
    if not told.splits:
        return []
    lines = [f"| | {' | '.join(told.splits)} |", f"|---|{'---|' * len(told.splits)}"]
    for key, title in _SCORES.items():
        cells = [_number(told.scores[split].get(key)) for split in told.splits]
        if key == "miou":
            cells = [f"{cell}{_span(_interval(told, split))}" for cell, split in zip(cells, told.splits, strict=True)]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    if any(_interval(told, split) for split in told.splits):
        drawn = next(told.measured[s]["bootstrap"] for s in told.splits if _interval(told, s))
        level, samples, groups = (drawn.get(key) for key in ("level", "samples", "groups"))
        return [
            "\n".join(lines),
            f"In brackets: {100 * float(level):.0f} % bootstrap intervals, {samples} draws of {groups} images or groups.",
        ]
    return ["\n".join(lines)]


def _classes(told: Told) -> str:
    splits = told.splits
    lines = [f"| number | class | colour | {''.join(f'IoU, {split} | ' for split in splits)}".rstrip()]
    lines += [f"|---|---|---|{'---|' * len(splits)}"]
    for number, (name, color) in enumerate(zip(told.labels.names, told.labels.colors, strict=True)):
        cells = "".join(f" {_number(told.scores[split].get(f'iou/{name}'))} |" for split in splits)
        lines.append(f"| {number} | {_plain(name)} | {', '.join(map(str, color))} |{cells}")
    return "\n".join(lines)


def _interval(told: Told, split: str) -> list[float] | None:
    found = told.measured.get(split, {}).get("data_set")
    bounds = found.get("miou_interval") if isinstance(found, Mapping) else None
    known = isinstance(bounds, list) and len(bounds) == 2 and all(isinstance(bound, float) for bound in bounds)
    return bounds if known and isinstance(told.measured[split].get("bootstrap"), Mapping) else None


def _span(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f" [{bounds[0]:.4f}, {bounds[1]:.4f}]"


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table too."""
    safe = html.escape(shown(text), quote=False)
    return "".join(f"\\{c}" if c in "\\|`*_[]#" else c for c in safe.replace("\n", " "))
