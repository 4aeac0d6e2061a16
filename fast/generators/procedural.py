"""Defects drawn into photographs of any part: scratches, cracks, dents and others, without a real one to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fast.generators.base import MadePair, Placing
from fast.generators.blend import ImageMask, check_range, given_mask
from fast.generators.looks import cannot_draw, own_looks
from fast.generators.names import USUAL, drawn_as
from fast.generators.windows import (
    NARROWEST,
    around,
    corner_first,
    cut_off,
    depth_in,
    faded,
    rim,
    seen,
    thickness,
    widened,
    window_at,
)
from fast.masks.foreground import Ground
from fast.procedural.defects import AT_EDGE, FOLLOWERS, LARGE, defects_of, traits_named
from fast.procedural.drawing import draw_onto
from fast.procedural.photo import Photo, look_at, traits_of
from fast.procedural.site import Spot, whole
from fast.procedural.surfaces import SMALLEST
from fast.procedural.traits import Traits
from ldm.errors import UserError

Rng = np.random.Generator

DRAWING = 4  # raised whenever what is drawn into photographs changes, so that no run goes on with another drawing
# Side in px of the windows that defects are drawn in: below a photo's reference size sizes stop shrinking with the
# object, and above the largest nothing is drawn larger.
DETAIL, LARGEST = 256, 1024
INSIDE = 0.75  # share of a drawn defect that has to lie on the object
LARGE_WINDOW = (0.5, 1.3)  # of an area as large as the part: shares of the object's width
LEAST_INSIDE = 0.2  # share of what may lie over an edge that has to be on the object and in the picture
LEAST_BROKEN = 24  # px that a break has at least
CORNER = 0.4  # share of the breaks that go where the object sticks out
TRIES = 16
CHANGES = ("any", "darker", "brighter")


class Procedural(Placing):
    """Draw defects into photographs of any size and of any part, without learning anything.

    Light, grain, noise, sharpness and colour are those of the picture, so in a grey one defects are grey. Types measure
    from a hundredth (pits) to most (cracks) of the square window that they are drawn in. Those of `LARGE` are about as
    large as the object and may run over the picture's edge, and those of `AT_EDGE` lie over the object's edge.

    The mask holds the pixels of the drawn defect that changed by 3 grey levels or more, with gaps of one pixel closed,
    and what a solid defect encloses. A type of `LARGE` fades out towards its border, so all of it is mask if it changed
    by 3 grey levels on average. Outside the mask every byte is the picture's. A given mask is filled with the look of
    the type, if that is one of `FOLLOWERS`, and keeps the part that changed.

    Args:
        material: a material or a family of them in `fast.procedural.traits` (rolled_metal, wood, hide, ...). None: its
            traits are estimated from each picture.
        looks: for names of your own, the types that they are drawn as, such as {"blowhole": ["hole", "pit"]}. "none"
            stands for a name that is not to be drawn.
        window: the least and the greatest side of the window, as shares (0.05 to 1) of the object's width at its
            thickest place. The least is 256 px at most and the greatest 1024 px at most, and no window is below 64 px
            but in a smaller picture. A window for `LARGE` types has 0.5 to 1.3 of the width instead, or of 1024 px for
            a wider object.
        on_object: where defects may lie when neither a region nor a mask is given: a rule of `fast.masks.foreground`,
            the path of a mask file, or "off" for the whole picture.
        change: "darker" or "brighter" keeps only what the drawing changed that way, as where light comes through the
            part or from it (luminescence, X-rays). "any" keeps all of it.

    Raises:
        UserError: when an option is unknown or out of range.
    """

    name = "procedural"

    def __init__(
        self,
        material: str | None = None,
        looks: Mapping[str, Any] | None = None,
        window: Sequence[float] = (0.4, 0.85),
        on_object: str = "auto",
        change: str = "any",
    ):
        if change not in CHANGES:
            raise UserError(f"change={change} is unknown; use one of {', '.join(CHANGES)}")
        self.change = change
        self.material = material
        self.traits = None if material is None else traits_named(material)
        self.own_looks = {name: list(types) for name, types in own_looks(looks or {}).items()}
        self.window = check_range("window", window, 0.05, 1)
        self.rule = on_object
        self.ground = None if on_object == "off" else Ground(on_object)

    @property
    def words(self) -> Sequence[str]:  # type: ignore[override]
        """The types that are drawn where none is named: those of the material or, without one, of any hard surface.

        Types whose look is "none" are left out.
        """
        usual = USUAL if self.material is None else defects_of(self.material)
        return [word for word in usual if self.own_looks.get(word, (word,))]

    def settings(self) -> dict[str, Any]:
        return {
            "material": self.material,
            "looks": self.own_looks,
            "window": list(self.window),
            "on_object": None if self.ground is None else self.ground.settings(),
            "change": self.change,
            "drawing": DRAWING,
        }

    def looks_of(self, anomaly: str | None) -> Sequence[str]:
        """The types that a name, "type" or "category/type", is drawn as.

        Args:
            anomaly: the name. None: all types of `words`.

        Raises:
            UserError: when the name tells nothing that can be drawn.
        """
        if anomaly is None:
            return self.words
        word = anomaly.rpartition("/")[2]
        looks = self.own_looks.get(word, drawn_as(word))
        if not looks:
            raise cannot_draw(word, self.own_looks)
        return looks

    def check_word(self, anomaly: str) -> None:
        self.looks_of(anomaly)

    def pair(
        self,
        image: np.ndarray,
        mask: np.ndarray | None,
        rng: Rng,
        anomaly: str | None = None,
        region: np.ndarray | None = None,
    ) -> MadePair:
        """See `Placing.pair`."""
        if min(image.shape[:2]) < SMALLEST:
            height, width = image.shape[:2]
            raise UserError(f"procedural needs pictures of {SMALLEST} px or more a side, not {width} x {height}")
        if mask is not None:
            return MadePair(*self._filled(image, given_mask(mask, image), self.look(rng, anomaly, True), rng))
        where = self.object_in(image, region)
        return MadePair(*self._drawn(image, where, self.look(rng, anomaly, False), rng))

    def look(self, rng: Rng, anomaly: str | None, in_mask: bool) -> str:
        """See `Placing.look`."""
        names = self.looks_of(anomaly)
        able = [name for name in names if name in FOLLOWERS] if in_mask else names
        if not able:
            raise UserError(
                f"{' and '.join(names)} has a shape of its own and cannot fill a given mask; leave the masks out, "
                f"or name one of {', '.join(FOLLOWERS)}"
            )
        return str(able[int(rng.integers(len(able)))])

    def _drawn(self, image: np.ndarray, region: np.ndarray, word: str, rng: Rng) -> ImageMask:
        """The first defect of a few that lies on the object, or the one of which most does, cut at its outline."""
        photo, traits = look_at(image, region), self._traits(image, region)
        spots, wide = np.flatnonzero(region), thickness(region)
        if word in (*LARGE, *AT_EDGE):
            return self._over_edges(image, region, word, rng, (photo, traits, wide))
        best, most = None, 0.0
        for _ in range(TRIES):
            side = self._side(wide, rng)
            place = window_at(image.shape, int(rng.choice(spots)), side)
            drawn, mask = draw_onto(image[place], traits, word, rng, photo)
            if self.change != "any":
                drawn = self._kept(image[place], drawn)
                mask = seen(image[place], drawn, mask)
                if not mask.any():
                    continue
            share = float(region[place][mask > 0].mean()) * (0.5 if cut_off(mask, place, image.shape) else 1.0)
            if share > most:
                best, most = (place, drawn, mask), share
            if share >= INSIDE:
                break
        if best is not None:
            place, drawn, mask = best
            made = image.copy()
            found = np.zeros(image.shape[:2], np.uint8)
            found[place] = seen(image[place], drawn, mask & region[place])
            made[place][found[place] > 0] = drawn[found[place] > 0]
            if found.any():
                return made, found
        raise UserError(f"no {word} shows on the object in {TRIES} tries; {self._remedy()}")

    def _over_edges(
        self, image: np.ndarray, region: np.ndarray, word: str, rng: Rng, about: tuple[Photo, Traits, float]
    ) -> ImageMask:
        """An area about as large as the part, or what is broken off its edge: cut at the object's outline and where the
        picture ends. The outline itself goes with what is broken off."""
        photo, traits, wide = about
        large, depth = word in LARGE, depth_in(region)
        spots = np.flatnonzero(region if large else rim(region))
        reach = region if large else widened(region)
        for _ in range(TRIES):
            side = round(float(rng.uniform(*LARGE_WINDOW)) * min(wide, LARGEST)) if large else self._side(wide, rng)
            side = max(NARROWEST, side)
            spot = int(rng.choice(spots))
            if not large and rng.random() < CORNER:
                spot = corner_first(region, rng.choice(spots, 6), side // 3)
            place = window_at(image.shape, spot, side)
            y, x = divmod(spot, image.shape[1])
            at = Spot((x - place[1].start, y - place[0].start), depth[place])
            drawn, mask = draw_onto(image[place], traits, word, rng, photo, spot=at)
            after = self._kept(image[place], drawn)
            within = np.asarray(mask & reach[place], np.uint8)
            found = faded(image[place], after, within) if large else whole(seen(image[place], after, within)) & within
            if found.sum() < max(LEAST_INSIDE * mask.sum(), LEAST_BROKEN) or cut_off(found, place, image.shape):
                continue
            made, broad = image.copy(), np.zeros(image.shape[:2], np.uint8)
            made[place][found > 0] = after[found > 0]
            broad[place] = found
            return made, broad
        raise UserError(f"no {word} shows on the object in {TRIES} tries; {self._remedy()}")

    def _remedy(self) -> str:
        if self.change == "any":
            return "is the region right? try --on_object off"
        return f"is the region right, and can it look {self.change}? try --on_object off or method.change=any"

    def _kept(self, before: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """The drawn picture, its changes undone that have the wrong sign."""
        if self.change == "any":
            return drawn
        return np.minimum(before, drawn) if self.change == "darker" else np.maximum(before, drawn)

    def _side(self, wide: float, rng: Rng) -> int:
        """Side in px of the window, for an object so wide."""
        high = min(self.window[1] * wide, LARGEST)
        low = min(self.window[0] * wide, DETAIL, high)
        return max(NARROWEST, round(float(np.exp(rng.uniform(np.log(low), np.log(high))))))

    def _traits(self, image: np.ndarray, region: np.ndarray) -> Traits:
        return traits_of(image, region) if self.traits is None else self.traits

    def _filled(self, image: np.ndarray, mask: np.ndarray, word: str, rng: Rng) -> ImageMask:
        """Each connected part of the mask with the look of one and the same type."""
        whole = np.ones_like(mask)
        photo, traits = look_at(image, whole), self._traits(image, whole)
        made, found = image.copy(), np.zeros_like(mask)
        style = int(rng.integers(2**32))  # one stain's drops are of one colour
        count, parts, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for part in range(1, count):
            place = around(boxes[part], mask.shape)
            inside = (parts[place] == part).astype(np.uint8)
            drawn, changed = draw_onto(image[place], traits, word, np.random.default_rng(style), photo, inside)
            drawn = self._kept(image[place], drawn)
            changed = (faded if word in LARGE else seen)(image[place], drawn, changed)
            made[place][changed > 0] = drawn[changed > 0]
            found[place] |= changed
        if not found.any():
            raise UserError(f"the mask's {int(mask.sum())} pixels show no {word}; give a larger mask")
        return made, found
