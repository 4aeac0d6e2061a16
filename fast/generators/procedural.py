"""Defects drawn into photographs of any part: scratches, cracks, dents and others, without a real one to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fast.data.drawn.dataset import VERSION
from fast.data.drawn.defects import DEFECTS, FOLLOWERS, defects_of, draw_onto, traits_named
from fast.data.drawn.photo import look_at, traits_of
from fast.data.drawn.surfaces import SMALLEST
from fast.data.drawn.traits import Traits
from fast.generators.base import Placing
from fast.generators.blend import Pair, check_range, given_mask
from fast.masks.foreground import Ground
from ldm.errors import UserError

Rng = np.random.Generator

# Made where no type is named: what happens to any hard surface.
USUAL = ("scratch", "crack", "dent", "hole", "pit", "chip", "stain", "contamination")
# What datasets and inspectors call them, and the types that look so.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "blowhole": ("hole", "pit"),
    "pore": ("pit",),
    "porosity": ("pit",),
    "pitting": ("pit",),
    "poke": ("hole",),
    "puncture": ("hole",),
    "cut": ("scratch", "tear"),
    "squeeze": ("dent",),
    "bent": ("crease", "dent"),
    "wrinkle": ("crease",),
    "fold": ("crease",),
    "break": ("chip",),
    "broken": ("chip", "crack"),
    "spall": ("chip",),
    "rough": ("fray", "pit"),
    "uneven": ("fade", "stain"),
    "color": ("stain", "fade"),
    "colour": ("stain", "fade"),
    "discoloration": ("fade",),
    "liquid": ("stain", "oil"),
    "glue": ("contamination",),
    "dirt": ("contamination", "stain"),
    "corrosion": ("rust",),
    "print": ("misprint",),
    "blister": ("bubble",),
    "damaged": USUAL,
}
# Side in px of the windows that defects are drawn in: below a photo's reference size sizes stop shrinking with the
# object, and above the largest nothing is drawn larger.
DETAIL, LARGEST = 256, 1024
NARROWEST = 64  # side in px of the smallest window, however narrow the object is
INSIDE = 0.75  # share of a drawn defect that has to lie on the object
TRIES = 16
# The rule of the mask: of a change of less than this many grey levels nobody can see anything.
SEEN = 3.0
MARGIN = 12  # px around a given mask that its defect's light may be computed from


class Procedural(Placing):
    """The project's own drawing of defects, in photographs of any size.

    `material`: a material or a family of `fast.data.drawn.traits` (rolled_metal, wood, hide, ...); None: traits estimated
    from each picture. `looks`: for names of your own, the types they are drawn as, {"blowhole": ["hole", "pit"]}.
    `window`: least and greatest side of the square that a defect is drawn in, as shares of the object's width (its
    thickest place); of objects above 256 px the least is 256 px at most, and none is above 1024 px. Types measure from
    a hundredth (pits) to most (cracks) of that square. `on_object`: where defects may lie when neither a region nor a
    mask is given: a rule of `fast.masks.foreground`, a mask file, or `off`.

    Light, grain, noise, sharpness and colour are those of the picture: in a grey one defects are grey. The mask holds
    the pixels that changed by 3 grey levels or more where the drawn change shows, with gaps of a pixel closed and a
    solid defect's inside filled; outside it every byte is the picture's. A given mask is filled with the look of the
    type, if it is one of `FOLLOWERS`; of it the part remains that changed. Learns nothing.
    """

    name = "procedural"

    def __init__(
        self,
        material: str | None = None,
        looks: Mapping[str, Any] | None = None,
        window: Sequence[float] = (0.4, 0.85),
        on_object: str = "auto",
    ):
        self.material = material
        self.traits = None if material is None else traits_named(material)
        self.looks = {**{d: (d,) for d in DEFECTS}, **SYNONYMS, **_looks(looks or {})}
        self.own_looks = {name: list(self.looks[name]) for name in looks or {}}
        self.window = check_range("window", window, 0.05, 1)
        self.rule = on_object
        self.ground = None if on_object == "off" else Ground(on_object)

    @property
    def words(self) -> Sequence[str]:  # type: ignore[override]
        """Types that occur on the material, or on any hard surface."""
        return USUAL if self.material is None else defects_of(self.material)

    def settings(self) -> dict[str, Any]:
        return {
            "material": self.material,
            "looks": self.own_looks,
            "window": list(self.window),
            "on_object": None if self.ground is None else self.ground.settings(),
            "drawing": VERSION,
        }

    def looks_of(self, anomaly: str | None) -> Sequence[str]:
        """The types that a name, "type" or "category/type", is drawn as; None: all that the material has.
        Raises `UserError` for a name that says nothing."""
        if anomaly is None:
            return self.words
        word = anomaly.rpartition("/")[2]
        if word not in self.looks:
            raise UserError(
                f"procedural cannot draw {word!r}; name one of {', '.join(DEFECTS)}, "
                f"or say what it looks like: method.looks.{word}=[scratch]"
            )
        return self.looks[word]

    def check_word(self, anomaly: str) -> None:
        self.looks_of(anomaly)

    def synthesize(
        self,
        image: np.ndarray,
        mask: np.ndarray | None,
        rng: Rng,
        anomaly: str | None = None,
        region: np.ndarray | None = None,
    ) -> Pair:
        """See `Placing.synthesize`."""
        names = self.looks_of(anomaly)
        if min(image.shape[:2]) < SMALLEST:
            height, width = image.shape[:2]
            raise UserError(f"procedural needs pictures of {SMALLEST} px or more a side, not {width} x {height}")
        if mask is not None:
            return self._filled(image, given_mask(mask, image), names, rng)
        where = np.ones(image.shape[:2], np.uint8)
        if region is not None:
            where = given_mask(region, image)
        elif self.ground is not None:
            where = self.ground.of(image)
        return self._drawn(image, where, str(names[int(rng.integers(len(names)))]), rng)

    def _drawn(self, image: np.ndarray, region: np.ndarray, word: str, rng: Rng) -> Pair:
        """The first defect of a few that lies on the object, or the one of which most does, cut at its outline."""
        photo, traits = look_at(image, region), self._traits(image, region)
        spots, wide = np.flatnonzero(region), _thickness(region)
        best, most = None, 0.0
        for _ in range(TRIES):
            place = _window(image.shape, spots, self._side(wide, rng), rng)
            drawn, mask = draw_onto(image[place], traits, word, rng, photo)
            share = float(region[place][mask > 0].mean()) * (0.5 if _cut_off(mask, place, image.shape) else 1.0)
            if share > most:
                best, most = (place, drawn, mask), share
            if share >= INSIDE:
                break
        if best is not None:
            place, drawn, mask = best
            made = image.copy()
            found = np.zeros(image.shape[:2], np.uint8)
            found[place] = _seen(image[place], drawn, mask & region[place])
            made[place][found[place] > 0] = drawn[found[place] > 0]
            if found.any():
                return made, found
        raise UserError(f"no {word} shows on the object in {TRIES} tries; is the region right? try --on_object off")

    def _side(self, wide: float, rng: Rng) -> int:
        """Side in px of the window, for an object so wide."""
        high = min(self.window[1] * wide, LARGEST)
        low = min(self.window[0] * wide, DETAIL, high)
        return max(NARROWEST, round(float(np.exp(rng.uniform(np.log(low), np.log(high))))))

    def _traits(self, image: np.ndarray, region: np.ndarray) -> Traits:
        return traits_of(image, region) if self.traits is None else self.traits

    def _filled(self, image: np.ndarray, mask: np.ndarray, names: Sequence[str], rng: Rng) -> Pair:
        """Each connected part of the mask with the look of one and the same type."""
        able = [name for name in names if name in FOLLOWERS]
        if not able:
            raise UserError(
                f"{' and '.join(names)} has a shape of its own and cannot fill a given mask; leave the masks out, "
                f"or name one of {', '.join(FOLLOWERS)}"
            )
        word = str(able[int(rng.integers(len(able)))])
        whole = np.ones_like(mask)
        photo, traits = look_at(image, whole), self._traits(image, whole)
        made, found = image.copy(), np.zeros_like(mask)
        style = int(rng.integers(2**32))  # one stain's drops are of one colour
        count, parts, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for part in range(1, count):
            place = _around(boxes[part], mask.shape)
            inside = (parts[place] == part).astype(np.uint8)
            drawn, changed = draw_onto(image[place], traits, word, np.random.default_rng(style), photo, inside)
            changed = _seen(image[place], drawn, changed)
            made[place][changed > 0] = drawn[changed > 0]
            found[place] |= changed
        if not found.any():
            raise UserError(f"the mask's {int(mask.sum())} pixels show no {word}; give a larger mask")
        return made, found


def _looks(given: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The option `looks`, checked. Raises `UserError`."""
    found = {}
    for name, types in given.items():
        listed = (types,) if isinstance(types, str) else tuple(types) if isinstance(types, list | tuple) else ()
        if not listed or any(word not in DEFECTS for word in listed):
            raise UserError(f"looks.{name}={types} must be a list of types to draw, of {', '.join(DEFECTS)}")
        found[str(name)] = listed
    return found


def _thickness(region: np.ndarray) -> float:
    """Diameter in px of the largest circle on the object; of a picture that is all object, its shorter side."""
    framed = cv2.copyMakeBorder((region != 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return 2 * float(cv2.distanceTransform(framed, cv2.DIST_L2, 5).max())


def _window(shape: tuple[int, ...], spots: np.ndarray, side: int, rng: Rng) -> tuple[slice, slice]:
    """A window of a picture about a random pixel of the object, given by number, kept within the picture."""
    y, x = divmod(int(rng.choice(spots)), shape[1])
    found = []
    for at, full in ((y, shape[0]), (x, shape[1])):
        own = min(side, full)
        start = int(np.clip(at - own // 2, 0, full - own))
        found.append(slice(start, start + own))
    return found[0], found[1]


def _cut_off(mask: np.ndarray, place: tuple[slice, slice], shape: tuple[int, ...]) -> bool:
    """Whether a defect ends at a side of its window where the picture goes on."""
    rows, cols = place
    return bool(
        (rows.start > 0 and mask[0].any())
        or (rows.stop < shape[0] and mask[-1].any())
        or (cols.start > 0 and mask[:, 0].any())
        or (cols.stop < shape[1] and mask[:, -1].any())
    )


def _around(box: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The window of a picture around a part of a mask, with a margin and no smaller than what can be drawn in."""
    left, top, width, height = (int(v) for v in box[:4])
    found = []
    for start, size, full in ((top, height, shape[0]), (left, width, shape[1])):
        own = min(max(size + 2 * MARGIN, NARROWEST), full)
        begin = int(np.clip(start + size // 2 - own // 2, 0, full - own))
        found.append(slice(begin, begin + own))
    return found[0], found[1]


def _seen(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Of a mask (h,w), what changed by `SEEN` grey levels or more, gaps of a pixel closed within the mask."""
    change = np.abs(after.astype(np.int16) - before).max(2)
    shows = ((change >= SEEN) & (mask != 0)).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(shows, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) & mask, np.uint8)
