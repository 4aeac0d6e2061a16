"""Prompts: "category + defect type" and, at the end, vectors that are learned for that type (FAST, A.5: 8 of them)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fast.data.words import prompt_text
from ldm.errors import UserError
from ldm.modules.encoders.modules import TextEncoder


def by_word(types: Sequence[str], vectors: Tensor) -> dict[str, Tensor]:
    """Group the vectors (N,tokens,width) of types "category/anomaly" by defect word.

    Returns:
        (tokens,width) for each word, the mean where several types share it.
    """
    words = [prompt_text("", t.split("/", 1)[1]) for t in types]
    return {w: torch.stack([v for v, own in zip(vectors, words, strict=True) if own == w]).mean(0) for w in set(words)}


class LearnedPrompts(nn.Module):
    """Prompts of defect types: a type's words, and behind them a row of vectors that are learned for it.

    The vectors lie in the text encoder's token space and pass through the frozen encoder together with the words.

    Args:
        types: keys "category/anomaly".
        width: width of the encoder's token embeddings.
        tokens: learned vectors per type.

    Raises:
        UserError: there is no type, or one is not of that form.
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
    def start_from(self, encoder: TextEncoder, word: str | None, known: Mapping[str, Tensor] | None = None) -> None:
        """Set the vectors of every type to values to start from.

        Vectors that are known for `word`, or without one for the type's defect, are taken. Where there are none, all
        start from the mean token embedding of `word`, or of the type's own words.

        Args:
            encoder: the text encoder.
            word: the word to start from. None: the type's.
            known: vectors (tokens,width) by defect word.

        Raises:
            UserError: the tokenizer has no token for the word.
        """
        for index in range(len(self.types)):
            self._start(encoder, index, word, known or {})

    def _start(self, encoder: TextEncoder, index: int, word: str | None, known: Mapping[str, Tensor]) -> None:
        ready = known.get(prompt_text("", word or self.types[index].split("/", 1)[1]))
        if ready is not None:
            self.vectors[index] = ready.to(self.vectors)
            return
        pieces = encoder.tokenizer.pieces(word or self.text(index))
        if not pieces:
            raise UserError(f"--init_word {word!r} has no token in this tokenizer; give another word")
        ids = torch.tensor(pieces, device=encoder.token_embedding.weight.device)
        self.vectors[index] = encoder.embed_tokens(ids[None])[0].mean(dim=0)

    @torch.no_grad()
    def serving(self, encoder: TextEncoder, types: Sequence[str]) -> "LearnedPrompts":
        """Return prompts for other types.

        A type that is known here keeps its vectors. Another one gets those known for its defect word, or else the
        word's embedding. Raises `UserError` for words that the encoder cannot read.
        """
        for key in types:
            check_words(encoder, key)
        return self.beside(encoder, types)

    @torch.no_grad()
    def beside(
        self, encoder: TextEncoder, types: Sequence[str], more: Mapping[str, Tensor] | None = None
    ) -> "LearnedPrompts":
        """Return prompts as `serving` does, for categories of any name: words are not checked.

        Args:
            encoder: the text encoder.
            types: keys "category/anomaly".
            more: further vectors (tokens,width) by defect word, for words that are not known here.
        """
        known = {**(more or {}), **by_word(self.types, self.vectors)}
        other = LearnedPrompts(types, self.vectors.shape[2], self.tokens).to(self.vectors.device)
        for index, key in enumerate(types):
            if key in self.types:
                other.vectors[index] = self.vectors[self.types.index(key)]
            else:
                other._start(encoder, index, prompt_text("", key.split("/", 1)[1]), known)
        return other.requires_grad_(False)

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

    def positions(self, encoder: TextEncoder, index: Tensor) -> Tensor:
        """Which tokens are learned vectors, (B,L) bool, in the prompts of type numbers `index` (B,)."""
        place = torch.arange(encoder.max_length, device=self.vectors.device)
        first = [self._frame(encoder, i)[1] for i in index.tolist()]
        return torch.stack([(place >= at) & (place < at + self.tokens) for at in first])

    def forward(self, encoder: TextEncoder, index: Tensor) -> Tensor:
        """Encode the prompts of type numbers `index` (B,) to (B,L,width), each different type once per call."""
        unique, back = torch.unique(index, return_inverse=True)
        rows = []
        for i in unique.tolist():
            words, at = self._frame(encoder, i)
            words = words.to(self.vectors)
            rows.append(torch.cat([words[:at], self.vectors[i], words[at + self.tokens :]]))
        kept = encoder.token_embedding.weight.dtype  # a frozen encoder may be in bfloat16
        return encoder.encode_embeddings(torch.stack(rows).to(kept))[back]


def is_vocabulary(encoder: TextEncoder, name: str) -> bool:
    """Whether each word of a name is a token of its own, so that the encoder may have seen it in training."""
    words, unknown = prompt_text("", name).split(), encoder.tokenizer.loaded.unk_token_id
    return all(len(pieces := encoder.tokenizer.pieces(w)) == 1 and pieces != [unknown] for w in words)


def check_words(encoder: TextEncoder, key: str) -> None:
    """Raise `UserError` if the tokenizer cannot spell the words of a type "category/anomaly"."""
    for name in filter(None, key.split("/", 1)):
        pieces, unknown = encoder.tokenizer.pieces(prompt_text("", name)), encoder.tokenizer.loaded.unk_token_id
        if not pieces or unknown in pieces:
            raise UserError(f"{name!r} has no token in the base's tokenizer; describe the defect in other words")
