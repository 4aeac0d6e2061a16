"""Formats checked against the programs that they belong to, in both directions.

    python tools/check_formats.py --out docs/formats.md

A set of hard masks is exported in every format and read by the format's own client; and annotations that such programs
wrote are imported. Counts, areas and every pixel are compared. Clients that are not installed are said to be missing.
Not all of them live beside the project's torch; make them an environment of their own, and use its Python:

    python -m venv clients
    clients/bin/pip install -r requirements.txt pycocotools supervision datumaro datasets webdataset label-studio-sdk \\
      labelme anomalib torchvision mmengine mmcv-lite==2.1.0 mmsegmentation ftfy
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import check_exports
import check_imports

from fast.runtime.tables import markdown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown page to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        exports = list(check_exports.rows(Path(folder) / "out"))
        imports = list(check_imports.rows(Path(folder) / "in"))
    out, into = markdown(check_exports.HEAD, exports, left=2), markdown(check_imports.HEAD, imports, left=2)
    print(f"{out}\n\n{into}")
    if args.out:
        page = PAGE.format(exports=out, imports=into, python=platform.python_version())
        args.out.write_text(page, encoding="utf-8")
    return int(any(row[-1] == "no" for row in [*exports, *imports]))


PAGE = """# Formats, checked with the programs that they belong to

This page shows which exports and imports keep every pixel: each format is read, or written, by its own program.

The test data are eight images of 90 x 61 pixels with hard masks: a ring with an island in it, squares that touch with
a side and with a corner, hairlines, single pixels, dust, a mask of all but three pixels.

The page is written by `python tools/check_formats.py --out docs/formats.md` on Python {python}. The head of that file
says how the programs are installed.

## Exports: `scripts/export.py`, read by them

{exports}

- anomalib and mmsegmentation import torchvision and mmcv, whose compiled operators were not there and were not called.
- LabelMe's `LabelFile` was read without Qt.
- ultralytics was not installed: its way to fill a polygon is a line of OpenCV.

## Imports: written by them, read by `scripts/prepare_data.py --import`

{imports}

The one row with differences has polygons with fractions of pixels. They are filled here by the rule "a pixel whose
centre is inside". pycocotools rounds to fifths of a pixel on its way, hence its few other pixels at the edges.
"""

if __name__ == "__main__":
    sys.exit(main())
