"""Synthesis: normals and masks in, image-mask pairs out, each a function of the seed and its number."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from fast.data.images import read_image, resize_image, resize_mask
from fast.latent.prompted import PromptedDiffusion
from fast.runtime.workers import overlapped, own_workers
from fast.synthesis.batches import WINDOWS_PER_BATCH, PairWindow, WindowedPair, batch_width, batches
from fast.synthesis.engine import Engine, GivenUp
from fast.synthesis.maker import Draft, DraftOf, MaskOf, given_mask
from fast.synthesis.options import Recipe, draft_methods
from fast.synthesis.pair import Pair, SynthesizedSample
from fast.synthesis.triptych import panel
from fast.windows.regions import cut, plan, view, whole

Item = TypeVar("Item")
Result = TypeVar("Result")


class Synthesizer:
    """Makes pairs with a trained method on a latent base.

    In the whole process OpenCV is set to one thread per window, and so is torch on the CPU or where drafts are made,
    because rounding depends on the number of threads.

    Two attributes may be set later. `draft_of` makes the draft that each pair starts from, None lets pairs start from
    noise. `looks` is for weights that serve any words: the numbers of their prompts by "category/word". A draft that
    was drawn is then made new by the word for what was drawn, not by a name that the base may never have read.

    Args:
        model: the trained model, which is the synthesizer's own from then on.
        recipe: how windows are planned and sampled.
        device: "cpu" or "cuda".
        mask_of: `mask_of(image, pair)` returns the mask for a picture (H,W,3) of the recipe's size, or of its own size
            where drafts are made. By default that is the pair's file. Where the attribute is set to None, each draft
            brings a mask of its own.

    Raises:
        UserError: this machine cannot follow the recipe, or the sampler is not the method's.
    """

    def __init__(self, model: PromptedDiffusion, recipe: Recipe, device: str = "cpu", mask_of: MaskOf = given_mask):
        self.device = torch.device(device)
        self.mask_of: MaskOf | None = mask_of
        self.draft_of: DraftOf | None = None
        self.looks: Mapping[str, int] = {}
        self.windows_per_batch = WINDOWS_PER_BATCH[self.device.type]
        self._error: BaseException | None = None
        self._single_thread()
        self.engine = Engine(model, recipe, device)

    @property
    def recipe(self) -> Recipe:
        """How windows are planned and sampled; the engine's, which may get another from picture to picture."""
        return self.engine.recipe

    @property
    def size(self) -> int | None:
        """Side in pixels of the square that pictures are resized to; None keeps their own."""
        return self.recipe.size

    def prompt(self, type_index: int) -> str:
        """The words of a type's prompt."""
        return self.engine.model.prompts.text(type_index)

    def settings(self) -> dict[str, Any]:
        """What decides the bytes of a pair, beside the weights.

        The options of a draft, which may name places, are left out for what its method says of itself.
        """
        draft = {} if self.draft_of is None else {"draft_settings": self.draft_of.settings()}
        idle = ("draft_options", "strength") if self.recipe.draft == "none" else ("draft_options",)
        recipe = {name: value for name, value in asdict(self.recipe).items() if name not in idle}
        drawn = "procedural" in draft_methods(self.recipe.draft) and self.recipe.from_draft
        words = {"draft_prompts": "looks"} if drawn and self.looks else {}
        made_new = {"draft_change": "within its mask"} if draft and self.recipe.from_draft else {}
        return {**recipe, **draft, **words, **made_new, "device": self.device.type, "lane": self.windows_per_batch}

    def stop(self) -> None:
        """End `make` soon: batches that are under way are given up at their next network evaluation."""
        self.engine.stopping = True

    def _single_thread(self) -> None:
        cv2.setNumThreads(1)  # in drafts and where images are resized
        # Drafts are compared with real defects by a network on the CPU, whose rounding goes by the threads.
        if self.device.type == "cpu" or self.draft_of is not None:
            torch.set_num_threads(1)

    def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[SynthesizedSample, None, None]:
        """Make pairs, several windows at a time; the order of the results is not that of the pairs.

        Ends early after `stop`. Raises `UserError` for a picture that cannot be read.
        """
        workers = self._workers(in_flight)
        self._error = None
        pictures = overlapped(self._guarded(self._read), self._until_stopped(pairs), workers, workers + 1,
                              self._single_thread)  # fmt: skip
        # One batch more than workers, so that nobody waits for the next to be read.
        windows = batches(pictures, self.windows_per_batch)
        finished = overlapped(self._guarded(self._sample), windows, workers, workers + 1, self._single_thread)
        try:
            for samples in finished:
                yield from samples
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
        """Threads for this process: its share of the machine's cores on the CPU; on a GPU one whose batch is computed,
        one that fetches the last batch's pictures and prepares the next."""
        return own_workers(in_flight) if self.device.type == "cpu" else 2

    def fill(
        self, normal: np.ndarray, mask: np.ndarray, type_index: int, seed: int, counterfeit: bool = False
    ) -> np.ndarray:
        """Fill the mask of one picture with a defect, from noise whatever the recipe's draft.

        Args:
            normal: (H,W,3) uint8, brought to the recipe's size.
            mask: (H,W), nonzero = defect, brought to that size too.
            type_index: number of the defect type.
            seed: fixes the noise.
            counterfeit: True fills the mask with normal content instead of a defect.

        Returns:
            The picture (H,W,3) uint8. With `composite` every byte outside the mask is as in `normal`.

        Raises:
            UserError: the network's answer is no number.
        """
        start, image = time.perf_counter(), self._sized(normal.copy())
        pair = Pair(0, None, None, type_index, seed, counterfeit)
        return self._filled(
            self._picture(pair, image, resize_mask((mask != 0).astype(np.uint8), image.shape[:2]), start)
        ).image

    def fill_draft(
        self, normal: np.ndarray, mask: np.ndarray | None, type_index: int, seed: int, counterfeit: bool = False
    ) -> Draft:
        """Make one picture as `fill` does, but from a draft of `draft_of`, which is made new.

        Args:
            normal: (H,W,3) uint8.
            mask: (H,W), nonzero = defect. None: the draft brings its own.
            type_index, seed, counterfeit: as for `fill`.

        Returns:
            The draft made new, with its mask.
        """
        pair = Pair(0, None, None, type_index, seed, counterfeit)
        given = None if mask is None else resize_mask((mask != 0).astype(np.uint8), normal.shape[:2])
        made = self._filled(self._drafted(normal.copy(), pair, given, time.perf_counter())).made()
        return Draft(made.image, made.mask, made.origin, filled=made.asked)

    def _filled(self, picture: WindowedPair) -> WindowedPair:
        for batch in batches([picture], self.windows_per_batch):
            self._sample(batch)
        return picture

    def _read(self, pair: Pair) -> WindowedPair:
        """Read a pair's files, once, and cut the windows out that have to be sampled."""
        start = time.perf_counter()
        assert pair.normal is not None
        return self._start(read_image(pair.normal), pair, start)

    def _start(self, normal: np.ndarray, pair: Pair, start: float) -> WindowedPair:
        if self.draft_of is not None:
            mask = None if self.mask_of is None else self.mask_of(normal, pair)
            return self._drafted(normal, pair, mask, start)
        assert self.mask_of is not None
        image = self._sized(normal)
        return self._picture(pair, image, self.mask_of(image, pair), start)

    def _drafted(self, normal: np.ndarray, pair: Pair, mask: np.ndarray | None, start: float) -> WindowedPair:
        """The draft is made at the picture's own size, as its method alone would make it."""
        assert self.draft_of is not None
        draft, image = self.draft_of(normal, pair, mask), self._sized(normal)
        own = resize_mask(draft.mask, image.shape[:2])
        if not self.recipe.from_draft:  # nothing but the mask is the draft's
            return self._picture(pair, image, own, start, origin=draft.origin)
        filled = own
        if draft.filled is not None and not pair.counterfeit:
            filled = resize_mask(draft.filled, image.shape[:2])
            own &= filled
        drawn = np.where(filled[..., None] > 0, self._sized(draft.image), image)
        picture = self._picture(pair, image, own, start, drawn, draft.origin)
        picture.filled = filled if (filled > own).any() else None
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
    ) -> WindowedPair:
        """`draft`: the picture to start from; what it has outside of the mask, the soft edge of its defect, stays."""
        stride = self.engine.stride
        if self.recipe.region == "full":
            regions = [whole(mask, stride=stride)]
        else:
            regions = plan(mask, stride=stride, margin=self.recipe.margin, least=self.recipe.min_window)
        shown = view(regions, image.shape)
        normal, left = panel(image[shown]), len(regions)
        image = image if image.flags.writeable else image.copy()
        crops = [cut(image, region) for region in regions]
        drafts = None if draft is None else [cut(draft, region) for region in regions]
        made, seconds = image if draft is None else draft, time.perf_counter() - start
        return WindowedPair(pair, made, mask, regions, crops, shown, normal, left, seconds, drafts, dict(origin or {}))

    def _sample(self, batch: list[PairWindow]) -> list[SynthesizedSample]:
        """Fill the windows of a batch, padded to its full width. Returns the pairs that are thereby finished."""
        start = time.perf_counter()
        first, number = batch[0]
        region = first.regions[number]
        width = batch_width(self.windows_per_batch, region.height, region.width)
        filled = [*batch, *[batch[-1]] * (width - len(batch))]
        crops, masks = [p.crops[n] for p, n in filled], [p.regions[n].mask for p, n in filled]
        seeds, keys = [p.seed(n) for p, n in filled], [p.key(n) for p, n in filled]
        if first.pair.counterfeit:
            made = self.engine.counterfeit(crops, masks, seeds, keys)
        else:
            types = [p.pair.type_index if p.prompt_index is None else p.prompt_index for p, _ in filled]
            drafts = None if first.drafts is None else [p.drafts[n] for p, n in filled if p.drafts is not None]
            made = self.engine.generate(crops, masks, types, seeds, keys, drafts)
        seconds = (time.perf_counter() - start) / len(batch)
        windows = zip(batch, made, strict=False)
        return [p.made() for (p, n), picture in windows if p.finish(n, picture, seconds, self.recipe)]
