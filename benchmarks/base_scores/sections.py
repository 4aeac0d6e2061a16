"""The sections by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.base_scores.bench import Bench, Figures, Part
from benchmarks.base_scores.pictures import (
    first_stage,
    first_stage_tables,
    open_questions,
    samplers,
    variant_tables,
    visible,
    visible_tables,
)
from benchmarks.base_scores.segmenters import real, real_tables, segmenter, segmenter_tables
from benchmarks.base_scores.tables import ScoreTable
from benchmarks.base_scores.words import words, words_tables


@dataclass(frozen=True)
class Section:
    """`flags`: the options that its figures depend on."""

    measure: Callable[[Bench, Part], Figures]
    tables: Callable[[Figures], list[ScoreTable]]
    flags: tuple[str, ...]


_DRAWN = ("materials", "size", "seed")
_MAKING = (*_DRAWN, "evaluations", "precision", "normals", "scale")
_TRAINING = ("seeds", "batch_size", "lr", "weights")
SECTIONS = {
    "first_stage": Section(first_stage, first_stage_tables, (*_DRAWN, "pairs", "normals", "real", "split", "fitted")),
    "visible": Section(visible, visible_tables, (*_MAKING, "pairs")),
    "samplers": Section(samplers, variant_tables, (*_MAKING, "variant_pairs", "ddpm_pairs")),
    "open_questions": Section(open_questions, variant_tables, (*_MAKING, "variant_pairs")),
    "segmenter": Section(
        segmenter, segmenter_tables, (*_MAKING, *_TRAINING, "segmenter_pairs", "test_pairs", "segmenter", "steps")
    ),
    "words": Section(words, words_tables, (*_MAKING, "word_pairs", "scale_pairs", "scales", "classifier")),
    "real": Section(
        real,
        real_tables,
        (
            "size", "seed", "evaluations", "precision", *_TRAINING,
            "real", "split", "adapted", "per_type", "real_segmenter", "real_steps", "real_share",
        ),
    ),
}  # fmt: skip
