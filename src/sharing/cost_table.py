"""What a benchmark found, as plain containers, as a Markdown table, and as a plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from src.sharing.cost import Counted
from src.sharing.timing import Row

_COLORS = {"eager": "tab:blue", "compiled": "tab:orange", "onnx": "tab:green", "int8": "tab:red"}


def plain(named: str, counts: Mapping[tuple[int, int], Counted], rows: Sequence[Row], about: Mapping[str, Any]) -> Any:
    """As plain containers for JSON."""
    return {
        "network": named,
        **about,
        "parameters": next(iter(counts.values())).parameters,
        "multiplications": [
            {"height": height, "width": width, "multiplications": found.multiplications}
            for (height, width), found in counts.items()
        ],
        "rows": [{key: value for key, value in asdict(row).items() if key != "times"} for row in rows],
    }


def markdown(
    named: str, counts: Mapping[tuple[int, int], Counted], rows: Sequence[Row], about: Mapping[str, Any]
) -> str:
    """A heading, what was measured where, and one line a row; speed is against the first way of the same images."""
    count = next(iter(counts.values())).parameters
    lines = [
        f"# {named}",
        "",
        f"{count / 1e6:.2f} M parameters; "
        + ", ".join(f"{found.multiplications / 1e9:.2f} G multiplications at {h}x{w}" for (h, w), found in counts.items())
        + f". {about['hardware']}, {about['threads']} threads, torch {about['torch']}.",
        "",
        "| size | batch | way | on | ms a batch | slowest | images/s | speed | peak memory, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        head = f"| {row.height}x{row.width} | {row.batch} | {row.way} | {row.device} | "
        if row.milliseconds is None:
            why = (row.failed or "").replace("|", "\\|")
            lines.append(f"{head}could not be run: {why} | | | | |")
            continue
        first = next(one for one in rows if (one.height, one.width, one.batch) == (row.height, row.width, row.batch))
        speed = "" if first.milliseconds is None else f"{first.milliseconds / row.milliseconds:.2f}"
        memory = "" if row.memory is None else f"{row.memory:.0f}"
        lines.append(
            f"{head}{row.milliseconds:.1f} | {row.slowest:.1f} | {row.images_per_second:.1f} | {speed} | {memory} |"
        )
    return "\n".join(lines) + "\n"


def plot(named: str, rows: Sequence[Row]) -> bytes:
    """Milliseconds an image, a bar for each way, as SVG."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys((row.height, row.width, row.batch) for row in rows))
    ways = list(dict.fromkeys(row.way for row in rows))
    figure = Figure(figsize=(max(5.0, 1.2 + 0.5 * len(cases) * (len(ways) + 1)), 3.6), layout="constrained")
    axes = figure.subplots()
    for at, way in enumerate(ways):
        own = {(row.height, row.width, row.batch): row for row in rows if row.way == way}
        heights = [(own[case].milliseconds or 0.0) / case[2] for case in cases]
        places = [number + (at - (len(ways) - 1) / 2) * 0.8 / len(ways) for number in range(len(cases))]
        bars = axes.bar(places, heights, 0.8 / len(ways), label=way, color=_COLORS[way])
        axes.bar_label(
            bars, [f"{one:.0f}" if one >= 10 else f"{one:.1f}" if one else "" for one in heights], fontsize=7
        )
    axes.set_xticks(range(len(cases)), [f"{h}x{w}, batch {batch}" for h, w, batch in cases])
    axes.set_ylabel("ms an image")
    axes.set_title(named, fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
