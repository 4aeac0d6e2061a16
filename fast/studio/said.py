"""What the page tells the user: lines of text, escaped, errors of the user's among them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from markupsafe import Markup

from ldm.errors import UserError


def line(text: str) -> str:
    return str(Markup('<div class="said">{}</div>').format(text))


def wrong(text: str) -> str:
    return str(Markup('<div class="said"><span class="bad">{}</span></div>').format(text))


def guarded(work: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """`work`, which answers with `outputs` values, a line of text first; for a user's mistake the line says it and all
    else stays as it is."""
    from gradio import skip

    @wraps(work)
    def run(*values: Any) -> Any:
        try:
            return work(*values)
        except UserError as error:
            return (wrong(str(error)), *[skip()] * (outputs - 1)) if outputs > 1 else wrong(str(error))

    return run
