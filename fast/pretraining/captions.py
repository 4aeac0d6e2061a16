"""Words for drawn defects, as token ids ready for the text encoder."""

import torch
from torch import Tensor

from fast.data.words import prompt_text
from fast.pretraining.drawing import TYPES
from fast.procedural.traits import TRAITS
from ldm.modules.encoders.modules import Tokenizer

# A user's part is called anything; the defect's word must do its work beside any other, or alone.
PARTS = ("part", "piece", "sample", "item", "surface", "product", "component", "panel", "sheet", "plate", "bottle",
         "screw", "cable", "tile", "housing", "disc", "strip", "cap", "tube", "ring")  # fmt: skip
# What people call these defects too.
SYNONYMS = {
    "bubble": ("blister", "bubbles"), "burn": ("burnt", "scorch"), "chip": ("broken", "break", "chipped"),
    "contamination": ("dirt", "particle", "debris"), "crack": ("fracture", "cracked", "fissure"),
    "crease": ("wrinkle", "fold"), "dent": ("bump", "dimple", "impression"), "doubled": ("double", "duplicate"),
    "fade": ("faded", "bleached", "discoloration"), "fray": ("frayed", "fuzzy", "worn edge"),
    "hole": ("puncture", "poke", "perforation"), "misprint": ("smudge", "faulty imprint"),
    "missing": ("absent", "missing part"), "oil": ("grease", "liquid", "glue"), "pit": ("blowhole", "pinhole", "pore"),
    "rust": ("corrosion", "rusty"), "scratch": ("scratches", "scuff", "scrape", "abrasion"),
    "shift": ("misaligned", "displaced"), "stain": ("spot", "blot", "stained"), "tear": ("rip", "torn", "cut"),
    "thread": ("fibre", "hair", "loose thread"),
}  # fmt: skip
SHARES = (0.4, 0.2, 0.25, 0.15)  # with the material, the word alone, with some part's name, a synonym


class Captions:
    """Draws prompts for samples: `ids(materials, types)` (B,L) for index tensors (B,) into `TRAITS` and `TYPES`.

    `dropped`: the share of samples with the empty prompt, against which guidance works.
    """

    def __init__(self, tokenizer: Tokenizer, device: torch.device, dropped: float = 0.125):
        def table(texts: list[list[str]]) -> Tensor:
            return torch.stack([tokenizer(row) for row in texts]).to(device)

        self.materials = {name: i for i, name in enumerate(sorted(TRAITS))}
        self._tables = (
            table([[prompt_text(m, t) for m in sorted(TRAITS)] for t in TYPES]),
            table([[t] for t in TYPES]),
            table([[prompt_text(part, t) for part in PARTS] for t in TYPES]),
            table([[SYNONYMS[t][i % len(SYNONYMS[t])] for i in range(12)] for t in TYPES]),
        )
        self._empty, self.dropped, self.device = tokenizer([""]).to(device)[0], dropped, device

    def ids(self, materials: Tensor, types: Tensor) -> Tensor:
        """Token ids (B,L) drawn by the device's generator."""
        count = len(types)
        which = torch.rand(count, device=self.device)
        out = self._empty.expand(count, -1)
        low = 0.0
        for number, (table, share) in enumerate(zip(self._tables, SHARES, strict=True)):
            column = materials if number == 0 else torch.randint(table.shape[1], (count,), device=self.device)
            chosen = (which >= low) & (which < low + share)
            out = torch.where(chosen[:, None], table[types, column], out)
            low += share
        kept = torch.rand(count, device=self.device) >= self.dropped
        return torch.where(kept[:, None], out, self._empty)
