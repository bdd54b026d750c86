"""Run folders as a run leaves them, written without a run."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

Curves = Mapping[str, Sequence[float]]


def write(
    folder: Path, overrides: Sequence[str] = (), *, network: str = "tiny", config: Mapping[str, Any] | None = None,
    curves: Curves | None = None, color: str | None = None, **metrics: Any,
) -> Path:  # fmt: skip
    """A run folder.

    Args:
        overrides: `seed=…` and `optimizer.lr=…` also go into the config.
        network: the option chosen; its keys follow from it.
        config: more of the config.
        curves: scalars by tag, one a step.
        color: of a picture of the sample val/00.
        metrics: metrics.json; without any there is none.
    """
    given = dict(o.split("=", 1) for o in overrides)
    whole = {
        "seed": int(given.get("seed", 42)),
        "monitor": "val/miou",
        "monitor_mode": "max",
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": float(given.get("optimizer.lr", 0.001))},
        "network": {"_target_": f"src.networks.{network}", "width": len(network)},
        "paths": {"output_dir": str(folder)},
        **(config or {}),
    }
    choices = {"network": network, "optimizer": "adamw", "experiment": None}
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "config.yaml").write_text(yaml.safe_dump(whole, allow_unicode=True))
    (hydra / "overrides.yaml").write_text(yaml.safe_dump(list(overrides), allow_unicode=True))
    (hydra / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))
    if metrics:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if curves or color:
        log(folder / "tensorboard", curves or {}, color=color)
    return folder


def log(folder: Path, curves: Curves, first: int = 0, restart: bool = False, color: str | None = None) -> Path:
    """An event file with values from step `first` on; `restart` says before them that the steps are taken again."""
    writer = EventFileWriter(str(folder))
    begun = time.time()

    def add(step: int, **content: Any) -> None:
        writer.add_event(Event(step=step, wall_time=begun + 60 * step, **content))

    if restart:
        add(first, session_log=SessionLog(status=SessionLog.START))
    for tag, values in curves.items():
        for step, value in enumerate(values, first):
            add(step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
    if color is not None:
        stream = io.BytesIO()
        Image.new("RGB", (12, 8), color).save(stream, "PNG")
        image = Summary.Image(height=8, width=12, colorspace=3, encoded_image_string=stream.getvalue())
        add(first, summary=Summary(value=[Summary.Value(tag="val/00", image=image)]))
    writer.close()
    return max(folder.glob("events.*"), key=lambda file: file.stat().st_mtime_ns)
