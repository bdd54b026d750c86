"""Tries a checkpoint on images of one's own, in the browser: `python -m src.demo ckpt=RUN [ckpt_b=RUN2]`."""

from __future__ import annotations

import html
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import DictConfig
from pydantic import Field

import src.which_src  # noqa: F401  first: it ends where another src is in the way
from src.cli.command import start
from src.config.asked import Asked
from src.config.parts import Config
from src.errors import UserError
from src.optional_packages import check_installed, needs

if TYPE_CHECKING:  # a config error must not wait for torch
    import numpy as np
    import numpy.typing as npt

    from src import Segmentation, TrainedSegmenter

    Picture = npt.NDArray[np.uint8]

_HOST = "127.0.0.1"
_LARGEST = "64mb"  # of an uploaded file
_SECONDS_KEPT = 3600  # of what was uploaded
# The page loads nothing from elsewhere, whatever Gradio's own would.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:"
)
_FONTS = ["system-ui", "sans-serif"]
_MONOSPACED = ["ui-monospace", "monospace"]


@dataclass(frozen=True, kw_only=True)
class Demo(Asked):
    """What the page is told.

    Attributes:
        ckpt: a run folder, or a checkpoint.
        ckpt_b: a second one.
        trust: packages that a checkpoint's config may name.
        input: an image that is there from the start.
        port: of this machine; None takes any that is free.
    """

    ckpt: str
    ckpt_b: str | None = None
    trust: list[str] | None = None
    input: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = 7860
    device: str = "auto"

    def check(self) -> None:
        check_installed("gradio", "demo", "src.demo")


def demo(settings: Config | Demo) -> None:
    """Serves the page on this machine until it is stopped.

    Raises:
        UserError: a checkpoint cannot be opened or takes no photos, the two have other classes, or the port is taken.
    """
    asked = settings if isinstance(settings, Demo) else Demo.of(settings)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    segmenters = _opened(asked)
    gradio = needs("gradio", "demo")
    page = Page(segmenters, [place for place in (asked.ckpt, asked.ckpt_b) if place is not None])
    blocks = page.blocks(None if asked.input is None else page.first(asked.input))
    from starlette.middleware import Middleware

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of Gradio's calls to itself
    try:
        blocks.launch(
            server_name=_HOST, server_port=asked.port or _free_port(), share=False, quiet=True, show_error=True,
            footer_links=[], enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False, max_file_size=_LARGEST,
            theme=gradio.themes.Default(font=_FONTS, font_mono=_MONOSPACED), css=_STYLE, prevent_thread_lock=True,
            app_kwargs={"middleware": [Middleware(_Policy)]},
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"port: {asked.port} cannot be taken ({error}); name another, or port=null for any") from None
    print(f"open {blocks.local_url} in a browser of this machine; Ctrl-C ends it", flush=True)
    blocks.block_thread()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((_HOST, 0))
        port: int = one.getsockname()[1]
        return port


def _opened(asked: Demo) -> list[TrainedSegmenter]:
    from src import load

    found = []
    for key, place in (("ckpt", asked.ckpt), ("ckpt_b", asked.ckpt_b)):
        if place is None:
            continue
        segmenter = load(place, device=asked.device, trust=asked.trust or ())
        if segmenter.model.channels not in (1, 3) or segmenter.model.intensity != (0.0, 255.0):
            raise UserError(
                f"{key}: {place} takes {segmenter.model.channels} channels of {segmenter.model.images.dtype}, and the page "
                "photos; take python -m src.predict"
            )
        found.append(segmenter)
    if len(found) == 2 and found[0].names != found[1].names:
        raise UserError(
            f"ckpt_b: has other classes ({', '.join(found[1].names)}) than ckpt ({', '.join(found[0].names)}); open two pages"
        )
    return found


class _Policy:
    """Adds the policy to every answer of the server."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        async def with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


@dataclass(frozen=True)
class Seen:
    """What is kept of an image while its page is open.

    Attributes:
        found: by each checkpoint.
        entropies: of each, float32 [H, W] in 0 … 1.
    """

    found: list[Segmentation]
    entropies: list[npt.NDArray[np.float32]]


class Page:
    """The page, for one checkpoint or two.

    Args:
        segmenters: with the same classes.
        places: where each is from.
    """

    def __init__(self, segmenters: Sequence[TrainedSegmenter], places: Sequence[str]) -> None:
        self.segmenters = segmenters
        self.titles = [f"{letter}: {Path(place).name}" for letter, place in zip("AB", places, strict=False)]
        self.both = len(segmenters) == 2

    def first(self, file: str) -> Picture:
        """The image that is there from the start."""
        return self.segmenters[0].predict(Path(file).expanduser()).picture

    def segment(self, image: Picture | None, opacity: float) -> tuple[Any, ...]:
        """What the page shows of an image: its state, overlay, mask, shares and uncertainty, and with two checkpoints
        the two overlays and where they differ."""
        if image is None:
            return (None, *[None] * (6 if self.both else 4))
        found = [one.predict(image) for one in self.segmenters]
        seen = Seen(found, [one.uncertainty for one in found])
        from src.inference.drawing import colored, heat

        labels = self.segmenters[0].labels
        shown = [
            seen,
            found[0].overlay(opacity),
            colored(found[0].mask, labels),
            self.shares(found),
            heat(seen.entropies[0]),
        ]
        return (*shown, *self.pair(seen, opacity))

    def shade(self, seen: Seen | None, opacity: float) -> Any:
        """The overlays at another opacity."""
        if seen is None:
            return (None, None) if self.both else None
        first = seen.found[0].overlay(opacity)
        return (first, (first, seen.found[1].overlay(opacity))) if self.both else first

    def pair(self, seen: Seen, opacity: float) -> tuple[Any, ...]:
        """Of two checkpoints the overlays, and the image with all pixels gray that both see alike."""
        if not self.both:
            return ()
        a, b = seen.found
        differ = a.mask != b.mask
        shown = a.picture.copy()
        shown[~differ] = (shown[~differ].mean(axis=1, keepdims=True) * 0.4 + 140).astype(shown.dtype)
        return (a.overlay(opacity), b.overlay(opacity)), shown

    def shares(self, found: Sequence[Segmentation]) -> str:
        """The share of each class as a table with bars."""
        labels, masks = self.segmenters[0].labels, [one.mask for one in found]
        rows = []
        for number, (name, color) in enumerate(zip(labels.names, labels.colors, strict=True)):
            shares = [float((mask == number).mean()) for mask in masks]
            paint = "#{:02x}{:02x}{:02x}".format(*color)
            cells = "".join(
                f'<td class="bar"><i style="width:{share:.2%};background:{paint}"></i></td><td class="share">{share:.1%}</td>'
                for share in shares
            )
            rows.append(
                (max(shares), f'<tr><td><b style="background:{paint}"></b>{html.escape(name)}</td>{cells}</tr>')
            )
        body = "".join(row for _, row in sorted(rows, key=lambda row: -row[0]))
        head, alike = "", ""
        if len(found) == 2:
            head = "".join(f"<th colspan=2>{html.escape(title)}</th>" for title in self.titles)
            head = f"<tr><th></th>{head}</tr>"
            alike = f"<p>A and B see the same class in {float((masks[0] == masks[1]).mean()):.1%} of the pixels.</p>"
        return f'<table class="shares">{head}{body}</table>{alike}'

    def blocks(self, image: Picture | None = None) -> Any:
        """Gradio's description of the page.

        Args:
            image: one that is there from the start.
        """
        gradio = needs("gradio", "demo")
        given = self.segment(image, 0.5)
        mode = "L" if self.segmenters[0].model.channels == 1 else "RGB"
        with gradio.Blocks(
            title="Segmentation", analytics_enabled=False, delete_cache=(_SECONDS_KEPT, _SECONDS_KEPT), fill_width=True
        ) as blocks:
            seen = gradio.State(given[0])
            with gradio.Row():
                with gradio.Column(scale=2):
                    source = gradio.Image(
                        image, label="image: drop one here", image_mode=mode, sources=["upload", "clipboard"], type="numpy",
                        format="png", buttons=[],
                    )  # fmt: skip
                    opacity = gradio.Slider(0, 1, 0.5, step=0.05, label="opacity of the colours")
                    table = gradio.HTML(given[3], label="share of each class")
                with gradio.Column(scale=3):
                    options = {
                        "type": "numpy",
                        "format": "png",
                        "interactive": False,
                        "buttons": ["download", "fullscreen"],
                    }
                    more = []
                    if self.both:
                        with gradio.Tab("A | B"):
                            slider = gradio.ImageSlider(
                                given[5], label=" | ".join(self.titles), max_height=640, **options
                            )
                        with gradio.Tab("where they differ"):
                            more = [slider, gradio.Image(given[6], label="in colour: other classes", **options)]
                    with gradio.Tab("overlay"):
                        over = gradio.Image(given[1], label="overlay", **options)
                    with gradio.Tab("mask"):
                        mask = gradio.Image(given[2], label="mask", **options)
                    with gradio.Tab("uncertainty"):
                        unsure = gradio.Image(given[4], label="entropy: black is sure", **options)
            shown = [seen, over, mask, table, unsure, *more]
            source.change(self.segment, [source, opacity], shown, api_name="segment", show_progress="minimal")
            opacity.release(
                self.shade, [seen, opacity], [over, *more[:1]], api_visibility="private", show_progress="hidden"
            )
        return blocks


_STYLE = """
.shares { width: 100%; border-collapse: collapse; }
.shares td, .shares th { padding: 2px 6px; border: 0; text-align: left; }
.shares b { display: inline-block; width: 1em; height: 1em; margin-right: 0.5em; vertical-align: -0.1em; }
.shares td:first-child { white-space: nowrap; }
.shares .bar { width: 30%; }
.shares .bar i { display: block; height: 0.8em; border: 1px solid #8888; min-width: 1px; }
.shares .share { text-align: right; font-variant-numeric: tabular-nums; }
"""


def _task(settings: Demo, config: DictConfig) -> None:
    demo(settings)


if __name__ == "__main__":
    start("demo", _task, Demo.of)
