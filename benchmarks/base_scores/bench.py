"""The base under test, the drawn defects that it is tested on, and what it makes in their place."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.base_scores.filling import Truth, fill
from fast.aias import AIASOptions
from fast.artifact import Artifact, find_artifact, load_fast
from fast.data.layouts import DatasetIndex, Sample, check, open_dataset, require_defects
from fast.data.split import Split, make_split
from fast.data.tensors import to_image, to_tensor
from fast.model import FAST
from fast.procedural import defects_of, draw_defect, draw_surface
from fast.procedural.dataset import picture_rng
from fast.procedural.surfaces import check_material
from fast.quality.measure import Floats, change, features, spread
from fast.runtime.workers import cores
from fast.synthesis.options import Recipe
from ldm.checkpoint import read_metadata
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.rng import seed_of

Figures = dict[str, Any]
# Keeps what a call returned, so that a run that was stopped does not call again: part(name, call).
Part = Callable[[str, Callable[[], Any]], Any]
# Drawn pictures of different use never share a seed.
PAIRS, NORMALS, REFERENCE, TEST = range(4)
PER_GROUP = 4  # true defects of each material and type that the spread is taken from


@dataclass(frozen=True)
class Variant:
    """One way to sample. `changes`: of the artifact's `AIASOptions`; `known`: what the U-Net sees, "": as shipped;
    `scale`: of the guidance, None: the bench's."""

    name: str
    sampler: str = "aias"
    steps: int = 10
    farm: bool = True
    changes: tuple[tuple[str, Any], ...] = ()
    known: str = ""
    scale: float | None = None


@dataclass
class Filled:
    """Decoded pictures (H,W,3) uint8, not yet pasted, one for each true pair; `total` seconds of wall time."""

    pictures: list[np.ndarray] = field(default_factory=list)
    total: float = 0.0

    @property
    def seconds(self) -> float:
        """For each pair."""
        return self.total / max(len(self.pictures), 1)


class Bench:
    """The base under test, and the drawn pictures that it is tested on. Raises `UserError` for what cannot be."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.artifact = artifact_of("--base", options.base)
        own = float(self.artifact.config["model"]["params"].get("scale", 1.0))
        self.scale: float = own if options.scale is None else options.scale
        for material in options.materials:
            check_material(material)
        self.groups = [(m, kind) for m in options.materials for kind in defects_of(m)]
        self.device = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
        self.workers = options.workers or cores()
        self.threads = torch.get_num_threads()
        self._true: dict[int, list[Truth]] = {}
        self._made: dict[str, Filled] = {}

    def about(self) -> Figures:
        return {
            "artifact": self.artifact.path.name,
            "artifact_sha256": file_hash(self.artifact.path),
            "base_sha256": self.artifact.base_sha256,
            "device": self.device if self.device == "cuda" else f"cpu, {self.workers} threads",
            "torch": torch.__version__,
        }

    # drawn pictures

    def true(self, count: int, use: int) -> list[Truth]:
        """`count` drawn defects, in turn of the materials and the types that occur on them, in a fixed mixed order:
        the first few are a cross-section too."""
        order = np.random.default_rng(0).permutation(len(self.groups))
        found = self._true.setdefault(use, [])
        for i in range(len(found), count):
            material, kind = self.groups[order[i % len(order)]]
            rng = picture_rng(seed_of(self.options.seed, use), material, kind, i // len(order))
            normal = draw_surface(material, rng, self.options.size)
            image, mask = draw_defect(normal, material, kind, rng)
            found.append(Truth(material, kind, normal, image, mask))
        return found[:count]

    def normals(self, material: str) -> list[np.ndarray]:
        seed = seed_of(self.options.seed, NORMALS)
        rngs = [picture_rng(seed, material, "good", i) for i in range(self.options.normals)]
        return [draw_surface(material, rng, self.options.size) for rng in rngs]

    @cached_property
    def noise(self) -> dict[str, np.ndarray]:
        """Per material what coding and decoding does to its normals: change (N,H,W) in grey levels."""
        return {
            m: np.stack([change(n, self.coded(n)).astype(np.float32) for n in self.normals(m)])
            for m in self.options.materials
        }

    @cached_property
    def unit(self) -> Floats:
        """The spread of the features among true defects of one material and type."""
        pairs = self.true(PER_GROUP * len(self.groups), REFERENCE)
        return spread([features(p.normal, p.image, p.mask) for p in pairs], [p.key for p in pairs])

    # the base

    @cached_property
    def first_stage(self) -> FAST:
        return load_fast(self.artifact).to(self.device)

    def coded(self, image: np.ndarray) -> np.ndarray:
        return coded(self.first_stage, image)

    @cached_property
    def timesteps(self) -> int:
        return int(self.first_stage.schedule.timesteps)

    @property
    def shipped(self) -> Variant:
        return Variant("as shipped", steps=self.options.evaluations)

    def made(self, variant: Variant, count: int) -> tuple[list[Truth], Filled]:
        """The first `count` true pairs, and what the base makes of their normals, masks and words. What was made for
        another section is not made again."""
        options = replace(self.first_stage.aias_options, **dict(variant.changes))
        scale = self.scale if variant.scale is None else variant.scale
        key = repr((variant.sampler, variant.steps, variant.farm, variant.known, scale, options))
        truth, made = self.true(count, PAIRS), self._made.setdefault(key, Filled())
        if len(made.pictures) < count:
            self._make(variant, scale, options, truth, made)
        return truth, Filled(made.pictures[:count], made.seconds * count)

    def _make(self, variant: Variant, scale: float, aias: AIASOptions, truth: list[Truth], made: Filled) -> None:
        """Add the pictures that `made` lacks."""
        options = self.options
        precision = torch.bfloat16 if options.precision == "bf16" else None
        model = load_fast(self.artifact, dtype=precision)
        model.aias_options, model.known = aias, variant.known or model.known
        recipe = Recipe(
            size=options.size,
            sampler=variant.sampler,
            steps=variant.steps,
            use_farm=variant.farm,
            precision=options.precision,
            detail=False,  # what the network makes, and nothing given back
            blend=0,
            scale=scale,
        )
        numbers, start = range(len(made.pictures), len(truth)), time.perf_counter()
        with self.own_threads():
            made.pictures += fill(model, recipe, truth, numbers, self.device, self.workers, options.seed)
        made.total += time.perf_counter() - start

    @cached_property
    def divided(self) -> tuple[DatasetIndex, list[Sample], list[Sample], Split]:
        """The usable part of the real dataset, its defects to train on and to test on, and the split."""
        index = check(open_dataset(self.options.real)).usable
        require_defects(index)
        split = make_split(index) if self.options.split == "third" else Split.load(self.options.split)
        return index, *split.apply(index), split

    @contextmanager
    def own_threads(self) -> Iterator[None]:
        """Synthesis sets torch to one thread in the whole process; what follows gets its own number back."""
        try:
            yield
        finally:
            torch.set_num_threads(self.threads)


@torch.no_grad()
def coded(model: FAST, image: np.ndarray) -> np.ndarray:
    """A picture (H,W,3) uint8 after the model's first stage and back."""
    x = to_tensor(image)[None].to(model.device)
    return to_image(model.first_stage_model.decode(model.first_stage_mean(x))[0])


def artifact_of(flag: str, path: Path) -> Artifact:
    """The artifact that a flag names. Raises `UserError`."""
    try:
        return find_artifact(path)
    except UserError as error:
        raise UserError(str(error).replace("--pt_path", flag)) from None


def check_split(artifact: Artifact, split: Split, flag: str) -> None:
    """What was trained on what is tested on would prove nothing."""
    trained = read_metadata(artifact.path).get("split", "")
    if trained != split.hash:
        raise UserError(
            f"{flag} {artifact.path.name} was trained on the split {trained[:12]}, not {split.hash[:12]}: it may have "
            "seen what is tested on; adapt it with main.py --split third, or name its split with --split"
        )
