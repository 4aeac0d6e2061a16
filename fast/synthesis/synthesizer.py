"""Synthesis: normals and masks in, image-mask pairs out, each a function of the seed and its number."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from fast.data.images import read_image, resize_image, resize_mask
from fast.latent.prompted import PromptedDiffusion
from fast.runtime.workers import cores, overlapped
from fast.synthesis.detail import faded
from fast.synthesis.engine import Engine, GivenUp
from fast.synthesis.maker import DraftOf, MaskOf, given_mask
from fast.synthesis.options import Recipe, draft_methods
from fast.synthesis.pair import Pair, SynthesizedSample
from fast.synthesis.triptych import panel
from fast.windows.regions import Region, cut, paste, plan, view, whole
from ldm.rng import seed_of

# Windows of 256 x 256 pixels that are evaluated together; of larger ones fewer. Rounding depends on a batch's shape
# (and on the CPU on the number of threads), so the shape is fixed here and never by the user's batch size: that is
# what makes a pair's bytes its own.
LANE = {"cpu": 1, "cuda": 32}
HELD = 1 << 30  # bytes of pictures that may wait for others with windows of their size


@dataclass
class _Picture:
    """A pair under way: its image, into which each window's defect is pasted once it is made."""

    pair: Pair
    image: np.ndarray
    mask: np.ndarray
    regions: list[Region]
    crops: list[np.ndarray]
    shown: tuple[slice, slice]
    normal: np.ndarray
    left: int
    seconds: float
    drafts: list[np.ndarray] | None = None
    origin: dict[str, str] = field(default_factory=dict)
    prompt_index: int | None = None
    lock: Lock = field(default_factory=Lock)

    def finish(self, number: int, made: np.ndarray, seconds: float, recipe: Recipe) -> bool:
        """Paste a window, all of it or by its mask (`composite`); True if it was the last."""
        region, composite = self.regions[number], recipe.composite
        if composite and recipe.blend and self.drafts is None:  # a draft's border is its method's
            made = self._faded(number, made, recipe.blend)
        with self.lock:
            paste(self.image, made, region if composite else replace(region, mask=np.ones_like(region.mask)))
            self.left -= 1
            self.seconds += seconds
            return self.left == 0

    def _faded(self, number: int, made: np.ndarray, blend: int) -> np.ndarray:
        """The window's part inside the picture, whose edge is no border of a mask."""
        region, (height, width) = self.regions[number], self.image.shape[:2]
        part = np.s_[: height - region.top, : width - region.left]
        made[part] = faded(self.crops[number][part], made[part], region.mask[part], blend)
        return made

    @property
    def nbytes(self) -> int:
        arrays = (self.image, self.mask, self.normal, *self.crops, *(self.drafts or ()))
        return sum(array.nbytes for array in arrays)

    def key(self, number: int) -> Hashable:
        """What the normal image in a window is known by; None for one that came from no file."""
        region, path = self.regions[number], self.pair.normal
        return (path, region.top, region.left, region.height, region.width) if path else None

    def made(self) -> SynthesizedSample:
        windows = [(r.top, r.left, r.height, r.width) for r in self.regions]
        return SynthesizedSample(
            self.pair, self.normal, self.image, self.mask, self.shown, windows, self.seconds, self.origin,
            self.prompt_index,
        )  # fmt: skip


Job = tuple[_Picture, int]
Item = TypeVar("Item")
Result = TypeVar("Result")


class Synthesizer:
    """Makes pairs with a trained method on a latent base, on "cpu" or "cuda"; the model is its own from then on.

    `mask_of(image, pair)`: the mask for a picture (H,W,3) of the recipe's size; by default the pair's file. `draft_of`,
    an attribute: makes the draft that each pair starts from, in that mask, or where `mask_of` is None in one of its
    own; None: from noise. `looks`, likewise: for weights that serve any words, the numbers of their prompts by
    "category/word": a draft that was drawn is made new by the word for what was drawn, and not by a name that the base
    may never have read. OpenCV, and on the CPU torch, are set to one thread per window, in the whole process:
    rounding depends on their number.
    Raises `UserError` for what this machine cannot do.
    """

    def __init__(self, model: PromptedDiffusion, recipe: Recipe, device: str = "cpu", mask_of: MaskOf = given_mask):
        self.recipe, self.device = recipe, torch.device(device)
        self.mask_of: MaskOf | None = mask_of
        self.draft_of: DraftOf | None = None
        self.looks: Mapping[str, int] = {}
        self.lane = LANE[self.device.type]
        self._error: BaseException | None = None
        self._single_thread()
        self.engine = Engine(model, recipe, device)

    @property
    def size(self) -> int | None:
        """Side in pixels of the square that pictures are resized to; None keeps their own."""
        return self.recipe.size

    def prompt(self, type_index: int) -> str:
        """The words of a type's prompt."""
        return self.engine.model.prompts.text(type_index)

    def settings(self) -> dict[str, Any]:
        """What decides the bytes of a pair, beside the weights. Of a draft's options, which may name places, what its
        method says of itself."""
        draft = {} if self.draft_of is None else {"draft_settings": self.draft_of.settings()}
        idle = ("draft_options", "strength") if self.recipe.draft == "none" else ("draft_options",)
        recipe = {name: value for name, value in asdict(self.recipe).items() if name not in idle}
        drawn = "procedural" in draft_methods(self.recipe.draft) and self.recipe.from_draft
        words = {"draft_prompts": "looks"} if drawn and self.looks else {}
        return {**recipe, **draft, **words, "device": self.device.type, "lane": self.lane}

    def stop(self) -> None:
        """End `make` soon: lanes that are under way are given up at their next network evaluation."""
        self.engine.stopping = True

    def _single_thread(self) -> None:
        cv2.setNumThreads(1)  # in drafts and where images are resized
        if self.device.type == "cpu":
            torch.set_num_threads(1)

    def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[SynthesizedSample, None, None]:
        """Make pairs, several windows at a time; the order of the results is not that of the pairs.

        Ends early after `stop`. Raises `UserError` for a picture that cannot be read.
        """
        workers = self._workers(in_flight)
        self._error = None
        pictures = overlapped(self._guarded(self._read), self._until_stopped(pairs), workers, workers + 1)
        # One lane more than workers, so that nobody waits for the next to be read.
        lanes = self._lanes(pictures)
        finished = overlapped(self._guarded(self._sample), lanes, workers, workers + 1, self._single_thread)
        try:
            for batch in finished:
                yield from batch
        except GivenUp:
            if self._error is not None:
                raise self._error from None
        finally:
            self.stop()  # whatever ended this, nobody waits for what is still under way
            finished.close()
            pictures.close()
            self.engine.stopping = False

    def _guarded(self, work: Callable[[Item], Result]) -> Callable[[Item], Result]:
        """`work`, whose first error ends everything else that is under way, and is not lost behind its giving up."""

        def guarded(item: Item) -> Result:
            try:
                return work(item)
            except GivenUp:
                raise
            except BaseException as error:
                self._error = self._error or error
                self.stop()
                raise

        return guarded

    def _until_stopped(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            if self.engine.stopping:
                return
            yield pair

    def _workers(self, in_flight: int) -> int:
        """Threads for this process: its share of the machine's cores on the CPU; on a GPU one whose lane is computed,
        one that fetches the last lane's pictures and prepares the next."""
        if self.device.type != "cpu":
            return 2
        return max(1, min(in_flight, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))

    def fill(
        self, normal: np.ndarray, mask: np.ndarray, type_index: int, seed: int, counterfeit: bool = False
    ) -> np.ndarray:
        """One picture (H,W,3) uint8 with a defect of that type in the mask, from noise whatever the recipe's draft; a
        `counterfeit` has none.

        `normal` (H,W,3) uint8 and `mask` (H,W), nonzero = defect, are brought to the recipe's size. With `composite`
        every byte outside the mask is as in `normal`. Raises `UserError` when the network's answer is no number.
        """
        start, image = time.perf_counter(), self._sized(normal.copy())
        pair = Pair(0, None, None, type_index, seed, counterfeit)
        return self._filled(
            self._picture(pair, image, resize_mask((mask != 0).astype(np.uint8), image.shape[:2]), start)
        ).image

    def fill_draft(
        self, normal: np.ndarray, mask: np.ndarray | None, type_index: int, seed: int, counterfeit: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `fill`, from a draft of `draft_of`, in `mask` or with a mask of its own: (image (H,W,3), mask (H,W))."""
        pair = Pair(0, None, None, type_index, seed, counterfeit)
        given = None if mask is None else resize_mask((mask != 0).astype(np.uint8), normal.shape[:2])
        picture = self._filled(self._drafted(normal, pair, given, time.perf_counter()))
        return picture.image, picture.mask

    def _filled(self, picture: _Picture) -> _Picture:
        for lane in self._lanes([picture]):
            self._sample(lane)
        return picture

    def _read(self, pair: Pair) -> _Picture:
        """Read a pair's files, once, and cut the windows out that have to be sampled."""
        start = time.perf_counter()
        assert pair.normal is not None
        return self._start(read_image(pair.normal), pair, start)

    def _start(self, normal: np.ndarray, pair: Pair, start: float) -> _Picture:
        if self.draft_of is not None:
            mask = None if self.mask_of is None else self.mask_of(normal, pair)
            return self._drafted(normal, pair, mask, start)
        assert self.mask_of is not None
        image = self._sized(normal)
        return self._picture(pair, image, self.mask_of(image, pair), start)

    def _drafted(self, normal: np.ndarray, pair: Pair, mask: np.ndarray | None, start: float) -> _Picture:
        """The draft is made at the picture's own size, as its method alone would make it."""
        assert self.draft_of is not None
        draft, image = self.draft_of(normal, pair, mask), self._sized(normal)
        found = resize_mask(draft.mask, image.shape[:2])
        drawn = np.where(found[..., None] > 0, self._sized(draft.image), image)
        picture = self._picture(pair, image, found, start, drawn, draft.origin)
        if self.recipe.from_draft:  # else nothing but the mask is the draft's
            picture.prompt_index = self._prompt_of_look(pair.type_index, draft.look)
        return picture

    def _prompt_of_look(self, type_index: int, look: str) -> int | None:
        """The prompt for what a draft of that type shows; None: the type's own."""
        category = self.engine.model.prompts.types[type_index].split("/", 1)[0]
        found = self.looks.get(f"{category}/{look}")
        return None if found == type_index else found

    def _sized(self, image: np.ndarray) -> np.ndarray:
        return resize_image(image, self.recipe.size) if self.recipe.size else image

    def _picture(
        self,
        pair: Pair,
        image: np.ndarray,
        mask: np.ndarray,
        start: float,
        draft: np.ndarray | None = None,
        origin: dict[str, str] | None = None,
    ) -> _Picture:
        stride = self.engine.stride
        if self.recipe.region == "full":
            regions = [whole(mask, stride=stride)]
        else:
            regions = plan(mask, stride=stride, margin=self.recipe.margin, least=self.recipe.min_window)
        shown = view(regions, image.shape)
        image = image if image.flags.writeable else image.copy()
        crops = [cut(image, region) for region in regions]
        seconds = time.perf_counter() - start
        # At strength 1 nothing but the mask is the draft's: all else is as without one.
        drafted = draft is not None and self.recipe.from_draft
        drafts = [cut(draft, region) for region in regions] if drafted and draft is not None else None
        normal, left = panel(image[shown]), len(regions)
        return _Picture(pair, image, mask, regions, crops, shown, normal, left, seconds, drafts, dict(origin or {}))

    def _lanes(self, pictures: Iterable[_Picture]) -> Iterator[list[Job]]:
        """Windows of one size together, counterfeits apart, as many as a lane takes; fewer when too many pictures would
        have to wait."""
        waiting: dict[tuple[int, int, bool], list[Job]] = defaultdict(list)
        for picture in pictures:
            for number, region in enumerate(picture.regions):
                shape = (region.height, region.width, picture.pair.counterfeit)
                waiting[shape].append((picture, number))
                if len(waiting[shape]) == self._width(*shape[:2]):
                    yield waiting.pop(shape)
            while sum({id(p): p.nbytes for jobs in waiting.values() for p, _ in jobs}.values()) > HELD:
                yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
        yield from waiting.values()

    def _width(self, height: int, width: int) -> int:
        """How many windows of this size in pixels make a lane."""
        return max(1, min(self.lane, self.lane * 256 * 256 // (height * width)))

    def _sample(self, lane: list[Job]) -> list[SynthesizedSample]:
        """Fill the windows of a lane, padded to its full width. Returns the pairs that are thereby finished."""
        start = time.perf_counter()
        region = lane[0][0].regions[lane[0][1]]
        filled = [*lane, *[lane[-1]] * (self._width(region.height, region.width) - len(lane))]
        crops, masks = [p.crops[n] for p, n in filled], [p.regions[n].mask for p, n in filled]
        seeds, keys = [_seed(p.pair.seed, n) for p, n in filled], [p.key(n) for p, n in filled]
        if lane[0][0].pair.counterfeit:
            made = self.engine.counterfeit(crops, masks, seeds, keys)
        else:
            types = [p.pair.type_index if p.prompt_index is None else p.prompt_index for p, _ in filled]
            drafts = None if lane[0][0].drafts is None else [p.drafts[n] for p, n in filled if p.drafts is not None]
            made = self.engine.generate(crops, masks, types, seeds, keys, drafts)
        seconds = (time.perf_counter() - start) / len(lane)
        jobs = zip(lane, made, strict=False)
        return [p.made() for (p, n), picture in jobs if p.finish(n, picture, seconds, self.recipe)]


def _seed(pair: int, window: int) -> int:
    """The first window has the pair's own seed, so that a single one is the same whatever its region is called."""
    return pair if window == 0 else seed_of(pair, window)
