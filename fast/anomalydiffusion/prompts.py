"""Prompts with the type's appearance vectors and the mask's location vectors where a template has its `*`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fast.latent.prompts import LearnedPrompts
from ldm.errors import UserError
from ldm.modules.encoders.modules import TextEncoder

# In the manner of CLIP's zero-shot prompts. The first one serves at synthesis.
TEMPLATES = (
    "a photo of a *",
    "a close-up photo of a *",
    "a picture of the *",
    "a cropped photo of one *",
    "a bright photo of the *",
    "a dark photo of a *",
    "a blurry picture of a *",
    "a sharp picture of the *",
    "a photo of a small *",
    "a photo of a large *",
    "a photo of a clean *",
    "a photo of a dirty *",
)


def templates_of(option: int | Sequence[str] | None) -> tuple[str, ...]:
    """The texts that the option `templates` means.

    Args:
        option: a number takes the first so many of `TEMPLATES`. Texts each have one `*` where the vectors go. None: no
            text but the type's own words.

    Raises:
        UserError: when the number is out of range, or when a text has not exactly one `*`.
    """
    if option is None:
        return ()
    if isinstance(option, int):
        if isinstance(option, bool) or not 1 <= option <= len(TEMPLATES):
            raise UserError(f"model.params.templates={option} lies outside 1..{len(TEMPLATES)}; correct it")
        return TEMPLATES[:option]
    texts = tuple(option) if not isinstance(option, str) else (option,)
    wrong = [t for t in texts if not isinstance(t, str) or t.count("*") != 1]
    if wrong or not texts:
        raise UserError(f"model.params.templates: {wrong[:1] or texts} needs one * in the place of the defect")
    return texts


class LocatedPrompts(LearnedPrompts):
    """Prompts with two kinds of vectors at the template's `*`: first those of the type, then those of the mask.

    Words behind the vectors move right and are cut at the encoder's length.

    Args:
        types: the defect types "category/anomaly".
        width: length of a vector, that of the encoder's token embeddings.
        tokens: learned vectors of each type.
        located: location vectors of a mask.
        templates: texts with one `*` each. Without any, the type's own words stand in front of the vectors.
    """

    def __init__(self, types: Sequence[str], width: int, tokens: int, located: int, templates: Sequence[str] = ()):
        super().__init__(types, width, tokens)
        self.located, self.templates = located, tuple(templates)
        self._frames: dict[tuple[int, int], tuple[Tensor, int]] = {}

    @torch.no_grad()
    def serving(self, encoder: TextEncoder, types: Sequence[str]) -> "LocatedPrompts":
        """See `LearnedPrompts.serving`."""
        plain = super().serving(encoder, types)
        other = LocatedPrompts(types, self.vectors.shape[2], self.tokens, self.located, self.templates)
        other.vectors = plain.vectors
        return other.requires_grad_(False)

    def _around(self, index: int, template: int) -> tuple[str, str]:
        """The words before and behind the vectors."""
        if not self.templates:
            return self.text(index), ""
        before, _, after = self.templates[template].partition("*")
        return before, after

    def _located_frame(self, encoder: TextEncoder, index: int, template: int) -> tuple[Tensor, int]:
        """Token embeddings (L,width) of a prompt and where its vectors stand. Computed once."""
        key = (index if not self.templates else 0, template)
        if key not in self._frames:
            count, pieces = self.tokens + self.located, encoder.tokenizer.pieces
            before, after = (pieces(text.strip()) if text.strip() else [] for text in self._around(index, template))
            before = before[: encoder.max_length - count - 2]
            ids = encoder.tokenizer.frame([*before, *[encoder.pad_id] * count, *after])
            with torch.no_grad():
                embedded = encoder.embed_tokens(torch.tensor([ids], device=self.vectors.device))[0]
            self._frames[key] = embedded, 1 + len(before)
        return self._frames[key]

    def positions(self, encoder: TextEncoder, index: Tensor) -> Tensor:
        """Where the vectors, of the type and of the mask, stand in the first template's prompts: (B,L) bool."""
        place = torch.arange(encoder.max_length, device=self.vectors.device)
        first = [self._located_frame(encoder, i, 0)[1] for i in index.tolist()]
        return torch.stack([(place >= at) & (place < at + self.tokens + self.located) for at in first])

    def forward(  # type: ignore[override]
        self, encoder: TextEncoder, index: Tensor, located: Tensor, template: Sequence[int] | None = None
    ) -> Tensor:
        """Encoded prompts (B,L,width).

        Args:
            encoder: the text encoder.
            index: type numbers (B,).
            located: location vectors (B,located,width).
            template: the number of each row's template. None: the first one for all.
        """
        rows = []
        for row, i in enumerate(index.tolist()):
            words, at = self._located_frame(encoder, i, template[row] if template else 0)
            words, vectors = words.to(self.vectors), torch.cat([self.vectors[i], located[row].to(self.vectors)])
            rows.append(torch.cat([words[:at], vectors, words[at + len(vectors) :]]))
        return encoder.encode_embeddings(torch.stack(rows).to(encoder.token_embedding.weight.dtype))
