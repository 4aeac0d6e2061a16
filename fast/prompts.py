"""Prompts: "category + defect type" and, at the end, vectors that are learned for that type (FAST, A.5: 8 of them)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.modules.encoders.modules import TextEncoder


def prompt_text(category: str, anomaly: str) -> str:
    """The words of a prompt. A name that is only a number (BTAD) says nothing and is left out (paper, A.5)."""
    names = [name for name in (category, anomaly) if not name.isdigit()] or ["damaged"]
    words = " ".join(names).replace("_", " ").replace("+", " ").replace("-", " ")
    return " ".join(words.split()).lower()


class LearnedPrompts(nn.Module):
    """One row of `tokens` vectors for each defect type, behind that type's words.

    `types`: keys "category/anomaly". The vectors live in the text encoder's token space, `width` wide, and pass
    through the frozen encoder together with the words.
    """

    def __init__(self, types: Sequence[str], width: int, tokens: int = 8):
        super().__init__()
        if not types:
            raise UserError("no defect types to learn prompts for; check the data path")
        unreadable = [t for t in types if "/" not in t]
        if unreadable:
            raise UserError(f"defect type {unreadable[0]!r} is not of the form category/anomaly")
        self.types = list(types)
        self.tokens = tokens
        self.vectors = nn.Parameter(torch.zeros(len(types), tokens, width))
        self._words: dict[int, tuple[Tensor, int]] = {}

    def text(self, index: int) -> str:
        return prompt_text(*self.types[index].split("/", 1))

    @torch.no_grad()
    def start_from(self, encoder: TextEncoder, word: str | None) -> None:
        """Set every vector to the mean token embedding of `word`, or of the type's own words without one."""
        for index in range(len(self.types)):
            pieces = encoder.tokenizer.pieces(word or self.text(index))
            if not pieces:
                raise UserError(f"--init_word {word!r} has no token in this tokenizer; give another word")
            ids = torch.tensor(pieces, device=encoder.token_embedding.weight.device)
            self.vectors[index] = encoder.embed_tokens(ids[None])[0].mean(dim=0)

    def _frame(self, encoder: TextEncoder, index: int) -> tuple[Tensor, int]:
        """Token embeddings (L,width) of a type's prompt and where its learned vectors stand. Computed once."""
        if index not in self._words:
            room = encoder.max_length - self.tokens - 2
            words = encoder.tokenizer.pieces(self.text(index))[:room]
            ids = encoder.tokenizer.frame([*words, *[encoder.pad_id] * self.tokens])
            tokens = torch.tensor(ids, device=self.vectors.device)
            with torch.no_grad():
                self._words[index] = encoder.embed_tokens(tokens[None])[0], 1 + len(words)
        return self._words[index]

    def forward(self, encoder: TextEncoder, index: Tensor) -> Tensor:
        """Encoded prompts (B,L,width) for type numbers `index` (B,); each different type is encoded once a call."""
        unique, back = torch.unique(index, return_inverse=True)
        rows = []
        for i in unique.tolist():
            words, at = self._frame(encoder, i)
            words = words.to(self.vectors)
            rows.append(torch.cat([words[:at], self.vectors[i], words[at + self.tokens :]]))
        kept = encoder.token_embedding.weight.dtype  # a frozen encoder may be in bfloat16
        return encoder.encode_embeddings(torch.stack(rows).to(kept))[back]
