"""A page to show: figures, pictures side by side, tables and commands in one HTML file that needs nothing else.

`render` takes a `Report` and returns the page. It has no script and fetches nothing; pictures lie inside it as data.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
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
class Picture:
    """`pixels`: uint8 (H,W,3), grey (H,W), or bool (H,W), white where true. `alt` says in words what it shows."""

    pixels: np.ndarray
    label: str
    alt: str


@dataclass(frozen=True)
class Row:
    """Pictures side by side under a heading."""

    heading: str
    pictures: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures. `key`: names and colours (R,G,B) of what is marked in them."""

    heading: str
    rows: Sequence[Row]
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
    cover: Sequence[Picture] = ()


def pair_row(heading: str, normal: np.ndarray, mask: np.ndarray, synthetic: np.ndarray, note: str = "") -> Row:
    """Normal | mask | synthetic | difference, of uint8 pictures (H,W,3) and a mask (H,W), nonzero = defect."""
    change = np.abs(synthetic.astype(np.int16) - normal.astype(np.int16)).max(axis=2)
    difference = np.minimum(change * DIFFERENCE, 255).astype(np.uint8)
    share = 100 * float((mask != 0).mean())
    return Row(
        heading,
        [
            Picture(normal, "normal", f"Normal picture: {heading}"),
            Picture(mask != 0, "mask", f"Mask, white on {share:.1f} % of the picture: {heading}"),
            Picture(synthetic, "synthetic", f"The normal picture with a synthetic defect in the mask: {heading}"),
            Picture(difference, f"difference × {DIFFERENCE}", f"Where the synthetic picture differs: {heading}"),
        ],
        note,
    )


def trial_row(heading: str, image: np.ndarray, truth: np.ndarray, found: Mapping[str, np.ndarray]) -> Row:
    """Picture (H,W,3) | true mask (H,W) | what each segmenter found, by name (H,W), laid over the picture."""
    first = [
        Picture(image, "test picture", f"Test picture with a real defect: {heading}"),
        Picture(truth != 0, "true mask", f"True mask: {heading}"),
    ]
    return Row(heading, first + [_judged(name, heading, image, truth != 0, f != 0) for name, f in found.items()])


def _judged(name: str, heading: str, image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> Picture:
    union = int((truth | found).sum())
    score = f"IoU {percent(int((truth & found).sum()) / union)}" if union else "nothing found"
    return Picture(overlay(image, truth, found), f"{name}: {score}", f"What {name} found, {score}: {heading}")


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
    title = escape(report.title)
    links = "".join(f'<li><a href="#s{i}">{escape(s.heading)}</a></li>' for i, s in enumerate(report.sections))
    sections = "".join(_section(i, section) for i, section in enumerate(report.sections))
    cover = f'<div class="cells cover">{"".join(map(_picture, report.cover))}</div>\n' if report.cover else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n<style>{_CSS}</style>\n</head>\n<body>\n'
        f'<header>\n<h1>{title}</h1>\n<p class="lead">{escape(report.lead)}</p>\n'
        f'{cover}<dl class="figures">{"".join(map(_figure, report.figures))}</dl>\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>\n<main>\n{sections}</main>\n'
        f"<footer><p>{escape(report.foot)}</p></footer>\n</body>\n</html>\n"
    )


def _figure(figure: Figure) -> str:
    strong = ' class="strong"' if figure.strong else ""
    note = f'<dd class="note">{escape(figure.note)}</dd>' if figure.note else ""
    return f'<div{strong}><dt>{escape(figure.label)}</dt><dd class="value">{escape(figure.value)}</dd>{note}</div>'


def _section(number: int, section: Section) -> str:
    parts = "".join(_PARTS[type(part)](part) for part in section.parts)
    text = f'<p class="text">{escape(section.text)}</p>\n' if section.text else ""
    return f'<section id="s{number}">\n<h2>{escape(section.heading)}</h2>\n{text}{parts}</section>\n'


def _gallery(gallery: Gallery) -> str:
    heading = f"<h3>{escape(gallery.heading)}</h3>\n" if gallery.heading else ""
    marks = "".join(
        f'<li><span class="swatch" style="background:rgb({r},{g},{b})"></span>{escape(name)}</li>'
        for name, (r, g, b) in gallery.key
    )
    key = f'<ul class="key" aria-label="Colours">{marks}</ul>\n' if marks else ""
    return f"{heading}{key}{''.join(map(_row, gallery.rows))}"


def _row(row: Row) -> str:
    note = f" <span>{escape(row.note)}</span>" if row.note else ""
    cells = "".join(map(_picture, row.pictures))
    return f'<div class="row">\n<h4>{escape(row.heading)}{note}</h4>\n<div class="cells">{cells}</div>\n</div>\n'


def _picture(picture: Picture) -> str:
    height, width = picture.pixels.shape[:2]
    return (
        f'<figure><img src="{data_uri(picture.pixels)}" width="{width}" height="{height}" alt="{escape(picture.alt)}">'
        f"<figcaption>{escape(picture.label)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    lines = [
        f'<tr><th scope="row">{escape(str(row[0]))}</th>{"".join(map(_cell, row[1:]))}</tr>\n' for row in table.rows
    ]
    foot = f"<tfoot>{lines.pop()}</tfoot>" if table.total and lines else ""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(table.caption)}" tabindex="0">\n<table>\n'
        f"<caption>{escape(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>{''.join(lines)}</tbody>\n{foot}</table>\n</div>\n"
    )


def _cell(cell: str | Bar) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    width = 100 * min(max(cell.share or 0.0, 0.0), 1.0)
    kind = "bar strong" if cell.strong else "bar"
    return f'<td><span class="{kind}"><i style="width:{width:.1f}%"></i></span>{percent(cell.share)}</td>'


def _commands(commands: Commands) -> str:
    steps = "".join(
        f"<li><p>{escape(what)}</p><pre><code>{escape(lines)}</code></pre></li>" for what, lines in commands.steps
    )
    return f'<ol class="commands">{steps}</ol>\n'


def _points(points: Points) -> str:
    items = "".join(f"<li><strong>{escape(head)}</strong> {escape(more)}</li>" for head, more in points.items)
    return f'<ul class="points">{items}</ul>\n'


def _chart(chart: Chart) -> str:
    # Two charts of one page must not share names; equal ones may.
    prefix = f"c{hashlib.sha256(chart.svg.encode()).hexdigest()[:8]}-"
    note = f"<figcaption>{escape(chart.note)}</figcaption>" if chart.note else ""
    return f'<figure class="chart">{inline(chart.svg, prefix, chart.alt, THEME)}{note}</figure>\n'


_PARTS: dict[type, Callable[..., str]] = {
    Gallery: _gallery,
    Table: _table,
    Commands: _commands,
    Points: _points,
    Chart: _chart,
}

_CSS = """
:root{color-scheme:light dark;--bg:#fafaf9;--card:#fff;--ink:#1a1f24;--soft:#5a646e;--line:#e2e6e9;--accent:#0a6b68;
--tint:#e5f2f1;--weak:#a9b4bc;--code:#f1f3f4;--blue:#0072b2}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e8ebed;--soft:#a0aab3;--line:#2e343a;
--accent:#57c7bf;--tint:#163331;--weak:#66727c;--code:#22272c;--blue:#58aee6}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--bg);color:var(--ink);font:17px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"Liberation Sans",sans-serif;font-variant-numeric:tabular-nums}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 clamp(18px,4vw,40px)}
header{padding-top:clamp(36px,7vw,84px)}
h1{font-size:clamp(30px,4.6vw,50px);line-height:1.12;letter-spacing:-.022em;font-weight:680;margin:0 0 18px;
max-width:20em;text-wrap:balance}
.lead{font-size:clamp(18px,1.8vw,21px);line-height:1.55;color:var(--soft);max-width:43em;margin:0 0 36px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:14px;margin:0}
.figures>div{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:20px 22px}
.figures>.strong{background:var(--tint);border-color:var(--accent)}
dt{font-size:15px;line-height:1.35;color:var(--soft)}
dd{margin:0}
.value{font-size:clamp(26px,2.7vw,34px);line-height:1.25;white-space:nowrap;font-weight:650;letter-spacing:-.02em;margin-top:6px}
.strong .value{color:var(--accent)}
.note{font-size:14px;line-height:1.4;color:var(--soft);margin-top:4px}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:6px 24px;padding:0;margin:30px 0 0;font-size:15px}
a{color:var(--accent);text-underline-offset:3px;text-decoration-thickness:1px}
a:focus-visible,.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:4px}
section{margin-top:clamp(56px,7vw,92px);scroll-margin-top:24px}
h2{font-size:clamp(24px,2.6vw,31px);line-height:1.2;letter-spacing:-.015em;font-weight:660;margin:0 0 10px}
h3{font-size:20px;line-height:1.3;font-weight:640;margin:44px 0 4px;padding-top:20px;border-top:1px solid var(--line)}
h4{font-size:16px;line-height:1.4;font-weight:620;margin:0 0 8px}
h4 span{font-weight:400;color:var(--soft);margin-left:8px}
.text{color:var(--soft);max-width:46em;margin:0 0 8px}
.row{margin:26px 0 0;break-inside:avoid}
.cells{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:clamp(8px,1.2vw,16px)}
figure{margin:0}
.cover{margin:0 0 34px}
img{display:block;width:100%;height:auto;border-radius:8px;background:var(--code);box-shadow:0 0 0 1px var(--line)}
figcaption{font-size:14px;line-height:1.4;color:var(--soft);padding-top:6px}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:4px 22px;padding:0;margin:16px 0 0;font-size:15px}
.swatch{display:inline-block;width:13px;height:13px;border-radius:3px;margin-right:8px;vertical-align:-1px}
.scroll{overflow-x:auto;margin-top:24px}
table{border-collapse:collapse;width:100%;font-size:15px;line-height:1.4}
caption{text-align:left;color:var(--soft);padding-bottom:10px}
th,td{text-align:left;padding:8px 18px 8px 0;border-bottom:1px solid var(--line);white-space:nowrap;font-weight:400}
thead th{color:var(--soft);font-size:14px;white-space:normal;vertical-align:bottom;min-width:4.5em}
tbody th{font-weight:560}
tfoot th,tfoot td{font-weight:660;border-bottom:0}
.bar{display:inline-block;vertical-align:middle;width:clamp(54px,9vw,120px);height:8px;border-radius:4px;
background:var(--code);margin-right:12px;overflow:hidden}
.bar i{display:block;height:100%;background:var(--weak);border-radius:4px}
.bar.strong i{background:var(--accent)}
.chart{max-width:680px;margin-top:22px}
.chart svg{display:block;width:100%;height:auto;stroke-linejoin:round}
.points{padding-left:1.2em;margin:18px 0 0;max-width:48em}
.points li{padding-left:.2em;margin-bottom:12px;color:var(--soft)}
.points strong{color:var(--ink);font-weight:620}
.commands{padding-left:1.4em;margin-top:22px}
.commands li{padding-left:.3em;margin-bottom:20px}
.commands p{margin:0 0 8px}
pre{background:var(--code);border-radius:10px;padding:14px 18px;margin:0;overflow-x:auto;font-size:14px;
line-height:1.55}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
footer{color:var(--soft);font-size:14px;padding-top:60px;padding-bottom:60px}
footer p{margin:0;padding-top:20px;border-top:1px solid var(--line)}
@media(max-width:980px){.figures{grid-template-columns:repeat(2,minmax(0,1fr))}
.figures>:last-child:nth-child(odd){grid-column:1/-1}}
@media(max-width:640px){.cells{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media(max-width:460px){.figures{grid-template-columns:1fr}}
@media print{:root{color-scheme:light;--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;--accent:#0a6b68;
--tint:#fff;--weak:#999;--code:#f3f3f3;--blue:#0072b2}
body{font-size:11pt}nav{display:none}header{padding-top:0}section{margin-top:28pt}
h2,h3,h4{break-after:avoid}.figures>div,tr,pre{break-inside:avoid}.cells,.figures{grid-template-columns:repeat(4,minmax(0,1fr))}
.figures>:last-child:nth-child(odd){grid-column:auto}.chart{break-inside:avoid;max-width:130mm}
.figures>div{padding:10px 12px}.value{font-size:18pt}
.bar,.bar i,.swatch,img{print-color-adjust:exact;-webkit-print-color-adjust:exact}pre{white-space:pre-wrap}}
"""
