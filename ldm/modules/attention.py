"""The spatial transformer of latent-diffusion: self-attention, cross-attention to the prompt, gated feed-forward."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.modules.diffusionmodules.util import checkpointed, zero_module

# Scores that are held at a time on the CPU, in numbers: what fits in a core's own cache.
BLOCK = 1 << 19
FORMS = ("scores", "map")


@dataclass(frozen=True)
class Projected:
    """A prompt as the layers of a U-Net take it, computed once for many evaluations.

    Args:
        layers: keys and values (B, heads, L, d) for every cross-attention, by its `slot`.
        pooled: (B, C), what joins the time embedding. None for a network that pools no prompt.
    """

    layers: Sequence[tuple[Tensor, Tensor]]
    pooled: Tensor | None = None

    @staticmethod
    def cat(parts: Sequence["Projected"]) -> "Projected":
        """One batch of several."""
        layers = zip(*(part.layers for part in parts), strict=True)
        pooled = [part.pooled for part in parts if part.pooled is not None]
        joined = [(torch.cat([k for k, _ in rows]), torch.cat([v for _, v in rows])) for rows in layers]
        return Projected(joined, torch.cat(pooled) if pooled else None)

    def to(self, device: torch.device) -> "Projected":
        """The same on another device."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return Projected([(k.to(device), v.to(device)) for k, v in self.layers], pooled)


@dataclass(frozen=True)
class Weighted:
    """A context to which each cell of a picture attends more or less than it would, by a weight of its own.

    Args:
        context: the prompt, encoded or projected.
        weights: (B,1,h,w), one for each cell, on a grid of the picture's proportions. Each layer takes area means on
            its own grid.
        columns: (B,L), True for the tokens that are weighted.
        form: what is multiplied by the weights. "scores": the scores, before the softmax. "map": the attention map
            after it, whose rows then no longer sum to one.

    Raises:
        ValueError: `form` is unknown.
    """

    context: Tensor | Projected
    weights: Tensor
    columns: Tensor
    form: str = "scores"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form={self.form} is unknown; use {' or '.join(FORMS)}")

    def to(self, dtype: torch.dtype) -> "Weighted":
        """The same with a context that is not projected yet in `dtype`."""
        return replace(self, context=self.context.to(dtype)) if isinstance(self.context, Tensor) else self

    def factors(self, cells: int) -> Tensor:
        """What a layer of `cells` cells multiplies by: (B, 1, cells, L), float32, 1 outside `columns`."""
        height, width = self.weights.shape[-2:]
        shrunk = (height * width / cells) ** 0.5
        grid = round(height / shrunk), round(width / shrunk)
        if grid[0] * grid[1] != cells:
            raise ValueError(f"weights of {height} x {width} cells do not shrink to a layer's {cells}")
        weights = F.adaptive_avg_pool2d(self.weights.float(), grid).flatten(2)[..., None]
        return torch.where(self.columns[:, None, None], weights, 1.0)


# The prompt as a U-Net takes it: encoded, projected, or either of them weighted.
Context = Tensor | Projected | Weighted


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of q (B, heads, N, d) to k and v (B, heads, L, d).

    It is PyTorch's fused kernel, except in bfloat16 on a CPU, where that one computes in float32. There it is blocks of
    matrix products, which take half the time.

    Args:
        q, k, v: queries, keys and values.
        mask: added to the scores, (B, heads, N, L), of which any may be 1. None adds nothing.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or mask is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    batch, heads, n, d = q.shape
    length = k.shape[2]
    k = k.transpose(-1, -2)
    zero = q.new_zeros(()).expand(1, 1, 1)
    together = max(1, min(batch * heads, BLOCK // (n * length)))  # heads
    rows = max(1, min(n, BLOCK // (together * length)))

    def block(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        scores = torch.baddbmm(zero, queries, keys, beta=0, alpha=d**-0.5)
        return torch.bmm(scores.softmax(-1), values)

    # Split, not sliced: the gradient of a slice is as large as what it was cut from.
    out = [
        torch.cat([block(some, keys, values) for some in queries.split(rows, dim=1)], dim=1)
        for queries, keys, values in zip(*(x.flatten(0, 1).split(together) for x in (q, k, v)), strict=True)
    ]
    return torch.cat(out).view(batch, heads, n, d)


def attend_weighted(q: Tensor, k: Tensor, v: Tensor, weighted: Weighted, mask: Tensor | None = None) -> Tensor:
    """`attend` with the scores or the map of it multiplied by `weighted.factors` (AnomalyDiffusion's re-weighting)."""
    factors = weighted.factors(q.shape[2]).to(q.dtype)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    scores = scores * factors if weighted.form == "scores" else scores
    seen = (scores if mask is None else scores + mask).softmax(-1)
    return (seen if weighted.form == "scores" else seen * factors) @ v


class GEGLU(nn.Module):
    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        self.proj = nn.Linear(dim_in, dim_out * 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, dim: int, dim_out: int | None = None, mult: int = 4, glu: bool = False, dropout: float = 0.0):
        super().__init__()
        inner = int(dim * mult)
        project = GEGLU(dim, inner) if glu else nn.Sequential(nn.Linear(dim, inner), nn.GELU())
        self.net = nn.Sequential(project, nn.Dropout(dropout), nn.Linear(inner, dim_out or dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class CrossAttention(nn.Module):
    """Attention of x (B, N, query_dim) to a context (B, L, context_dim), or to itself without a context.

    A call may also be given what `project` makes of a context, once for many calls. That is a `Projected`, in which
    this module's entry has the number `slot`. Either kind may be `Weighted`.

    Args:
        query_dim: width of x.
        context_dim: width of the context. None: `query_dim`.
        heads: number of heads.
        dim_head: width of each.
        dropout: share of the answer that is dropped in training.
    """

    slot = 0

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,
        heads: int = 8,
        dim_head: int = 64,
        dropout: float = 0.0,
    ):
        super().__init__()
        inner = dim_head * heads
        context_dim = context_dim or query_dim
        self.heads = heads
        self.to_q = nn.Linear(query_dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, query_dim), nn.Dropout(dropout))

    def project(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, L, d) of a context (B, L, context_dim)."""
        return self._apart(self.to_k(context)), self._apart(self.to_v(context))

    def _apart(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=self.heads)

    def forward(self, x: Tensor, context: Context | None = None, mask: Tensor | None = None) -> Tensor:
        """`mask` (B, L): True where the context may be seen."""
        weighted = context if isinstance(context, Weighted) else None
        if isinstance(context, Weighted):
            context = context.context
        if context is None or isinstance(context, Tensor):
            k, v = self.project(x if context is None else context)
        else:
            k, v = context.layers[self.slot]
        q = self._apart(self.to_q(x))
        hidden = None
        if mask is not None:  # the lowest number, not minus infinity: a row that sees nothing stays finite
            hidden = q.new_zeros(mask.shape).masked_fill(~mask.bool(), torch.finfo(q.dtype).min)[:, None, None]
        out = attend(q, k, v, hidden) if weighted is None else attend_weighted(q, k, v, weighted, hidden)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class BasicTransformerBlock(nn.Module):
    def __init__(
        self,
        dim: int,
        n_heads: int,
        d_head: int,
        dropout: float = 0.0,
        context_dim: int | None = None,
        gated_ff: bool = True,
        use_checkpoint: bool = True,
    ):
        super().__init__()
        self.attn1 = CrossAttention(dim, heads=n_heads, dim_head=d_head, dropout=dropout)
        self.ff = FeedForward(dim, dropout=dropout, glu=gated_ff)
        self.attn2 = CrossAttention(dim, context_dim, heads=n_heads, dim_head=d_head, dropout=dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return checkpointed(self._forward, self.use_checkpoint, x, context)

    def _forward(self, x: Tensor, context: Context | None) -> Tensor:
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    """Transformer blocks over the cells of x (B, C, H, W), residual, its last layer zero at the start."""

    def __init__(
        self,
        in_channels: int,
        n_heads: int,
        d_head: int,
        depth: int = 1,
        dropout: float = 0.0,
        context_dim: int | None = None,
        use_checkpoint: bool = True,
    ):
        super().__init__()
        inner = n_heads * d_head
        self.norm = nn.GroupNorm(32, in_channels, eps=1e-6)
        self.proj_in = nn.Conv2d(in_channels, inner, 1)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(inner, n_heads, d_head, dropout, context_dim, use_checkpoint=use_checkpoint)
            for _ in range(depth)
        )
        self.proj_out = zero_module(nn.Conv2d(inner, in_channels, 1))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        height, width = x.shape[-2:]
        cells = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        for block in self.transformer_blocks:
            cells = block(cells, context)
        return x + self.proj_out(rearrange(cells, "b (h w) c -> b c h w", h=height, w=width))
