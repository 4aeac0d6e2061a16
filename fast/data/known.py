"""Published datasets, known by their folders: licence, citation, and what to mind."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fast.data.index import DatasetIndex

PAGE = "see the dataset's page"
NON_COMMERCIAL = "CC BY-NC-SA 4.0: no commercial use, nor of models trained on it"


@dataclass(frozen=True)
class Known:
    """A published dataset. `traps`: what misleads in it, and what is done about it here."""

    name: str
    fits: Callable[[DatasetIndex], bool]
    licence: str
    citation: str
    traps: tuple[str, ...]


MVTEC_TYPES = {
    "bottle": "broken_large broken_small contamination",
    "cable": "bent_wire cable_swap combined cut_inner_insulation cut_outer_insulation missing_cable missing_wire "
    "poke_insulation",
    "capsule": "crack faulty_imprint poke scratch squeeze",
    "carpet": "color cut hole metal_contamination thread",
    "grid": "bent broken glue metal_contamination thread",
    "hazelnut": "crack cut hole print",
    "leather": "color cut fold glue poke",
    "metal_nut": "bent color flip scratch",
    "pill": "color combined contamination crack faulty_imprint pill_type scratch",
    "screw": "manipulated_front scratch_head scratch_neck thread_side thread_top",
    "tile": "crack glue_strip gray_stroke oil rough",
    "toothbrush": "defective",
    "transistor": "bent_lead cut_lead damaged_case misplaced",
    "wood": "color combined hole liquid scratch",
    "zipper": "broken_teeth combined fabric_border fabric_interior rough split_teeth squeezed_teeth",
}
LOCO = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
VISA = ("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4",
        "pipe_fryum")  # fmt: skip
MPDD = ("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes")


def _named(names: tuple[str, ...], layout: str) -> Callable[[DatasetIndex], bool]:
    """True for an index of this layout whose categories are all among `names`."""
    return lambda index: index.layout == layout and bool(index.categories) and set(index.categories) <= set(names)


def _is_mvtec(index: DatasetIndex) -> bool:
    pairs = {(s.category, s.anomaly) for s in [*index.defects, *index.excluded]}
    named = all(kind in MVTEC_TYPES.get(category, "").split() for category, kind in pairs)
    return index.layout == "mvtec" and bool(pairs) and named


def _is_ksdd2(index: DatasetIndex) -> bool:
    masks = [s.mask for s in index.defects if s.mask is not None]
    return index.layout == "beside" and bool(masks) and all(re.fullmatch(r"\d{5}_GT", m.stem) for m in masks)


def _of_layout(layout: str) -> Callable[[DatasetIndex], bool]:
    return lambda index: index.layout == layout


DATASETS = (
    Known(
        "MVTec AD",
        _is_mvtec,
        NON_COMMERCIAL,
        "Bergmann, Batzner, Fauser, Sattlegger, Steger: The MVTec Anomaly Detection Dataset, IJCV 129(4), 2021; "
        "Bergmann, Fauser, Sattlegger, Steger: MVTec AD, CVPR 2019",
        (
            "types called 'combined' hold several kinds of defect in one mask, without saying which is where",
            "defects such as transistor/misplaced or cable/cable_swap are wrong parts, not damage: no method that "
            "fills a mask can make them",
        ),
    ),
    Known(
        "MVTec LOCO AD",
        _named(LOCO, "mvtec"),
        NON_COMMERCIAL,
        "Bergmann, Batzner, Fauser, Sattlegger, Steger: Beyond Dents and Scratches: Logical Constraints in "
        "Unsupervised Anomaly Detection and Localization, IJCV 130, 2022",
        (
            "an image has several masks in a folder of its name, each with a grey level of its own that names the kind "
            "(defects_config.json): all are joined to one mask here",
            "masks of logical_anomalies cover wherever something may be missing or too much, not the pixels of damage: "
            "train on structural_anomalies alone (--anomaly structural_anomalies)",
        ),
    ),
    Known(
        "VisA",
        _named(VISA, "visa"),
        "CC BY 4.0",
        "Zou, Jeong, Pemula, Zhang, Dabeer: SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and "
        "Segmentation, ECCV 2022",
        (
            "masks hold small label numbers and look black: all but 0 is defect here",
            "image_anno.csv names the types, often several for an image, which then are one type a+b here; without it "
            "all defects are 'anomaly'",
            "split_csv/1cls.csv says which normal images are for testing: keep that folder beside the categories",
        ),
    ),
    Known(
        "BTAD",
        _named(("01", "02", "03"), "btad"),
        PAGE + "; known as for research only",
        "Mishra, Verk, Fornasier, Piciarelli, Foresti: VT-ADL: A Vision Transformer Network for Image Anomaly "
        "Detection and Localization, ISIE 2021",
        (
            "its one type is the folder 'ko', called 'damaged' here",
            "the categories are called 01, 02 and 03, which says nothing to a text encoder: give --init_word",
            "masks are BMP in one category and PNG in the others",
        ),
    ),
    Known(
        "MPDD",
        _named(MPDD, "mvtec"),
        PAGE,
        "Jezek, Jonak, Burget, Dvorak, Skotak: Deep learning-based defect detection of metal parts: evaluating current "
        "methods in complex conditions, ICUMT 2021",
        (
            "types called parts_mismatch and bend_and_parts_mismatch are wrong or bent parts, not damage of a surface",
            "parts lie in other places and at other angles in each image: keep masks on the object (--on_object)",
        ),
    ),
    Known(
        "KolektorSDD",
        _of_layout("kolektor"),
        NON_COMMERCIAL,
        "Tabernik, Sela, Skvarc, Skocaj: Segmentation-Based Deep-Learning Approach for Surface-Defect Detection, "
        "Journal of Intelligent Manufacturing 31, 2020",
        (
            "labels are called Part0_label.bmp, beside Part0.jpg: taken for images they would be black normals",
            "an image with an empty label is a normal one",
            "the images in one folder kosNN are of one item: the split keeps them on one side",
        ),
    ),
    Known(
        "KolektorSDD2",
        _is_ksdd2,
        NON_COMMERCIAL,
        "Bozic, Tabernik, Skocaj: Mixed supervision for surface-defect detection: from weakly to fully supervised "
        "learning, Computers in Industry 129, 2021",
        (
            "masks are called 10000_GT.png, beside 10000.png; an empty one marks a normal image",
            "train/ and test/ are the authors' split: defects of both are divided anew here, so scores do not compare "
            "with theirs",
        ),
    ),
    Known(
        "DAGM 2007",
        _of_layout("dagm"),
        PAGE,
        "Wieler, Hahn: Weakly Supervised Learning for Industrial Optical Inspection, DAGM 2007",
        (
            "labels are ellipses drawn roughly around a defect, not its pixels: a pixel-wise score says how well "
            "ellipses are copied, and a generator learns defects with a wide margin of good surface",
            "images without a label are normals, and those in Test are kept to test on",
            "the textures are computed, not photographed",
        ),
    ),
    Known(
        "Magnetic tile",
        _of_layout("magnetic_tile"),
        PAGE + "; the authors ask to be cited",
        "Huang, Qiu, Yuan: Surface defect saliency of magnetic tile, The Visual Computer 36, 2020",
        (
            "a tile was photographed up to six times in different light, and names do not say which images show the "
            "same one: a split by images leaks; write a groups.csv (image,group), or have most of it written by "
            "prepare_data.py --join_alike, for scores that count",
            "masks have soft edges, read at half; some masks of 'uneven' are empty, and left out by name",
        ),
    ),
    Known(
        "BSData",
        _of_layout("bsdata"),
        "CC BY-SA 4.0",
        "Schlagenhauf, Landwehr, Fleischer: Industrial Machine Tool Element Surface Defect Dataset, 2021, "
        "arXiv:2103.13003",
        (
            "images of one spot on the spindle are a time series of a pit that grows: the split keeps them on a side",
            "whether an image shows pitting is said by its file in label/, not by the digit at the end of its name",
        ),
    ),
)  # fmt: skip


def known_dataset(index: DatasetIndex) -> Known | None:
    """The published dataset that an index looks like; None for one's own data."""
    return next((known for known in DATASETS if known.fits(index)), None)


def about(known: Known) -> list[str]:
    """Lines for a terminal."""
    lines = [f"looks like {known.name}", f"licence: {known.licence}", f"cite: {known.citation}"]
    return [*lines, *(f"mind: {trap}" for trap in known.traps)]
