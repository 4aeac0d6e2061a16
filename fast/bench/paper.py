"""The numbers printed in FAST's and STAGE's papers, in percent, and what is known to be wrong with some of them.

Each table is a CSV in `paper/`: `[backbone,] category, <column key>, metrics...`. Its values are as printed; a slip is
never repaired, it is told in the value's note.
"""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from types import MappingProxyType

from ldm.errors import UserError

AVERAGE = "Average"
DECIMALS = 2  # as printed
ELSEWHERE = "paper: average over "  # a note that begins so: the number stands for other categories than ours
ANOTHER = "the paper's is "  # a note that begins so: the number is another network's than ours
# (title, dataset, segmenter of a table without a column for it)
_TITLES = {
    "fast_table1_mvtec_segformer": ("FAST, Table 1", "MVTec-AD", "segformer"),
    "fast_table2_btad": ("FAST, Table 2", "BTAD", ""),
    "fast_table3_mvtec_steps": ("FAST, Table 3", "MVTec-AD", "segformer"),
    "fast_table4_mvtec_bisenetv2": ("FAST, Table 4", "MVTec-AD", "bisenetv2"),
    "fast_table5_mvtec_stdc": ("FAST, Table 5", "MVTec-AD", "stdc"),
    "fast_table6_mvtec_farm": ("FAST, Table 6", "MVTec-AD", "segformer"),
    "fast_table7_mvtec_samplers": ("FAST, Table 7", "MVTec-AD", "segformer"),
    "stage_table2_mvtec_segformer": ("STAGE, Table II", "MVTec-AD", "segformer"),
    "stage_table3_mvtec_bisenetv2": ("STAGE, Table III", "MVTec-AD", "bisenetv2"),
    "stage_table4_mvtec_stdc": ("STAGE, Table IV", "MVTec-AD", "stdc"),
    "stage_table5_btad": ("STAGE, Table V", "BTAD", ""),
    "stage_table6_mvtec_auroc_pro": ("STAGE, Table VI", "MVTec-AD", "segformer"),
    "stage_table7_mvtec_f1_ap": ("STAGE, Table VII", "MVTec-AD", "segformer"),
}
# Segmenters of the papers, as they write them.
_SEGMENTERS = {"segformer": "SegFormer", "bisenetv2": "BiSeNetV2", "stdc": "STDC"}
_SWAPPED = "the printed row has DFMGAN and RealNet the other way round than FAST's Table 5, which its averages fit"
_IMPOSSIBLE = "printed with Acc below mIoU, which no prediction gives: one of the two is a misprint"
_REPEATED = "the printed value is that of BiSeNetV2 (STAGE's Table III); FAST's Table 5 has mIoU 42.88, Acc 54.74"
# (table, category, label): for every metric of the cell.
_SLIPS = {
    ("stage_table4_mvtec_stdc", "screw", "DFMGAN"): _SWAPPED,
    ("stage_table4_mvtec_stdc", "screw", "RealNet"): _SWAPPED,
    ("stage_table4_mvtec_stdc", "tile", "DFMGAN"): _SWAPPED,
    ("stage_table4_mvtec_stdc", "tile", "RealNet"): _SWAPPED,
    ("stage_table4_mvtec_stdc", "cable", "CutPaste"): _REPEATED,
    ("fast_table1_mvtec_segformer", "capsule", "DFMGAN"): _IMPOSSIBLE,
    ("stage_table2_mvtec_segformer", "capsule", "DFMGAN"): _IMPOSSIBLE,
}
# What a whole metric of a table is, where that is not what its name says.
_UNSTATED = {
    ("stage_table7_mvtec_f1_ap", "F1"): "the paper does not state F1's threshold; most rows are too low for an F1-max",
    ("stage_table6_mvtec_auroc_pro", "PRO"): "the paper does not state PRO's thresholds or limit",
}


@dataclass(frozen=True)
class Value:
    """A number of a paper in percent. `notes`: what to know of it. `computed`: worked out from printed ones."""

    number: float
    notes: tuple[str, ...] = ()
    computed: bool = False


@dataclass(frozen=True)
class PaperTable:
    """`column`: the key of its columns (method, steps, farm, sampler). `rows`: (backbone, category), without averages.

    `printed`: what the CSV holds, by (backbone, category, label, metric).
    """

    name: str
    title: str
    dataset: str
    column: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    printed: Mapping[tuple[str, str, str, str], float]

    @property
    def backbones(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(backbone for backbone, _ in self.rows))

    def categories(self, backbone: str | None = None) -> tuple[str, ...]:
        backbone = self._backbone(backbone)
        return tuple(category for own, category in self.rows if own == backbone)

    def value(self, category: str, label: str, metric: str, backbone: str | None = None) -> Value | None:
        """A cell as printed; None where the table has no such cell. The backbone may be left out where there is one."""
        number = self.printed.get((self._backbone(backbone), category, label, metric))
        if number is None:
            return None
        return Value(number, _some(self._slip(category, label), _UNSTATED.get((self.name, metric))))

    def average(
        self, label: str, metric: str, backbone: str | None = None, categories: Collection[str] | None = None
    ) -> Value | None:
        """The printed average over the table's categories; one computed of its rows where none is printed, or where
        only some `categories` are asked for. None where a cell of them is missing.

        A printed one that its own rows do not give, by more than rounding, has a note with what they give.
        """
        backbone = self._backbone(backbone)
        own = self.categories(backbone)
        wanted = own if categories is None else tuple(categories)
        cells = [self.value(category, label, metric, backbone) for category in wanted]
        if not cells or any(cell is None for cell in cells):
            return None
        computed = sum(cell.number for cell in cells if cell) / len(cells)
        unstated = _UNSTATED.get((self.name, metric))
        printed = self.printed.get((backbone, AVERAGE, label, metric))
        if printed is None or set(wanted) != set(own):
            of = "" if set(wanted) == set(own) else f"{len(cells)} of "
            note = f"computed: the paper's rows of {of}{self.dataset}'s {len(own)} categories"
            slips = dict.fromkeys(self._slip(category, label) for category in wanted)
            return Value(computed, _some(note, *slips, unstated), computed=True)
        slip = None
        if abs(computed - printed) > 1.5 * 10**-DECIMALS:  # each is rounded
            slip = f"the printed average; the rows of {self.title} give {computed:.{DECIMALS}f}"
        return Value(printed, _some(slip, unstated))

    def _slip(self, category: str, label: str) -> str | None:
        return _SLIPS.get((self.name, category, label))

    def _backbone(self, backbone: str | None) -> str:
        if backbone is None and len(self.backbones) > 1:
            raise ValueError(f"{self.name} has several backbones ({', '.join(self.backbones)}); name one")
        return self.backbones[0] if backbone is None else backbone


def _some(*notes: str | None) -> tuple[str, ...]:
    return tuple(note for note in notes if note)


def names() -> tuple[str, ...]:
    return tuple(sorted(_TITLES))


@cache
def load(name: str) -> PaperTable:
    """A table by the name of its file. Raises `UserError` for a name that there is none of."""
    if name not in _TITLES:
        raise UserError(f"paper table '{name}' is unknown; give one of {', '.join(names())}")
    title, dataset, backbone = _TITLES[name]
    text = files("fast.bench").joinpath(str(PurePosixPath("paper", f"{name}.csv"))).read_text(encoding="utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    keys = [key for key in lines[0] if key not in ("backbone", "category")]
    column, metrics = keys[0], tuple(keys[1:])
    rows = [(line.get("backbone", backbone), line["category"]) for line in lines]
    printed = {
        (*row, line[column], metric): float(line[metric])
        for row, line in zip(rows, lines, strict=True)
        for metric in metrics
    }
    return PaperTable(
        name,
        title,
        dataset,
        column,
        tuple(dict.fromkeys(line[column] for line in lines)),
        metrics,
        tuple(dict.fromkeys(row for row in rows if row[1] != AVERAGE)),
        MappingProxyType(printed),
    )


def orientation(
    tables: Sequence[PaperTable], backbone: str, category: str, label: str, metric: str, categories: Collection[str]
) -> Value | None:
    """The number to show beside ours; None where no table has this backbone, label and metric. The first that has
    counts.

    A backbone that neither paper has used is shown the number of a table's only one, and a note that says whose.
    Beside an average: the paper's over the same `categories`. For a category that the paper lacks, or an average over
    such: the paper's average over its own, and a note that says so.
    """
    for table in tables:
        (only,) = table.backbones if len(table.backbones) == 1 else (backbone,)
        theirs = backbone if backbone in _SEGMENTERS else only
        if theirs in table.backbones and label in table.labels and metric in table.metrics:
            found = _beside(table, theirs, category, label, metric, categories)
            if found is None or theirs == backbone:
                return found
            return Value(found.number, (*found.notes, f"{ANOTHER}{_SEGMENTERS[theirs]}'s"), found.computed)
    return None


def _beside(
    table: PaperTable, backbone: str, category: str, label: str, metric: str, categories: Collection[str]
) -> Value | None:
    """`orientation` by a table that has the backbone, label and metric."""
    own = table.categories(backbone)
    if category in own:
        return table.value(category, label, metric, backbone)
    if category == AVERAGE and set(categories) <= set(own):
        return table.average(label, metric, backbone, categories)
    found = table.average(label, metric, backbone)
    note = f"{ELSEWHERE}{table.dataset}'s {len(own)} categories"
    return found and Value(found.number, (note, *found.notes), found.computed)
