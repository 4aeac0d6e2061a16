"""Real defects of the training side set into normal pictures: the baseline that papers leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np

from fast.data.index import DatasetIndex, Sample, require_defects
from fast.data.layouts import check, open_dataset
from fast.data.split import make_split, split_file
from fast.generators.base import MadePair, Placing, Split
from fast.generators.blend import change, check_range
from fast.generators.cutouts import Cutout, contents_of, cut_out, keeps_place, without_slips
from fast.generators.moved import Moved, Way, grey_of, moved_by, overlap, spanning, unlike
from fast.generators.outline import FURTHEST, Outline, outline_of, with_fringe
from fast.generators.seam import BLENDS, fitted
from fast.generators.surroundings import NOWHERE, found_again
from fast.masks.foreground import Ground
from ldm.errors import UserError

Rng = np.random.Generator
CANDIDATES = 10  # places, turns and sizes of which the one whose ground is most alike is taken
DRAWS = 60  # of a place that lies on the object
INSIDE = 0.95  # share of the defect that has to lie on the object
NEAR = 0.06  # standard deviation of a place about its own, as a share of the object's size
LEAN = 3.0  # degrees by which a defect is turned among its own surroundings
TILT = 12.0  # degrees by which a defect is turned on a surface that has a direction
VISIBLE = 5.0  # grey levels by which a defect has to change its new ground on average


class Transplant(Placing):
    """Set real defects into normal pictures: cut out, moved, turned, mirrored and scaled.

    Levels and noise of each piece are matched to its new ground. Ten ways (place, turn, size) are tried for each pair,
    and the one is taken whose ground is most like the defect's own, as long as the defect changes it by 5 grey levels
    on average.

    A defect that a border of its picture cuts off stays at that border of the object. One that goes from border to
    border, such as a stripe along an edge of the part, does so on the new object too, cut or stretched to its size.
    Defects that fill their picture (`Cutout.movable` is False) serve only types that have no others.

    The mask is the annotation's, moved along and cut at the edge of the object. Beyond the mask and its fringe
    (`MadePair.filled`) every byte is the picture's.

    Args:
        defects: the folder of a dataset with masks. None: call `fit` before use.
        split: which of its defects to use: "third" (as prepare_data.py draws it), "all", or the path of a split file,
            of which the training side counts.
        category: the one category of `defects` to use. None: all of them.
        scale: the least and the greatest factor on a defect's own size, within [0.2, 5].
        turn: the greatest turn to either side, 0 to 180 degrees. On a surface with a direction it is 12 degrees at
            most, or that after half a turn if `turn` is above 90. Types that keep their place also turn by 12 degrees
            at most, and defects that a border cuts off do not turn.
        blend: "poisson" or "feather", see `fast.generators.seam.fitted`.
        keep_place: True keeps defects near their own place, for types whose defects gather at a place of the part: its
            rim, or a band. A Kolmogorov-Smirnov test at 5 % finds these types. Where pictures are alike enough to find
            the surroundings of a defect again (`fast.generators.surroundings`), it comes to such a place, not mirrored
            and turned by 3 degrees at most.
        on_object: where defects may lie: a rule of `fast.masks.foreground`, the path of a mask file, or "off" for the
            whole picture.
        fringe: how many px around the annotation come along with a defect, 0 to 8. Edges are soft and people outline
            what they are sure of, so a piece cut at its annotation would teach that defects end where masks do. None:
            as far as a type's defects show beyond their masks (`fast.generators.outline`), which is 0 for sharp ones.

    Raises:
        UserError: when an option is unknown or out of range, or when `defects` holds no defect to cut out.
    """

    name = "transplant"
    takes_mask = False
    native = True

    def __init__(
        self,
        defects: str | None = None,
        split: str = "third",
        category: str | None = None,
        scale: Sequence[float] = (0.8, 1.25),
        turn: float = 180.0,
        blend: str = "poisson",
        keep_place: bool = True,
        on_object: str = "auto",
        fringe: int | None = None,
    ):
        if fringe is not None and not 0 <= fringe <= FURTHEST:
            raise UserError(f"fringe={fringe} is out of range; give 0 to {FURTHEST} px, or leave it out")
        if blend not in BLENDS:
            raise UserError(f"blend={blend!r} is unknown; use one of {', '.join(BLENDS)}")
        if not 0 <= turn <= 180:
            raise UserError(f"turn={turn} is out of range; give 0 to 180 degrees")
        self.scale, self.turn = check_range("scale", scale, 0.2, 5), float(turn)
        self.blend, self.keep_place = blend, keep_place
        self.ground = None if on_object == "off" else Ground(on_object)
        self.samples: list[Sample] = []  # those that there is a cutout of
        self.cutouts: dict[str, list[Cutout]] = {}
        self.near: dict[str, bool] = {}
        self.fringe = fringe
        self.outlines: dict[str, Outline] = {}
        self.content, self.parts, self.split_hash = "", "", split
        self.left_out: list[str] = []  # files of `dataset` that are not fit to be used
        self.doubts: list[str] = []  # about how it is read, and what cannot be moved as it should
        self.dataset = ""
        if defects is not None:
            self._learn(training_side(defects, split, category))

    def fit(self, split: Split) -> None:
        """Cut out the defects of `split`: all of an index, or the training third of a path.

        Raises:
            UserError: when there is no defect to cut out.
        """
        if isinstance(split, DatasetIndex):
            require_defects(split)
            self._learn(TrainingSide(split.defects, "as given", [], [], str(split.root)))
        else:
            self._learn(training_side(str(split), "third", None))

    def _learn(self, side: TrainingSide) -> None:
        samples, self.split_hash, self.left_out, self.doubts, self.dataset = side
        self.cutouts, self.outlines = {}, {}
        self.content, self.parts = contents_of(samples)
        for sample in samples:
            for cutout in cut_out(sample, self.ground):
                self.cutouts.setdefault(cutout.kind, []).append(cutout)
        if not self.cutouts:
            raise UserError(f"none of {len(samples)} defects has a mask with a pixel in it; transplant needs masks")
        self.cutouts = {kind: without_slips(found) for kind, found in self.cutouts.items()}
        sources = {cutout.source for found in self.cutouts.values() for cutout in found}
        self.samples = [sample for sample in samples if sample.image in sources]
        for kind, found in self.cutouts.items():
            outline = outline_of(found)
            self.outlines[kind] = outline if self.fringe is None else replace(outline, fringe=self.fringe)
            width = self.outlines[kind].fringe
            fit = [c for c in found if c.movable]
            if not fit:
                told = f"every defect of {kind} covers most of its picture, and brings all of it along when it is moved"
                self.doubts = [*self.doubts, f"{told}; outline them more closely, or leave that type out"]
                fit = found
            self.cutouts[kind] = [replace(c, filled=with_fringe(c.mask, width) & c.clean) for c in fit]
        self.types = sorted(self.cutouts)
        self.categories = sorted({kind.split("/", 1)[0] for kind in self.types})
        self.near = {kind: self.keep_place and keeps_place(found) for kind, found in self.cutouts.items()}

    def settings(self) -> dict[str, Any]:
        return {
            "defects_sha256": self.content,
            "split": self.split_hash,
            "scale": list(self.scale),
            "turn": self.turn,
            "blend": self.blend,
            "near": {kind: self.near[kind] for kind in self.types},
            **({"surroundings": True} if any(self.near.values()) else {}),
            "parts_sha256": self.parts,
            "fringe": {kind: self.outlines[kind].fringe for kind in self.types},
            "soft": {kind: self.outlines[kind].soft for kind in self.types},
            "on_object": None if self.ground is None else self.ground.settings(),
        }

    def origin(self, rng: Rng, anomaly: str | None = None) -> dict[str, str]:
        return {"defect_source": str(self._pick(rng, anomaly).source)}

    def pair(
        self,
        image: np.ndarray,
        mask: np.ndarray | None,
        rng: Rng,
        anomaly: str | None = None,
        region: np.ndarray | None = None,
    ) -> MadePair:
        """See `Placing.pair`. A given mask is ignored, because each defect brings its own."""
        cutout = self._pick(rng, anomaly)
        where = self.object_in(image, region)
        grey = bool((image == image[..., :1]).all())
        cutout = replace(cutout, image=grey_of(cutout.image)) if grey else cutout
        _, _, wide, high = cv2.boundingRect(where)
        near, soft = self.near[cutout.kind], self.outlines[cutout.kind].soft
        spots = self._spots(cutout, image, where) if near else NOWHERE
        tries = []
        for _ in range(CANDIDATES):  # not kept as they are: ten pieces as large as the picture would be a lot
            way = self._way(cutout, rng, (high, wide), len(spots) > 0)
            moved = moved_by(way, cutout, near)
            corner, share = self._corner(moved, where, rng, spots)
            # What would be cut off is worse than any other ground.
            tries.append((unlike(image, moved, corner) + 255 * (share < INSIDE) * (1 - share), way, corner))
        found: list[MadePair] = []
        for _, way, corner in sorted(tries, key=lambda each: each[0]):
            pair = self._set(image, moved_by(way, cutout, near), corner, where, rng, soft)
            if pair is not None:
                found.append(replace(pair, origin={"defect_source": str(cutout.source)}))
                if change(image, (pair.image, pair.mask)) >= VISIBLE:
                    return found[-1]
        if not found:
            raise UserError(f"{cutout.source}: its defect finds no place on the object; is the region right?")
        return max(found, key=lambda each: change(image, (each.image, each.mask)))

    def _pick(self, rng: Rng, anomaly: str | None) -> Cutout:
        """The first thing that is drawn of a pair, so that `origin` can tell. Every physical part counts once, as where
        a segmenter's real defects are drawn, and of it every picture."""
        if not self.cutouts:
            raise UserError("transplant has no defects yet; give defects=FOLDER (--defects), or call fit")
        if anomaly is not None and anomaly not in self.cutouts:
            raise UserError(f"transplant has no defect of type {anomaly!r}; it has {', '.join(self.types)}")
        kind = self.types[int(rng.integers(len(self.types)))] if anomaly is None else anomaly
        own = self.cutouts[kind]
        parts = sorted({c.group for c in own})
        part = parts[int(rng.integers(len(parts)))]
        sources = sorted({c.source for c in own if c.group == part})
        source = sources[int(rng.integers(len(sources)))]
        own = [c for c in own if c.source == source]
        areas = np.array([c.mask.sum() for c in own], float)
        return own[int(rng.choice(len(own), p=areas / areas.sum()))]

    def _spots(self, cutout: Cutout, image: np.ndarray, region: np.ndarray) -> np.ndarray:
        """Middles (n,2) near its own place at which a cutout would have its own surroundings in a picture."""
        if any(cutout.touches):
            return NOWHERE  # a border holds it
        left, top, wide, high = cv2.boundingRect(region)
        middle = top + cutout.place[0] * high, left + cutout.place[1] * wide
        return found_again(cutout.around, image, middle, (2 * NEAR * high, 2 * NEAR * wide))

    def _way(self, cutout: Cutout, rng: Rng, size: tuple[int, int], found: bool) -> Way:
        """How a cutout is mirrored, turned and scaled, by chance, for an object whose box has this height and width.
        `found`: it comes among its own surroundings, whose mirror image they are not."""
        near, fixed = self.near[cutout.kind], any(cutout.touches)
        turn = rng.uniform(-self.turn, self.turn)
        if near or fixed or cutout.grained:
            turn = rng.uniform(-1, 1) * min(TILT, self.turn) * (not fixed)
            turn += 180.0 * (not near and not fixed and self.turn > 90 and rng.random() < 0.5)
        mirror = bool(rng.random() < 0.5)
        scale = float(np.exp(rng.uniform(*np.log(self.scale))))
        if found:
            return Way(False, turn * LEAN / TILT, (scale, scale))
        if any(cutout.spans):
            return spanning(cutout, rng, mirror, scale, size)
        return Way(mirror, turn, (scale, scale))

    def _corner(self, moved: Moved, region: np.ndarray, rng: Rng, spots: np.ndarray) -> tuple[tuple[int, int], float]:
        """Top left corner of the piece in the picture, of a place on the object if there is one, and the share of the
        defect that lies on it there. `spots`: middles of which it has to be one, if there are any."""
        height, width = moved.mask.shape
        left, top, wide, high = cv2.boundingRect(region)
        box, (rows, cols) = cv2.boundingRect(moved.mask), np.nonzero(moved.mask)
        best, most = (0, 0), -1.0
        for _ in range(DRAWS):
            if len(spots):  # of its box, which is not always in the middle of the piece: a border may have cut that
                y, x = spots[int(rng.integers(len(spots)))]
                corner = [round(y - box[1] - box[3] / 2), round(x - box[0] - box[2] / 2)]
            else:
                near = (moved.place[i] + rng.normal(0, NEAR) for i in (0, 1))
                y, x = near if moved.near else rng.uniform(0, 1, 2)
                corner = [round(top + y * high - height / 2), round(left + x * wide - width / 2)]
            # What a border of its picture cuts off stays at that border of the object.
            for axis, (first, last) in enumerate((moved.touches[:2], moved.touches[2:])):
                own = (rows, cols)[axis]
                if first:
                    corner[axis] = (top, left)[axis] - int(own.min())
                elif last:
                    corner[axis] = (top + high, left + wide)[axis] - 1 - int(own.max())
            at = rows + corner[0], cols + corner[1]
            known = (at[0] >= 0) & (at[0] < region.shape[0]) & (at[1] >= 0) & (at[1] < region.shape[1])
            share = float((region[at[0][known], at[1][known]] > 0).sum()) / len(rows)
            if share > most:
                best, most = (corner[0], corner[1]), share
            if share >= INSIDE:
                break
        return best, most

    def _set(
        self, image: np.ndarray, moved: Moved, corner: tuple[int, int], region: np.ndarray, rng: Rng, soft: bool
    ) -> MadePair | None:
        """The picture with the piece at a place, and its mask; None where nothing of it lies on the object. `soft`:
        its border gives way to the new ground."""
        here, there = overlap(image.shape, moved.mask.shape, corner)
        mask, filled = np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], np.uint8)
        mask[here] = moved.mask[there] & (region[here] != 0)
        if not mask.any():
            return None
        filled[here] = mask[here] | (moved.filled[there] & moved.valid[there] & (region[here] != 0))
        made, valid, whole = image.copy(), moved.valid[there], moved.filled[there] if soft else None
        made[here] = fitted(moved.image[there], image[here], filled[here], valid, rng, self.blend, whole)
        return MadePair(made, mask, filled=filled if (filled > mask).any() else None)


class TrainingSide(NamedTuple):
    """The defects of a dataset that training may use.

    Args:
        samples: these defects.
        split: the hash of the split that they are taken by, or "all".
        left_out: files of the dataset, on either side of the split, that are not fit to be used.
        doubts: remarks about how the dataset is read.
        dataset: its folder.
    """

    samples: list[Sample]
    split: str
    left_out: list[str]
    doubts: list[str]
    dataset: str


def training_side(defects: str, split: str, category: str | None) -> TrainingSide:
    """The defects of a dataset that may be used. Raises `UserError`."""
    file = split_file(split)  # refused before the images are read
    whole = open_dataset(defects, category=category)
    index = check(replace(whole, normals=[], test_normals=[])).usable
    require_defects(index)
    if split == "all":
        return TrainingSide(index.defects, "all", index.left_out, index.doubts, defects)
    chosen = make_split(index) if file is None else file
    train, _ = chosen.apply(index)
    if not train:
        raise UserError(f"split {split} leaves no defect to cut out; use another, or --split all")
    return TrainingSide(train, chosen.hash, index.left_out, index.doubts, defects)
