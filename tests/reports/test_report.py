"""The page to show: it says what it was given, needs nothing else, and its pictures are the ones given."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fast.reports.report import (
    DIFFERENCE,
    FALSE,
    FOUND,
    MISSED,
    Bar,
    Chart,
    Commands,
    Figure,
    Gallery,
    Part,
    Points,
    Report,
    ReportImage,
    Section,
    Table,
    data_uri,
    duration,
    overlay,
    pair_row,
    percent,
    render,
    trial_row,
)
from ldm.errors import UserError
from support.page import Page


def squares() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grey normal picture (16,16,3), a mask of 4 x 4 pixels, and the picture 20 grey levels brighter there."""
    normal = np.full((16, 16, 3), 100, np.uint8)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8, 4:8] = 1
    synthetic = normal.copy()
    synthetic[mask > 0] += 20
    return normal, mask, synthetic


def drawing(inside: str = "") -> str:
    """An SVG document that names a shape and uses it."""
    return (
        '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'width="460pt" height="270pt" viewBox="0 0 460 270"><metadata>https://example.org</metadata>'
        '<g id="unused"><path id="mark" style="fill: #1a1f24"/><use xlink:href="#mark" style="stroke: #d55e00"/>'
        f'<g clip-path="url(#mark)"/>{inside}</g></svg>'
    )


def page(*parts: Part, title: str = "A page") -> Page:
    return Page(render(Report(title, "Lead", [Figure("1", "one")], [Section("Part", "Words", parts)], "Foot")))


def test_all_that_is_given_is_shown_as_it_is() -> None:
    nasty = '<script>alert("1")</script> & more'
    normal, mask, synthetic = squares()
    report = Report(
        nasty,
        nasty,
        [Figure(nasty, nasty, nasty)],
        [
            Section(
                nasty,
                nasty,
                [
                    Gallery(nasty, [pair_row(nasty, normal, mask, synthetic, nasty)], [(nasty, (1, 2, 3))]),
                    Table(nasty, [nasty, nasty], [[nasty, nasty]]),
                    Commands([(nasty, nasty)]),
                    Points([(nasty, nasty)]),
                    Chart(drawing(), nasty, nasty),
                ],
            )
        ],
        nasty,
    )
    shown = Page(render(report))
    assert shown.of("script") == []
    assert sum(nasty in words for words in shown.words) >= 20
    assert all(nasty in str(image["alt"]) for image in shown.of("img"))


def test_it_needs_nothing_else() -> None:
    normal, mask, synthetic = squares()
    text = render(
        Report("A", "B", [], [Section("C", "", [Gallery("D", [pair_row("E", normal, mask, synthetic)])])])
    )  # fmt: skip
    assert not re.search(r"https?:|@import|url\(|<script|<iframe", text)
    shown = Page(text)
    assert len(shown.of("img")) == 4
    for image in shown.of("img"):
        assert str(image["src"]).startswith("data:image/")
        assert image["alt"]
        assert (image["width"], image["height"]) == ("16", "16")
    assert shown.of("html") == [{"lang": "en"}]
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text


def test_links_lead_to_sections() -> None:
    shown = page()
    targets = {f"#{attributes['id']}" for attributes in shown.of("section")}
    assert {link["href"] for link in shown.of("a")} == targets == {"#s0"}


def test_pictures_are_the_ones_given() -> None:
    smooth = np.repeat(np.arange(64, dtype=np.uint8)[:, None, None] * 3, 64, axis=1).repeat(3, axis=2)
    checks = np.indices((9, 9)).sum(axis=0) % 2 == 0
    for pixels in (smooth, smooth[..., 0], checks):
        head, _, data = data_uri(pixels).partition(",")
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            back = np.asarray(image)
        if pixels.dtype == bool:
            assert head == "data:image/png;base64"
            np.testing.assert_array_equal(back, pixels)
        else:
            assert head == "data:image/jpeg;base64"
            assert back.shape == pixels.shape
            assert np.abs(back.astype(int) - pixels).max() <= 6


def test_a_pair_shows_its_difference_enlarged() -> None:
    normal, mask, synthetic = squares()
    synthetic[0, 0] = 0  # 100 levels darker, outside
    row = pair_row("Hole", normal, mask, synthetic, "wood hole")
    assert [p.label for p in row.pictures] == ["normal", "mask", "synthetic", f"difference × {DIFFERENCE}"]
    expected = np.zeros((16, 16), np.uint8)
    expected[4:8, 4:8] = 20 * DIFFERENCE
    expected[0, 0] = 255
    np.testing.assert_array_equal(row.pictures[3].pixels, expected)
    assert "6.2 %" in row.pictures[1].alt  # 16 of 256 pixels


def test_a_prediction_says_what_was_found_and_missed() -> None:
    normal, mask, _ = squares()
    found = np.zeros_like(mask)
    found[4:8, 6:10] = 1  # 8 pixels found, 8 missed, 8 false
    row = trial_row("Hole", normal, mask, {"one": found, "none": np.zeros_like(mask)})
    assert [p.label for p in row.pictures[2:]] == ["one: IoU 33.3 %", "none: IoU 0.0 %"]
    shown = overlay(normal, mask > 0, found > 0)
    for (y, x), colour in {(5, 7): FOUND, (5, 5): MISSED, (5, 9): FALSE}.items():
        # Nearer to its own colour than to any other, and still a bit of the picture.
        distances = [np.abs(shown[y, x].astype(int) - c).sum() for c in (colour, FOUND, MISSED, FALSE)]
        assert distances[0] == min(distances) > 0
    np.testing.assert_array_equal(shown[0, 0], normal[0, 0])
    nothing = trial_row("Good", normal, np.zeros_like(mask), {"one": np.zeros_like(mask)})
    assert nothing.pictures[2].label == "one: nothing found"


def test_a_table_has_bars_and_a_total() -> None:
    table = Table("Scores", ["type", "IoU"], [["a", Bar(0.5)], ["b", Bar(None)], ["all", Bar(1.5, True)]], total=True)
    shown = page(table)
    assert [bar["style"] for bar in shown.of("i")] == ["width:50.0%", "width:0.0%", "width:100.0%"]
    assert [cell["scope"] for cell in shown.of("th")] == ["col", "col", "row", "row", "row"]
    assert shown.words[shown.words.index("Scores") :][:9] == [
        "Scores", "type", "IoU", "a", "50.0 %", "b", "–", "all", "150.0 %",
    ]  # fmt: skip
    assert len(shown.of("tfoot")) == 1


def test_sizes_need_not_be_square() -> None:
    wide = ReportImage(np.zeros((4, 12, 3), np.uint8), "wide", "A wide picture")
    from fast.reports.report import ImageRow

    (image,) = page(Gallery("", [ImageRow("One", [wide])])).of("img")
    assert (image["width"], image["height"]) == ("12", "4")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.416, "0.42 s"),
        (7.34, "7.3 s"),
        (48.2, "48 s"),
        (59.7, "1 min 00 s"),
        (125, "2 min 05 s"),
        (0.0, "0.00 s"),
        (3599.2, "59 min 59 s"),
        (3599.7, "1 h 00 min"),
        (11225, "3 h 07 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_shares() -> None:
    assert percent(0.3333) == "33.3 %"
    assert percent(None) == "–"


def test_a_chart_is_part_of_the_page_and_of_its_colours() -> None:
    shown = page(Chart(drawing(), "A rising curve", "Read it so"))
    (svg,) = shown.of("svg")
    assert (svg["role"], svg["aria-label"], svg["viewbox"]) == ("img", "A rising curve", "0 0 460 270")
    assert "width" not in svg
    (path,), (use,) = shown.of("path"), shown.of("use")
    assert path["style"] == "fill: var(--ink)"
    assert use["style"] == "stroke: #d55e00"
    assert use["href"] == f"#{path['id']}"
    assert [g for g in shown.of("g") if g] == [{"clip-path": f"url(#{path['id']})"}]
    assert "Read it so" in shown.words


def test_charts_of_a_page_do_not_share_names_nor_run_anything() -> None:
    hostile = drawing('<script>alert(1)</script><a xlink:href="https://example.org" onclick="alert(1)"/>')
    report = Report("A", "B", [], [Section("C", "", [Chart(drawing(), "one"), Chart(hostile, "two")])])
    text = render(report)
    first, second = (path["id"] for path in Page(text).of("path"))
    assert first != second
    assert not re.search(r"https?:|<script|alert", text)
    assert render(report) == text


@pytest.mark.parametrize("svg", ["", "<svg", "<p>words</p>"])
def test_a_chart_that_is_none(svg: str) -> None:
    with pytest.raises(UserError, match=r"a chart is .*; draw it again"):
        page(Chart(svg, "broken"))
