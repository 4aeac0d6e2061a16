"""The page itself and the server that shows it, for this machine alone unless told otherwise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing is told to anybody

import gradio as gr

from fast.studio.make_tab import MakeTab
from fast.studio.review_tab import PLACE, Regenerate, ReviewTab
from fast.studio.workbench import Workbench
from ldm.errors import UserError

LOCAL = ("127.0.0.1", "localhost", "::1")
LARGEST = "256mb"  # of a mask that is loaded
FONTS = ("ui-sans-serif", "system-ui", "sans-serif")  # of the system: none is fetched
TITLE = "<h1>FAST studio</h1><p>Make a pair and look at it; judge the pairs of a run.</p>"


def build(bench: Workbench, folders: dict[str, Path], kept: Path, regenerate: Regenerate) -> gr.Blocks:
    """The page. `folders`: output folders to judge by the name that is shown, `kept` among them: where pairs are stored
    that somebody keeps."""
    with gr.Blocks(title="FAST studio", analytics_enabled=False) as page:
        gr.HTML(TITLE, elem_id="title")
        with gr.Tabs():
            with gr.Tab("Make", id="make"):
                making = MakeTab(bench, kept)
            with gr.Tab("Review", id="review") as tab:
                review = ReviewTab(folders, regenerate)
        page.load(making.canvas, making.normal, making.editor, api_visibility="private", show_progress="hidden")
        tab.select(review.show, review.filters, review.shown, api_visibility="private", show_progress="hidden")
    return page


@contextmanager
def served(build: Callable[[], gr.Blocks], host: str, port: int) -> Iterator[str]:
    """The page's address while it is served. What it shows lies in a folder of its own meanwhile, and no other file is
    handed out. Raises `UserError` for a port that is taken."""
    with tempfile.TemporaryDirectory(prefix="fast-studio-") as cache:
        os.environ["GRADIO_TEMP_DIR"] = cache  # what the page is built of asks for it
        page = build()
        try:
            _, url, _ = page.launch(
                server_name=host, server_port=port, share=False, inbrowser=False, prevent_thread_lock=True, quiet=True,
                show_error=False, footer_links=[], run_history=False, ssr_mode=False, enable_monitoring=False,
                mcp_server=False, pwa=False, allowed_paths=[], max_file_size=LARGEST, theme=_theme(),
                css_paths=[PLACE / "studio.css"],
            )  # fmt: skip
        except OSError:
            raise UserError(f"--port {port} of {host} cannot be opened; it may be taken: give another one") from None
        try:
            yield str(url)
        finally:
            page.close(verbose=False)


def _theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace"), radius_size="md"
    )
