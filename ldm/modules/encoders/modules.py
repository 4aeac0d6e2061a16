"""Conditioning encoders: text (BERT style, CLIP) and class labels. `transformers` is imported on first use."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.modules.clip_text import CLIPTextConfig, CLIPTextModel
from ldm.modules.x_transformer import Encoder, TransformerWrapper

_REMEDY = "set model.params.cond_stage_config.params.tokenizer=FOLDER (a folder that holds the tokenizer's files)"


_PROJECT = Path(__file__).resolve().parents[3]


_offline: ContextVar[bool] = ContextVar("offline", default=False)


@contextmanager
def offline(closed: bool = True) -> Iterator[None]:
    """Within it, tokenizers that are made do not go to the network, unless `closed` is False.

    It is for models from files that others made.
    """
    token = _offline.set(closed)
    try:
        yield
    finally:
        _offline.reset(token)


class Tokenizer:
    """A `transformers` tokenizer, loaded on first use so that a model can be built and its weights read without one.

    Args:
        source: a local folder, read offline, or a hub name, fetched because the user named it. One that is made within
            `offline()` has to have been fetched earlier. None: text cannot be encoded.
        max_length: tokens per text, start, end and padding included.
        vocab_size: rows of the token embedding that it must fit.
    """

    def __init__(self, source: str | os.PathLike[str] | None, max_length: int, vocab_size: int) -> None:
        self.source = None if source is None else os.fspath(source)
        self.max_length, self.vocab_size = max_length, vocab_size
        self.offline = _offline.get()
        self._loaded: tuple[Any, tuple[int, int, int]] | None = None

    @property
    def loaded(self) -> Any:
        """The tokenizer of `transformers`. Raises `UserError`."""
        return self._get()[0]

    @property
    def special_ids(self) -> tuple[int, int, int]:
        """Ids of the start token ([CLS] or begin of text), end token ([SEP] or end of text) and padding."""
        return self._get()[1]

    def _get(self) -> tuple[Any, tuple[int, int, int]]:
        if self._loaded is None:
            tokenizer = self._load()
            self._loaded = tokenizer, self._check(tokenizer)
        return self._loaded

    def _load(self) -> Any:
        if self.source is None:
            raise UserError(f"tokenizer=None: text cannot be encoded without a tokenizer; {_REMEDY}")
        folder = Path(self.source).expanduser()
        # Recipes name the project's own tokenizer; the user may stand elsewhere, or have installed a wheel.
        places = (folder, _PROJECT / self.source, _PROJECT / "fast" / "shipped" / self.source)
        folder = next((place for place in places if place.is_dir()), folder)
        # A hub name has one slash at most and no leading dot, so anything else that is no folder is a misspelt path.
        if not folder.is_dir() and (self.source.count("/") > 1 or self.source.startswith((".", "/", "~"))):
            raise UserError(f"tokenizer={self.source} is not a folder; {_REMEDY}")
        from transformers import AutoTokenizer

        here = {"local_files_only": True, "trust_remote_code": False}
        try:
            if folder.is_dir():
                return AutoTokenizer.from_pretrained(str(folder), **here)
            return AutoTokenizer.from_pretrained(self.source, **(here if self.offline else {}))
        except Exception as error:  # the libraries below raise what they like for absent, damaged or unreachable files
            if self.offline and not folder.is_dir():
                raise UserError(
                    f"tokenizer={self.source} is not on this machine, and a file that names it is no reason to fetch "
                    "it; name it yourself, or its folder: --tokenizer NAME"
                ) from error
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"tokenizer={self.source} could not be loaded ({reason}); {_REMEDY}") from error

    def _check(self, tokenizer: Any) -> tuple[int, int, int]:
        def first(*names: str) -> Any:
            return next((i for name in names if (i := getattr(tokenizer, name, None)) is not None), None)

        start, end = first("cls_token_id", "bos_token_id"), first("sep_token_id", "eos_token_id")
        pad = first("pad_token_id")
        # Some versions build an empty tokenizer from a folder without vocabulary: nothing beyond the special tokens.
        if None in (start, end, pad) or len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise UserError(f"tokenizer={self.source} has no vocabulary or no start, end or pad token; {_REMEDY}")
        if len(tokenizer) > self.vocab_size:
            raise UserError(
                f"tokenizer={self.source} has {len(tokenizer)} entries, more than vocab_size={self.vocab_size}; "
                "give the tokenizer the text encoder was trained with"
            )
        return start, end, pad

    def pieces(self, text: str) -> list[int]:
        """Ids of `text` alone: no start, end or padding, not cut."""
        return list(self.loaded(text, add_special_tokens=False, verbose=False)["input_ids"])

    def frame(self, ids: Sequence[int]) -> list[int]:
        """start + ids + end, cut and padded to `max_length`."""
        start, end, pad = self.special_ids
        framed = [start, *ids[: self.max_length - 2], end]
        return framed + [pad] * (self.max_length - len(framed))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids (B, max_length), the same as `truncation=True, padding="max_length"` gives."""
        return torch.tensor([self.frame(self.pieces(text)) for text in texts], dtype=torch.long)


class TextEncoder(nn.Module):
    """What prompts need of a text encoder: text -> ids -> token embeddings (without positions) -> encoding.

    Learned vectors replace rows of `embed_tokens(...)` before `encode_embeddings`.
    """

    tokenizer: Tokenizer
    transformer: TransformerWrapper | CLIPTextModel

    @property
    def token_embedding(self) -> nn.Embedding:
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Channels of an embedding."""
        return self.token_embedding.embedding_dim

    @property
    def max_length(self) -> int:
        """Tokens per text, start, end and padding included."""
        return self.tokenizer.max_length

    @property
    def start_id(self) -> int:
        """[CLS], or CLIP's begin of text."""
        return self.tokenizer.special_ids[0]

    @property
    def end_id(self) -> int:
        """[SEP], or CLIP's end of text."""
        return self.tokenizer.special_ids[1]

    @property
    def pad_id(self) -> int:
        return self.tokenizer.special_ids[2]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids (B, max_length) on the device of the weights. Raises `UserError` without a usable tokenizer."""
        return self.tokenizer(texts).to(self.token_embedding.weight.device)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Ids (B, L) -> token embeddings (B, L, width), no positions."""
        return self.token_embedding(tokens)

    def encode_embeddings(self, inputs_embeds: Tensor) -> Tensor:
        """Token embeddings (B, L, width) -> encoding (B, L, width)."""
        raise NotImplementedError

    def forward(self, text: Sequence[str] | Tensor) -> Tensor:
        """Texts, or ids (B, L) -> encoding (B, L, width)."""
        if isinstance(text, str):
            text = [text]  # a lone string would otherwise be read letter by letter
        tokens = text if isinstance(text, Tensor) else self.tokenize(text)
        return self.encode_embeddings(self.embed_tokens(tokens))

    def encode(self, text: Sequence[str] | Tensor) -> Tensor:
        return self(text)


class BERTEmbedder(TextEncoder):
    """latent-diffusion's text encoder: BERT's word pieces and a transformer trained with the diffusion model.

    Args:
        n_embed: width of the transformer and of the encoding.
        n_layer: its layers.
        vocab_size: rows of the token embedding.
        max_seq_len: tokens per text.
        device: without effect, for older configs. Tokens follow the weights.
        use_tokenizer: False means that `forward` gets ids.
        embedding_dropout: share of the embeddings that is dropped in training.
        tokenizer: local folder or hub name. None: only ids can be encoded.
    """

    def __init__(
        self,
        n_embed: int,
        n_layer: int,
        vocab_size: int = 30522,
        max_seq_len: int = 77,
        device: str | None = None,
        use_tokenizer: bool = True,
        embedding_dropout: float = 0.0,
        tokenizer: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.use_tokenizer = use_tokenizer
        self.tokenizer = Tokenizer(tokenizer, max_seq_len, vocab_size)
        self.transformer: TransformerWrapper = TransformerWrapper(
            vocab_size, max_seq_len, Encoder(n_embed, n_layer), emb_dropout=embedding_dropout
        )

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.transformer.token_emb

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        if not self.use_tokenizer:
            raise UserError("use_tokenizer=False: give token ids, or set use_tokenizer=true and a tokenizer")
        return super().tokenize(texts)

    def encode_embeddings(self, inputs_embeds: Tensor) -> Tensor:
        return self.transformer(inputs_embeds=inputs_embeds, return_embeddings=True)


class FrozenCLIPEmbedder(TextEncoder):
    """Stable Diffusion v1's text encoder: the last hidden state of CLIP ViT-L/14. Weights come with the checkpoint.

    Args:
        version: names the published tower and is not fetched. A local folder serves as the tokenizer where `tokenizer`
            is absent.
        device: without effect, as for `BERTEmbedder`.
        max_length: tokens per text.
        tokenizer: local folder or hub name.
        freeze: True puts it in evaluation mode and takes no gradients.
        text_config: sizes that differ from those of ViT-L/14, see `CLIPTextConfig`.

    Raises:
        UserError: `max_length` exceeds the positions of the tower, or `text_config` has an unknown key.
    """

    # Present in older checkpoints, absent from `state_dict()`: constant, see `CLIPTextEmbeddings`.
    surplus_keys = ("transformer.text_model.embeddings.position_ids",)

    def __init__(
        self,
        version: str = "openai/clip-vit-large-patch14",
        device: str | None = None,
        max_length: int = 77,
        tokenizer: str | os.PathLike[str] | None = None,
        freeze: bool = True,
        text_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        config = CLIPTextConfig.from_dict(text_config)
        if max_length > config.max_position_embeddings:
            limit = config.max_position_embeddings
            raise UserError(f"max_length={max_length} exceeds max_position_embeddings={limit}; lower max_length")
        if tokenizer is None and Path(version).is_dir():
            tokenizer = version
        self.tokenizer = Tokenizer(tokenizer, max_length, config.vocab_size)
        self.transformer: CLIPTextModel = CLIPTextModel(config)
        if freeze:
            self.freeze()

    def freeze(self) -> None:
        self.eval().requires_grad_(False)

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.transformer.text_model.embeddings.token_embedding

    def encode_embeddings(self, inputs_embeds: Tensor) -> Tensor:
        return self.transformer(inputs_embeds=inputs_embeds)


class ClassEmbedder(nn.Module):
    """One learned vector per class, as a context of length one."""

    def __init__(self, embed_dim: int, n_classes: int = 1000, key: str = "class") -> None:
        super().__init__()
        self.key = key
        self.embedding = nn.Embedding(n_classes, embed_dim)

    def forward(self, batch: Mapping[str, Any] | Tensor, key: str | None = None) -> Tensor:
        """Class ids (B,), or a batch that holds them under `key` -> (B, 1, embed_dim)."""
        labels = batch if isinstance(batch, Tensor) else batch[key or self.key]
        return self.embedding(labels[:, None])
