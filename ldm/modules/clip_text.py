"""CLIP's text transformer, with the weight names of Stable Diffusion v1 checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.errors import UserError


@dataclass(frozen=True)
class CLIPTextConfig:
    """Sizes of the text tower; the defaults are those of ViT-L/14."""

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    layer_norm_eps: float = 1e-5

    @classmethod
    def from_dict(cls, options: Mapping[str, Any] | None) -> "CLIPTextConfig":
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(options or {}) - known)
        if unknown:
            raise UserError(f"unknown config key {', '.join(unknown)} for text_config; it takes: {', '.join(known)}")
        return cls(**(options or {}))


class CLIPTextEmbeddings(nn.Module):
    """Token plus position embeddings."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        for table in (self.token_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=0.02)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Older checkpoints store 0..76 as a buffer; the positions are counted here, so it carries nothing.
        state_dict.pop(prefix + "position_ids", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        """Token embeddings (B, L, hidden) -> the same with positions added."""
        return inputs_embeds + self.position_embedding.weight[: inputs_embeds.shape[1]]


class CLIPAttention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        width = config.hidden_size
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            to(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for to in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class CLIPMLP(nn.Module):
    """Linear, quick GELU, Linear."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class CLIPEncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.self_attn = CLIPAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = CLIPMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class CLIPTextTransformer(nn.Module):
    """Embeddings, causal encoder, final norm."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.embeddings = CLIPTextEmbeddings(config)
        self.encoder = CLIPEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        return self.final_layer_norm(self.encoder(self.embeddings(inputs_embeds)))


class CLIPTextModel(nn.Module):
    """The text tower under the attribute `text_model`, as Stable Diffusion v1 names it."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = CLIPTextTransformer(config)

    def forward(self, tokens: Tensor | None = None, *, inputs_embeds: Tensor | None = None) -> Tensor:
        """Encode `tokens` (B, L) or `inputs_embeds` (B, L, hidden), token embeddings before positions are added.

        Returns the last hidden state after the final norm, (B, L, hidden); each token sees itself and those before it.
        """
        if (tokens is None) == (inputs_embeds is None):
            raise ValueError("give either tokens or inputs_embeds")
        x = inputs_embeds if inputs_embeds is not None else self.text_model.embeddings.token_embedding(tokens)
        if x.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f"{x.shape[1]} tokens exceed max_position_embeddings={self.config.max_position_embeddings}"
            )
        return self.text_model(x)
