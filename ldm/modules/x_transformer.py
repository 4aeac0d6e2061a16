"""The x-transformers encoder behind latent-diffusion's `BERTEmbedder`; weight names are those of its checkpoints."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.attention import attend


class AbsolutePositionalEmbedding(nn.Module):
    """One learned vector per position."""

    def __init__(self, dim: int, max_seq_len: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(max_seq_len, dim)
        nn.init.normal_(self.emb.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, ...) -> (L, dim)."""
        return self.emb.weight[: x.shape[1]]


class Attention(nn.Module):
    """Multi-head self-attention without bias on queries, keys and values."""

    def __init__(self, dim: int, heads: int = 8, dim_head: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        inner = heads * dim_head
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(dim, inner, bias=False)
        self.to_v = nn.Linear(dim, inner, bias=False)
        self.to_out = nn.Linear(inner, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, dim) -> (B, L, dim). `mask`: (B, L), True where a token may be attended to."""
        q, k, v = (to(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v))
        hidden = None
        if mask is not None:  # the lowest number, not minus infinity: a hidden token's own row stays finite
            seen = mask[:, None, :, None] & mask[:, None, None, :]
            hidden = q.new_zeros(seen.shape).masked_fill(~seen, torch.finfo(q.dtype).min)
        if self.training and self.dropout:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden, dropout_p=self.dropout)
        else:
            out = attend(q, k, v, hidden)
        return self.to_out(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, dim: int, mult: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        # The nesting only fixes the weight names net.0.0 and net.2.
        self.net = nn.Sequential(
            nn.Sequential(nn.Linear(dim, dim * mult), nn.GELU()), nn.Dropout(dropout), nn.Linear(dim * mult, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Encoder(nn.Module):
    """`depth` pairs of attention and feed-forward: even entries of `layers` attend, odd ones feed forward."""

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int = 8,
        dim_head: int = 64,
        ff_mult: int = 4,
        attn_dropout: float = 0.0,
        ff_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.depth = dim, depth
        self.layers = nn.ModuleList()
        for _ in range(depth):
            for block in (Attention(dim, heads, dim_head, attn_dropout), FeedForward(dim, ff_mult, ff_dropout)):
                self.layers.append(nn.ModuleList([nn.LayerNorm(dim), block]))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, dim) -> (B, L, dim), without the final norm. `mask`: (B, L), True = attend."""
        for norm, block in cast("list[tuple[nn.Module, nn.Module]]", self.layers):
            h = norm(x)
            x = x + (block(h, mask) if isinstance(block, Attention) else block(h))
        return x


class TransformerWrapper(nn.Module):
    """Token and position embeddings around an `Encoder`, with a final norm and a vocabulary head."""

    def __init__(
        self,
        num_tokens: int,
        max_seq_len: int,
        attn_layers: Encoder,
        emb_dim: int | None = None,
        emb_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dim = attn_layers.dim
        emb_dim = emb_dim or dim
        self.num_tokens, self.max_seq_len = num_tokens, max_seq_len
        self.token_emb = nn.Embedding(num_tokens, emb_dim)
        nn.init.normal_(self.token_emb.weight, std=0.02)
        self.pos_emb = AbsolutePositionalEmbedding(emb_dim, max_seq_len)
        self.emb_dropout = nn.Dropout(emb_dropout)
        self.project_emb = nn.Linear(emb_dim, dim) if emb_dim != dim else nn.Identity()
        self.attn_layers = attn_layers
        self.norm = nn.LayerNorm(dim)
        # Present in published checkpoints, unused by diffusion: a parameter without a gradient would stall DDP.
        self.to_logits = nn.Linear(dim, num_tokens).requires_grad_(False)

    def forward(
        self,
        tokens: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        mask: Tensor | None = None,
        return_embeddings: bool = False,
    ) -> Tensor:
        """Encode `tokens` (B, L), or `inputs_embeds` (B, L, emb_dim): token embeddings before positions are added.

        Returns (B, L, dim) with `return_embeddings`, else logits (B, L, num_tokens). `mask`: (B, L), True = attend.
        """
        if (tokens is None) == (inputs_embeds is None):
            raise ValueError("give either tokens or inputs_embeds")
        x = inputs_embeds if inputs_embeds is not None else self.token_emb(tokens)
        if x.shape[1] > self.max_seq_len:
            raise ValueError(f"{x.shape[1]} tokens exceed max_seq_len={self.max_seq_len}")
        x = self.project_emb(self.emb_dropout(x + self.pos_emb(x)))
        x = self.norm(self.attn_layers(x, mask))
        return x if return_embeddings else self.to_logits(x)
