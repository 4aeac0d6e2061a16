"""groups.csv: which physical part each image shows, as somebody knows; read, and put right where parts are one."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from fast.data.images import natural_key
from fast.data.index import DatasetIndex, Sample, relative_to
from ldm.errors import UserError

GROUPS = "groups.csv"
COLUMNS = ("image", "group")


def read_table(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a CSV file as stripped strings. UserError when it cannot be read or lacks a column."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [c for c in columns if c not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{table}: no column '{missing[0]}'; it needs {', '.join(columns)}")
            return [{c: (row[c] or "").strip() for c in columns} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: cannot read the table ({error}); save it as UTF-8 CSV") from error


def read_groups(folder: Path) -> dict[Path, str]:
    """groups.csv of a folder: image -> physical part. UserError when an image is given two parts."""
    table = folder / GROUPS
    groups: dict[Path, str] = {}
    for row in read_table(table, COLUMNS) if table.is_file() else ():
        image = _file(folder, row["image"])
        if groups.setdefault(image, row["group"]) != row["group"]:
            raise UserError(f"{table}: '{row['image']}' has two groups, {groups[image]} and {row['group']}; keep one")
    return groups


class GroupTables:
    """The groups.csv of each category of `index` in which groups get other names: `names`, (category, group) -> name.

    `tables`: what they are to hold. Rows and columns that were there stay as they are but for the names, and every
    defect of such a category has a row.
    UserError for a table that cannot be read, and for a file name that a table cannot hold."""

    def __init__(self, index: DatasetIndex, names: Mapping[tuple[str, str], str]):
        samples: dict[str, list[Sample]] = defaultdict(list)
        for sample in [*index.defects, *index.excluded, *index.normals, *index.test_normals]:
            samples[sample.category].append(sample)
        defects = {s.image for s in [*index.defects, *index.excluded]}
        self.tables: dict[Path, str] = {}
        for category in dict.fromkeys(category for category, _ in names):
            folder = index.folders[category]
            own = {group: name for (of, group), name in names.items() if of == category}
            wanted = {
                s.image: own.get(s.group, s.group) for s in samples[category] if s.image in defects or s.group in own
            }
            self.tables[folder / GROUPS] = _renamed(folder / GROUPS, wanted, own)

    def files(self) -> dict[Path, bytes]:
        """What is to be written where: a link's file, not the link."""
        return {path.resolve(): text.encode() for path, text in self.tables.items()}


def _renamed(table: Path, wanted: Mapping[Path, str], names: Mapping[str, str]) -> str:
    """The text of a table, or of a new one, in which images have the `wanted` groups, and others by their `names`."""
    read_groups(table.parent)  # says what is wrong with it
    before = table.read_bytes().decode("utf-8-sig") if table.is_file() else ""
    marked = table.is_file() and table.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(StringIO(before, newline=""))) or [list(COLUMNS)]
    image, group = (rows[0].index(column) for column in COLUMNS)
    left = dict(wanted)
    for row in rows[1:]:
        if len(row) > max(image, group) and row[image].strip():
            own = left.pop(_file(table.parent, row[image].strip()), names.get(row[group].strip()))
            row[group] = row[group] if own is None else own
    for path, name in sorted(left.items(), key=lambda item: natural_key(item[0])):
        new = [""] * len(rows[0])
        new[image], new[group] = relative_to(path, table.parent), name
        rows.append(new)
    text = StringIO()
    csv.writer(text, lineterminator="\r\n" if "\r\n" in before else "\n").writerows(rows)
    for row in rows:
        _storable(table, row)
    return "\ufeff" * marked + text.getvalue()


def _storable(table: Path, row: list[str]) -> None:
    for cell in row:
        try:
            cell.encode()
        except UnicodeEncodeError:
            shown = cell.encode(errors="backslashreplace").decode()
            raise UserError(f"{table}: the name of {shown} is not valid in UTF-8; rename the file") from None


def _file(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder / name.replace("\\", "/")))
