"""A person's way through the page in a real Chromium: paint, make, keep, judge, undo, regenerate, export."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fast.data.images import read_image, read_mask
from fast.review.decisions import Review, rejected
from fast.studio.workbench import Workbench
from fast.synthesis.records import read_records
from support.studio import studio
from support.synthesis import synthesize

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
NASTY = "<img src=x onerror=alert(1)>.png"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine"),
]


@pytest.fixture
def normals(drawn_root: Path, tmp_path: Path) -> Path:
    """Normal images, one of which has a name that would be HTML."""
    folder = Path(shutil.copytree(drawn_root / "wood/train/good", tmp_path / "normal"))
    first = sorted(folder.iterdir())[0]
    first.rename(folder / NASTY)
    return folder


@pytest.fixture
def pairs(normals: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    argv = ["--method", "procedural", "--data_root", str(normals), "--sample_name", str(out)]
    assert synthesize([*argv, "--anomaly_name", "scratch,hole", "--count", "6"]) == 0
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    for row in rows:
        row["scores"] = {"seam": (row["index"] * 5) % 7 / 2}
    (out / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


@pytest.fixture
def page() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1250})
        page.set_default_timeout(120_000)
        page.dialogs, page.foreign = [], []
        page.on("dialog", lambda d: (page.dialogs.append(d.message), d.dismiss()))
        local = ("http://127.0.0.1:", "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(local) else page.foreign.append(r.url))
        yield page
        browser.close()


def says(page: Any, place: str, text: str) -> None:
    page.wait_for_selector(f"#{place} :text({json.dumps(text)})")


def test_paint_make_keep_reject_undo_regenerate_export(
    page: Any, normals: Path, pairs: Path, tiny_artifact: Path, drawn_root: Path, tmp_path: Path
) -> None:
    bench = Workbench(str(normals), str(tiny_artifact), str(drawn_root), device="cpu", split="all")
    with studio(bench, pairs, tmp_path / "kept") as url:
        page.goto(url)
        _paint_and_keep(page, tmp_path / "kept", normals)
        _judge(page, pairs)
        _regenerate_and_export(page, pairs)
        page.reload()  # a closed browser loses nothing
        page.get_by_role("tab", name="Review").click()
        says(page, "judged", "2 accepted, 0 rejected")
    assert page.dialogs == []  # no name of a file was run
    assert page.foreign == []  # nothing was fetched from elsewhere


def _paint_and_keep(page: Any, kept: Path, normals: Path) -> None:
    box = page.locator("#editor canvas").first.bounding_box()
    page.wait_for_timeout(1500)  # the editor fits the picture in
    page.locator("#kind input").click()
    page.get_by_role("option", name="wood/crack").click()
    page.wait_for_selector("#real img")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 10, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.click("#make")
    says(page, "told", "Made in")
    page.click("#keep")
    says(page, "told", "Kept as number 0")
    _drawn_and_kept(page, kept)
    row = read_records(kept)[0]
    assert (row["type"], row["method"], row["painted_mask"]) == ("wood/crack", "fast", True)
    mask, image = read_mask(kept / row["mask"]), read_image(kept / row["image"])
    normal = read_image(row["normal_source"])
    assert 0 < mask.mean() < 0.5
    assert (image[mask == 0] == normal[mask == 0]).all()
    assert (image[mask == 1] != normal[mask == 1]).any()


def _drawn_and_kept(page: Any, kept: Path) -> None:
    """A drawn mask is filled as it was drawn, where nothing is painted beside it."""
    page.click("#wipe")
    page.wait_for_timeout(1000)
    page.click("#draw")
    says(page, "told", "A drawn mask of")
    pixels = int(page.inner_text("#told").split("mask of ")[1].split()[0])
    page.wait_for_timeout(1000)
    page.click("#make")
    says(page, "told", "Made in")
    assert f" {pixels} pixels of" in page.inner_text("#told")
    page.click("#keep")
    says(page, "told", "Kept as number 1")
    assert read_mask(kept / read_records(kept)[1]["mask"]).sum() == pixels


def _judge(page: Any, pairs: Path) -> None:
    page.get_by_role("tab", name="Review").click()
    says(page, "judged", "6 of 6 pairs shown")
    assert page.locator("#grid .card").count() == 6
    page.locator("#by input").click()
    page.get_by_role("option", name="seam").click()
    page.wait_for_selector("#grid .card >> nth=0 >> text=seam 0")
    order = [int(card.get_attribute("data-index")) for card in page.locator("#grid .card").all()]
    assert order == sorted(range(6), key=lambda i: (i * 5) % 7)
    page.locator("#grid .card").nth(0).click()
    says(page, "judged", "1 pair chosen")
    page.locator("#grid .card").nth(1).click(modifiers=["Shift"])
    says(page, "judged", "2 pairs chosen")
    page.keyboard.press("a")
    says(page, "judged", "2 accepted")
    assert {i for i, d in Review(pairs).decisions().items() if d.decision == "accepted"} == set(order[:2])
    page.locator("#grid .card").nth(5).click()
    says(page, "judged", "1 pair chosen")
    page.locator("#reason input").click()
    page.get_by_role("option", name="visible seam").click()
    page.click("#reject")
    says(page, "judged", "2 accepted, 1 rejected")
    assert Review(pairs).decisions()[order[5]].reason == "visible seam"
    page.locator("#grid .card").nth(4).click()
    says(page, "judged", "1 pair chosen")
    page.keyboard.press("r")
    says(page, "judged", "2 accepted, 2 rejected")
    page.keyboard.press("u")
    says(page, "judged", "Taken back")
    assert rejected(pairs) == {order[5]}


def _regenerate_and_export(page: Any, pairs: Path) -> None:
    (gone,) = rejected(pairs)
    page.click("#again")
    says(page, "judged", "1 pair made anew")
    assert {row["index"] for row in read_records(pairs)} == {*range(7)} - {gone}
    assert (pairs / "rejected/image" / f"{gone:06d}.png").is_file()
    page.fill("#name textarea, #name input", "good")
    page.click("#export")
    says(page, "judged", "2 accepted pairs exported")
    assert len(read_records(pairs.parent / "good")) == 2
