"""A page to show: figures, pictures side by side, tables and commands in one HTML file that needs nothing else.

`render` takes a `Report` and returns the page. It has no script and fetches nothing; pictures lie inside it as data.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from fast.reports.svg import inline

JPEG_QUALITY = 90
DIFFERENCE = 3  # a change of that many times fewer grey levels is shown white
# Pixels of a prediction: colours that are told apart without seeing red and green.
FOUND, MISSED, FALSE = (0, 158, 140), (240, 150, 0), (204, 70, 170)
PREDICTION_KEY = (("found", FOUND), ("missed", MISSED), ("false alarm", FALSE))
THEME = {  # colours of a chart and the page's own for them, light and dark
    "#ffffff": "var(--bg)",
    "#1a1f24": "var(--ink)",
    "#5a646e": "var(--soft)",
    "#d5dade": "var(--line)",
    "#0072b2": "var(--blue)",
}
TINT = 0.6  # how much of a prediction's colour covers the picture


@dataclass(frozen=True)
class Figure:
    """A number to lead with. `strong`: the one that matters most."""

    value: str
    label: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class ReportImage:
    """`pixels`: uint8 (H,W,3), grey (H,W), or bool (H,W), white where true. `alt` says in words what it shows."""

    pixels: np.ndarray
    label: str
    alt: str


@dataclass(frozen=True)
class ImageRow:
    """Pictures side by side under a heading."""

    heading: str
    pictures: Sequence[ReportImage]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures. `key`: names and colours (R,G,B) of what is marked in them."""

    heading: str
    rows: Sequence[ImageRow]
    key: Sequence[tuple[str, tuple[int, int, int]]] = ()


@dataclass(frozen=True)
class Bar:
    """A share in 0..1 as a number and a bar; None where there is none."""

    share: float | None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """The first cell of a row names it. `total`: the last row sums the others up. `columns` names every column."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Bar]]
    total: bool = False


@dataclass(frozen=True)
class Commands:
    """What to type: (what it does, command lines)."""

    steps: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Points:
    """Statements under each other: (the statement in a few words, more about it)."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Chart:
    """A drawing that is as sharp and as dark as the page. `svg`: an SVG document, as `fast.bench.figures.svg` writes
    it; the colours of `THEME` in it become the page's. `alt` says in words what it shows."""

    svg: str
    alt: str
    note: str = ""


Part = Gallery | Table | Commands | Points | Chart


@dataclass(frozen=True)
class Section:
    heading: str
    text: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Report:
    """`cover`: pictures to begin with."""

    title: str
    lead: str
    figures: Sequence[Figure]
    sections: Sequence[Section]
    foot: str = ""
    cover: Sequence[ReportImage] = ()


def pair_row(heading: str, normal: np.ndarray, mask: np.ndarray, synthetic: np.ndarray, note: str = "") -> ImageRow:
    """Normal | mask | synthetic | difference, of uint8 pictures (H,W,3) and a mask (H,W), nonzero = defect."""
    change = np.abs(synthetic.astype(np.int16) - normal.astype(np.int16)).max(axis=2)
    difference = np.minimum(change * DIFFERENCE, 255).astype(np.uint8)
    share = 100 * float((mask != 0).mean())
    return ImageRow(
        heading,
        [
            ReportImage(normal, "normal", f"Normal picture: {heading}"),
            ReportImage(mask != 0, "mask", f"Mask, white on {share:.1f} % of the picture: {heading}"),
            ReportImage(synthetic, "synthetic", f"The normal picture with a synthetic defect in the mask: {heading}"),
            ReportImage(difference, f"difference × {DIFFERENCE}", f"Where the synthetic picture differs: {heading}"),
        ],
        note,
    )


def trial_row(heading: str, image: np.ndarray, truth: np.ndarray, found: Mapping[str, np.ndarray]) -> ImageRow:
    """Picture (H,W,3) | true mask (H,W) | what each segmenter found, by name (H,W), laid over the picture."""
    first = [
        ReportImage(image, "test picture", f"Test picture: {heading}"),
        ReportImage(truth != 0, "true mask", f"True mask: {heading}"),
    ]
    return ImageRow(heading, first + [_judged(name, heading, image, truth != 0, f != 0) for name, f in found.items()])


def _judged(name: str, heading: str, image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> ReportImage:
    union = int((truth | found).sum())
    score = f"IoU {percent(int((truth & found).sum()) / union)}" if union else "nothing found"
    return ReportImage(overlay(image, truth, found), f"{name}: {score}", f"What {name} found, {score}: {heading}")


def overlay(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The picture (H,W,3), paler, with found, missed and false pixels in the colours of `PREDICTION_KEY`."""
    shown = image.astype(np.float32)
    for where, (_, colour) in zip((truth & found, truth & ~found, found & ~truth), PREDICTION_KEY, strict=True):
        shown[where] = (1 - TINT) * shown[where] + TINT * np.array(colour, np.float32)
    return np.rint(shown).astype(np.uint8)


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Like 0.42 s, 7.3 s, 48 s, 2 min 05 s, 3 h 07 min."""
    if seconds < 59.5:
        return f"{seconds:.{2 if seconds < 1 else 1 if seconds < 10 else 0}f} s"
    if seconds >= 3599.5:
        return "{} h {:02d} min".format(*divmod(round(seconds / 60), 60))
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def data_uri(pixels: np.ndarray) -> str:
    """A picture as a `data:` address: JPEG, or one-bit PNG for bool pixels."""
    buffer = BytesIO()
    if pixels.dtype == bool:
        Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    else:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    kind = "png" if pixels.dtype == bool else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def render(report: Report) -> str:
    """The page. Every text given is shown as it is, never read as HTML."""
    return _TEMPLATES.get_template("report.html.j2").render(report=report)


def _inline(chart: Chart) -> Markup:
    # Two charts of one page must not share names; equal ones may.
    prefix = f"c{hashlib.sha256(chart.svg.encode()).hexdigest()[:8]}-"
    return Markup(inline(chart.svg, prefix, chart.alt, THEME))


def _is(kind: type) -> Callable[[object], bool]:
    return lambda part: isinstance(part, kind)


_TEMPLATES = Environment(
    loader=PackageLoader("fast.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters.update(data_uri=data_uri, percent=percent, inline=_inline)
_TEMPLATES.tests.update({kind.__name__.lower(): _is(kind) for kind in (Gallery, Table, Commands, Points, Chart, Bar)})
