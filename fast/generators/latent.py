"""The methods on a latent base behind the interface that all methods have: FAST, STAGE, AnomalyDiffusion."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fast.artifact import Artifact, find_artifact, load_model
from fast.data.images import resize_mask
from fast.data.index import DatasetIndex
from fast.generators.base import MadePair, Split
from fast.generators.drafts import Drafter, MixedDrafter, check_drafts, drafter_for
from fast.generators.on_base import OnBase
from fast.procedural.defects import DEFECTS
from fast.runtime.precision import settled
from fast.synthesis.options import LatentOptions, Recipe, SamplingOptions, check_latent, draft_methods
from fast.synthesis.recipe import GuidanceWarning, check_recipe, guidance_note, recipe_for
from fast.synthesis.synthesizer import Synthesizer
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.util import check_values

# What of sampling can change while the weights stay loaded.
CHANGES = ("steps", "scale", "draft", "strength", "draft_options", "detail", "blend")


class LatentGenerator(OnBase):
    """A trained method on a latent base. What is not given of its arguments (`OnBase`) is as the weights recommend.

    `synthesize` needs a mask, but not with a `draft`, whose method places defects. Its pictures have the recipe's size;
    without one, the given picture's.
    """

    # None until weights are loaded; `drafter` also without drafts.
    synthesizer: Synthesizer | None = None
    drafter: Drafter | MixedDrafter | None = None

    def load(self, weights: Path, step: int | None = None) -> None:
        options = self.options
        artifact = replace(find_artifact(weights, step, self.name), tokenizer=options.tokenizer)
        check_latent(options, self.name)
        recipe = self._recipe(artifact)
        check_recipe(recipe, torch.device(self._device))
        if options.types is not None and not artifact.open_types:
            raise UserError(f"{artifact.path} knows its own types only; leave types out")
        types = list(artifact.types if options.types is None else options.types)
        start = self._drafter(recipe, types)  # whatever of it is refused, nobody waits for the weights
        dtype = None if recipe.precision == "fp32" else torch.bfloat16
        model = load_model(artifact, options.base, dtype=dtype, cache=options.weights_cache)
        if options.types is not None:
            model.set_classes([*types, *filter(model.reads, _drawn_words(types))])
        self._artifact = artifact
        self.types, self.hash = types, file_hash(artifact.path)
        self.base_hash = artifact.base_sha256
        known = model.prompts.types
        self.synthesizer = Synthesizer(model, recipe, self._device)
        self.synthesizer.looks = {key: number for number, key in enumerate(known)} if artifact.open_types else {}
        self.own_masks = recipe.draft != "none"
        self.drafter = self.synthesizer.draft_of = start

    def _drafter(self, recipe: Recipe, types: Sequence[str]) -> Drafter | MixedDrafter | None:
        """What makes the recipe's drafts; None without drafts, and where `draft_from` is to give the real defects."""
        methods = draft_methods(recipe.draft)
        if not methods or ("transplant" in methods and "defects" not in recipe.draft_options):
            check_drafts(recipe.draft, recipe.draft_options)
            return None
        return drafter_for(recipe.draft, recipe.draft_options, types)

    def fit(self, split: Split) -> None:
        """See `Generator.fit`. Drafts of real defects, where the options name none, are cut from those of `split`, if
        it is a dataset; of a path, whose training side the training finds out, `draft_from` has to say them."""
        super().fit(split)
        if self.own_masks and self.drafter is None and isinstance(split, DatasetIndex):
            self.draft_from(split)

    def draft_from(self, index: DatasetIndex) -> None:
        """Take the real defects that drafts are made of out of `index`, all of them. Raises `UserError`."""
        recipe = self._ready().recipe
        drafter = drafter_for(recipe.draft, recipe.draft_options, self.types, index)
        self.drafter = self._ready().draft_of = drafter

    def _ready(self) -> Synthesizer:
        if self.synthesizer is None:
            raise UserError(f"{self.name} has learned nothing yet; give weights=RUN, or call fit")
        return self.synthesizer

    def change(self, **sampling: Any) -> None:
        """Sample otherwise from now on with the weights as they are loaded: any of `CHANGES`, by name.

        Takes no time, so that somebody may try values; only another draft reads its real defects. Raises `UserError`;
        then all is as it was.
        """
        synthesizer = self._ready()
        if foreign := sorted(sampling.keys() - set(CHANGES)):
            raise UserError(f"{foreign[0]} is settled when weights are loaded; create {self.name} anew with it")
        before, options = self.options, replace(self.options, **sampling)
        check_latent(options, self.name)
        self.options = options
        try:
            recipe, draft = self._recipe(self._artifact), self.drafter
            if _draft_of(recipe) != _draft_of(synthesizer.recipe):
                draft = None if recipe.draft == "none" else drafter_for(recipe.draft, recipe.draft_options, self.types)
        except UserError:
            self.options = before
            raise
        synthesizer.engine.recipe = recipe
        self.own_masks, self.drafter, synthesizer.draft_of = recipe.draft != "none", draft, draft

    @property
    def _device(self) -> str:
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        return auto if self.options.device == "auto" else self.options.device

    def _recipe(self, artifact: Artifact) -> Recipe:
        """How these weights make pairs here. Raises `UserError`."""
        asked = {f.name: getattr(self.options, f.name) for f in fields(SamplingOptions)}
        own = asked.pop("own")
        precision = settled(asked["precision"], torch.device(self._device).type)
        if self.options.weights_cache and precision == "fp32":
            raise UserError("--weights_cache keeps bfloat16, in which this machine does not compute; leave it out")
        recipe = recipe_for(artifact, **{**asked, **own, "precision": precision})
        if (note := guidance_note(artifact, recipe)) is not None:
            warnings.warn(note, GuidanceWarning, stacklevel=2)
        return recipe

    def synthesize(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, anomaly: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        made = self.pair(image, mask, rng, anomaly)
        return made.image, made.mask

    def pair(
        self,
        image: np.ndarray,
        mask: np.ndarray | None,
        rng: np.random.Generator,
        anomaly: str | None = None,
        *,
        counterfeit: bool = False,
    ) -> MadePair:
        """See `Generator.pair`. A `counterfeit` has normal content in the mask of the pair that the same `rng` makes,
        and an empty mask: a negative for a segmenter, see `fast.synthesis.counterfeit`."""
        synthesizer = self._ready()
        if self.own_masks and self.drafter is None:
            raise UserError("drafts need real defects; give draft_options={'defects': FOLDER}, or call draft_from")
        if not self.own_masks and (mask is None or not mask.any()):
            raise UserError(f"{self.name} needs a mask with a defect in it; give one (fast.masks draws some)")
        number, seed = self._drawn(rng, anomaly)
        if self.own_masks:
            found = synthesizer.fill_draft(image, mask, number, seed, counterfeit)
            made = MadePair(found.image, found.mask, found.origin, found.filled)
        else:
            assert mask is not None
            filled = synthesizer.fill(image, mask, number, seed, counterfeit)
            made = MadePair(filled, resize_mask((mask != 0).astype(np.uint8), filled.shape[:2]))
        return replace(made, mask=np.zeros_like(made.mask)) if counterfeit else made

    def _drawn(self, rng: np.random.Generator, anomaly: str | None) -> tuple[int, int]:
        """A pair's type, by number, and its seed."""
        if anomaly is not None and anomaly not in self.types:
            raise UserError(f"{anomaly!r} is not among what {self.name} learned: {', '.join(self.types)}")
        number = int(rng.integers(len(self.types))) if anomaly is None else list(self.types).index(anomaly)
        return number, int(rng.integers(2**62))

    def settings(self) -> dict[str, Any]:
        if self.synthesizer is None:
            return {}
        return {"weights": self.hash, "base": self.base_hash, **self.synthesizer.settings()}


def _drawn_words(types: Sequence[str]) -> list[str]:
    """All that can be drawn, as "category/word", for the categories of `types`, but those that are among them."""
    categories = dict.fromkeys(key.split("/", 1)[0] for key in types)
    return [key for part in categories for word in DEFECTS if (key := f"{part}/{word}") not in types]


def _draft_of(recipe: Recipe) -> tuple[str, dict[str, Any]]:
    return recipe.draft, dict(recipe.draft_options)


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Raise `UserError` for arguments of `create(method, ...)`, a method on a latent base, that are refused whatever
    its weights are."""
    given = {f.name: options[f.name] for f in fields(LatentOptions) if f.name in options}
    check_values(LatentOptions, given, "method")
    found = LatentOptions(**given)
    check_latent(found, method)
    check_drafts(found.draft, found.draft_options)


class FASTGenerator(LatentGenerator):
    """FAST: FARM and AIAS."""

    name = artifact = "fast"


class STAGEGenerator(LatentGenerator):
    """STAGE: graded diffusion with explicit mask alignment."""

    name = artifact = "stage"


class AnomalyDiffusionGenerator(LatentGenerator):
    """AnomalyDiffusion: blended inpainting under learned words for the defect and its place."""

    name = artifact = "anomalydiffusion"
