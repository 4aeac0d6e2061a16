"""The U-Net of latent-diffusion and Stable Diffusion v1, with their key names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.modules.attention import Context, CrossAttention, Projected, SpatialTransformer, Weighted, attend
from ldm.modules.diffusionmodules.util import (
    avg_pool_nd,
    checkpointed,
    conv_nd,
    normalization,
    timestep_embedding,
    zero_module,
)


class TimestepEmbedSequential(nn.Sequential):
    """Hands the time embedding to residual blocks and the prompt to transformers."""

    def forward(self, x: Tensor, emb: Tensor, context: Context | None = None) -> Tensor:  # type: ignore[override]
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class Upsample(nn.Module):
    """Twice the size by nearest neighbour, then a convolution if `use_conv`."""

    def __init__(self, channels: int, use_conv: bool, dims: int = 2, out_channels: int | None = None):
        super().__init__()
        self.dims = dims
        self.conv = conv_nd(dims, channels, out_channels or channels, 3, padding=1) if use_conv else None

    def forward(self, x: Tensor) -> Tensor:
        # A volume keeps its depth: only the two picture axes grow.
        scale = (1.0, 2.0, 2.0) if self.dims == 3 else 2.0
        x = F.interpolate(x, scale_factor=scale, mode="nearest")
        return x if self.conv is None else self.conv(x)


class Downsample(nn.Module):
    """Half the size by a strided convolution, or by averaging without `use_conv`."""

    def __init__(self, channels: int, use_conv: bool, dims: int = 2, out_channels: int | None = None):
        super().__init__()
        stride = (1, 2, 2) if dims == 3 else 2
        if use_conv:
            self.op = conv_nd(dims, channels, out_channels or channels, 3, stride=stride, padding=1)
        else:
            self.op = avg_pool_nd(dims, kernel_size=stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    """Two convolutions around the time embedding, with a skip path; may resize by two (`up`, `down`)."""

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        dropout: float,
        out_channels: int | None = None,
        use_conv: bool = False,
        use_scale_shift_norm: bool = False,
        dims: int = 2,
        use_checkpoint: bool = False,
        up: bool = False,
        down: bool = False,
    ):
        super().__init__()
        out_channels = out_channels or channels
        self.use_checkpoint = use_checkpoint
        self.use_scale_shift_norm = use_scale_shift_norm
        self.in_layers = nn.Sequential(
            normalization(channels), nn.SiLU(), conv_nd(dims, channels, out_channels, 3, padding=1)
        )
        self.updown = up or down
        resize = Upsample if up else Downsample
        self.h_upd: nn.Module = resize(channels, False, dims) if self.updown else nn.Identity()
        self.x_upd: nn.Module = resize(channels, False, dims) if self.updown else nn.Identity()
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels if use_scale_shift_norm else out_channels)
        )
        self.out_layers = nn.Sequential(
            normalization(out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero_module(conv_nd(dims, out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection: nn.Module
        if out_channels == channels:
            self.skip_connection = nn.Identity()
        elif use_conv:
            self.skip_connection = conv_nd(dims, channels, out_channels, 3, padding=1)
        else:
            self.skip_connection = conv_nd(dims, channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return checkpointed(self._forward, self.use_checkpoint, x, emb)

    def _forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.h_upd(self.in_layers[:-1](x))
        h = self.in_layers[-1](h)
        x = self.x_upd(x)
        emb_out = self.emb_layers(emb).to(h.dtype)
        emb_out = emb_out.reshape(*emb_out.shape, *(1,) * (h.dim() - 2))
        if self.use_scale_shift_norm:
            scale, shift = emb_out.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + emb_out)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Self-attention over all cells, for U-Nets without a prompt."""

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        num_head_channels: int = -1,
        use_checkpoint: bool = False,
        use_new_attention_order: bool = False,
    ):
        super().__init__()
        if num_head_channels != -1 and channels % num_head_channels:
            raise UserError(f"{channels} channels do not divide into num_head_channels={num_head_channels}")
        self.num_heads = num_heads if num_head_channels == -1 else channels // num_head_channels
        if channels % self.num_heads:
            raise UserError(f"{channels} channels do not divide into num_heads={self.num_heads}")
        self.use_checkpoint = use_checkpoint
        self.new_order = use_new_attention_order
        self.norm = normalization(channels)
        self.qkv = nn.Conv1d(channels, channels * 3, 1)
        self.proj_out = zero_module(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return checkpointed(self._forward, self.use_checkpoint, x)

    def _forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        batch, channels, length = flat.shape
        qkv = self.qkv(self.norm(flat))
        # The two published orders of the 3C output channels: (3, heads, d) and (heads, 3, d).
        axes = (batch, 3, self.num_heads, -1, length) if self.new_order else (batch, self.num_heads, 3, -1, length)
        q, k, v = qkv.reshape(axes).transpose(-1, -2).unbind(1 if self.new_order else 2)
        out = attend(q, k, v).transpose(-1, -2).reshape(batch, channels, length)
        return (flat + self.proj_out(out)).reshape(x.shape)


@dataclass(frozen=True)
class _Heads:
    """How a width is cut into heads; keeps the original's `legacy` reading of the two options."""

    num_heads: int
    num_head_channels: int
    legacy: bool
    spatial: bool

    def at(self, channels: int) -> tuple[int, int]:
        """(heads, channels per head) for a block of this width."""
        if self.num_head_channels == -1:
            heads, width = self.num_heads, channels // self.num_heads
        else:
            heads, width = channels // self.num_head_channels, self.num_head_channels
        if self.legacy:
            width = channels // heads if self.spatial else self.num_head_channels
        return heads, width


class DeepFeatures:
    """What the inner blocks made of one evaluation, used again by the next ones (DeepCache, Ma et al. 2024).

    One such object serves one trajectory.

    Args:
        every: the inner blocks run at each `every`-th evaluation.
        outer: number of input blocks, and of output blocks, that always run. 1 is the stem and the last block.
    """

    def __init__(self, every: int, outer: int = 3):
        self.every, self.outer = every, outer
        self._count = 0
        self._kept: Tensor | None = None

    def of(self, inner: Callable[[], Tensor]) -> Tensor:
        """The kept features, or fresh ones from `inner()` when it is their turn."""
        if self._count % self.every == 0 or self._kept is None:
            self._kept = inner()
        self._count += 1
        return self._kept


class UNetModel(nn.Module):
    """The U-Net, with options and weight names as in latent-diffusion and two options of its own, the last two.

    `unet(x, timesteps, context, y)` takes x (B,in_channels,H,W), timesteps (B,) in 0..T-1, context (B,L,context_dim)
    and class labels y (B,), and returns (B,out_channels,H,W). H and W must be multiples of
    `patch_size * 2 ** (len(channel_mult) - 1)`.

    Args:
        image_size: the latents' side in published configs. Nothing depends on it.
        in_channels: channels of x.
        model_channels: width of the first level.
        out_channels: channels of the answer.
        num_res_blocks: residual blocks of each level on the way down. On the way up there is one more.
        attention_resolutions: the levels with attention, each by how many times it is smaller than the first, such as
            [4, 2, 1].
        dropout: share that residual blocks drop in training.
        channel_mult: each level's width in multiples of `model_channels`, from the largest resolution down.
        conv_resample: True resizes with convolutions, False by averaging and repeating cells.
        dims: axes of x beside batch and channels, 2 for pictures.
        num_classes: number of class labels. None: y must not be given.
        use_checkpoint: True computes activations again in the backward pass instead of keeping them.
        use_fp16: True converts the weights to half precision.
        num_heads: heads of each attention layer. -1: as `num_head_channels` says. One of the two must be given.
        num_head_channels: channels of each head, which counts where both are given. -1: as `num_heads` says.
        num_heads_upsample: heads of attention blocks without a prompt on the way up. -1: `num_heads`.
        use_scale_shift_norm: True lets the time embedding scale and shift the features, False adds it to them.
        resblock_updown: True resizes with residual blocks.
        use_new_attention_order: which of the two published orders the channels of attention blocks have.
        use_spatial_transformer: True gives the attention layers a prompt. It goes together with `context_dim`.
        transformer_depth: blocks of each of these transformers.
        context_dim: width of the encoded prompt.
        n_embed: number of codebook entries to predict in the place of `out_channels`. None: no codebook.
        legacy: True reads `num_heads` and `num_head_channels` as the original's option of this name does.
        patch_size: cells a side that the network takes together as one, so that fine latents cost it no more than
            coarse.
        pooled_context: True adds the mean of the prompt's tokens to the time embedding too, so that it reaches every
            block.

    Raises:
        UserError: options do not go together, or the sides of x are not such multiples.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        dropout: float = 0.0,
        channel_mult: Sequence[int] = (1, 2, 4, 8),
        conv_resample: bool = True,
        dims: int = 2,
        num_classes: int | None = None,
        use_checkpoint: bool = False,
        use_fp16: bool = False,
        num_heads: int = -1,
        num_head_channels: int = -1,
        num_heads_upsample: int = -1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
        use_spatial_transformer: bool = False,
        transformer_depth: int = 1,
        context_dim: int | None = None,
        n_embed: int | None = None,
        legacy: bool = True,
        patch_size: int = 1,
        pooled_context: bool = False,
    ):
        super().__init__()
        if use_spatial_transformer != (context_dim is not None):
            raise UserError("unet_config: context_dim and use_spatial_transformer go together; give both or neither")
        if num_heads == -1 and num_head_channels == -1:
            raise UserError("unet_config needs num_heads or num_head_channels")
        if patch_size < 1:
            raise UserError(f"unet_config: patch_size={patch_size} is below 1; correct it")
        self.image_size, self.in_channels, self.out_channels = image_size, in_channels, out_channels
        self.model_channels, self.num_classes = model_channels, num_classes
        self.patch_size, cells = patch_size, patch_size**2
        self.stride = patch_size * 2 ** (len(channel_mult) - 1)
        self.shallow = num_res_blocks + 1  # blocks on each side that work at the full number of cells
        heads = _Heads(num_heads, num_head_channels, legacy, use_spatial_transformer)
        up_heads = num_heads if num_heads_upsample == -1 else num_heads_upsample
        time_dim = model_channels * 4

        self.time_embed = nn.Sequential(nn.Linear(model_channels, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim))
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, time_dim)
        self.context_emb: nn.Module | None = None
        if pooled_context:
            if context_dim is None:
                raise UserError("unet_config: pooled_context=true needs a context_dim; give one or leave it out")
            self.context_emb = nn.Sequential(nn.Linear(context_dim, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim))

        def block(c_in: int, c_out: int, up: bool = False, down: bool = False) -> ResBlock:
            return ResBlock(c_in, time_dim, dropout, c_out, False, use_scale_shift_norm, dims, use_checkpoint, up, down)

        def attention(channels: int, upwards: bool = False) -> nn.Module:
            n, width = heads.at(channels)
            if use_spatial_transformer:
                return SpatialTransformer(
                    channels, n, width, transformer_depth, context_dim=context_dim, use_checkpoint=use_checkpoint
                )
            count = up_heads if upwards else n
            return AttentionBlock(channels, count, width, use_checkpoint, use_new_attention_order)

        self.input_blocks = nn.ModuleList(
            [TimestepEmbedSequential(conv_nd(dims, cells * in_channels, model_channels, 3, padding=1))]
        )
        ch, ds, skips = model_channels, 1, [model_channels]
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [block(ch, mult * model_channels)]
                ch = mult * model_channels
                if ds in attention_resolutions:
                    layers.append(attention(ch))
                self.input_blocks.append(TimestepEmbedSequential(*layers))
                skips.append(ch)
            if level != len(channel_mult) - 1:
                shrink = block(ch, ch, down=True) if resblock_updown else Downsample(ch, conv_resample, dims)
                self.input_blocks.append(TimestepEmbedSequential(shrink))
                skips.append(ch)
                ds *= 2

        self.middle_block = TimestepEmbedSequential(block(ch, ch), attention(ch), block(ch, ch))

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(num_res_blocks + 1):
                layers = [block(ch + skips.pop(), mult * model_channels)]
                ch = mult * model_channels
                if ds in attention_resolutions:
                    layers.append(attention(ch, upwards=True))
                if level and i == num_res_blocks:
                    layers.append(block(ch, ch, up=True) if resblock_updown else Upsample(ch, conv_resample, dims))
                    ds //= 2
                self.output_blocks.append(TimestepEmbedSequential(*layers))

        self.out = nn.Sequential(
            normalization(ch), nn.SiLU(), zero_module(conv_nd(dims, model_channels, cells * out_channels, 3, padding=1))
        )
        if n_embed is not None:
            self.id_predictor = nn.Sequential(normalization(ch), conv_nd(dims, model_channels, n_embed, 1))
        for slot, module in enumerate(self._cross_attentions()):
            module.slot = slot
        if use_fp16:
            self.half()

    def _cross_attentions(self) -> list[CrossAttention]:
        return [m for name, m in self.named_modules() if isinstance(m, CrossAttention) and name.endswith("attn2")]

    def project(self, context: Tensor) -> Projected:
        """What every layer makes of a prompt (B,L,context_dim): a `context` for many evaluations."""
        context = context.to(next(self.time_embed.parameters()).dtype)
        return Projected([module.project(context) for module in self._cross_attentions()], self._pooled(context))

    def _pooled(self, context: Context | None) -> Tensor | None:
        """The prompt's part of the time embedding (B,time_dim); None without `pooled_context`."""
        if self.context_emb is None:
            return None
        if isinstance(context, Weighted):
            context = context.context
        if isinstance(context, Projected):
            return context.pooled
        if context is None:
            raise ValueError("a U-Net with pooled_context needs a context")
        return self.context_emb(context.mean(dim=1))

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Context | None = None,
        y: Tensor | None = None,
        deep: DeepFeatures | None = None,
    ) -> Tensor:
        if (y is None) != (self.num_classes is None):
            raise ValueError("give class labels y if and only if the U-Net was built with num_classes")
        sides = x.shape[3:] if x.dim() == 5 else x.shape[2:]  # a volume keeps its depth
        if any(side % self.stride for side in sides):
            raise UserError(
                f"a latent of {tuple(sides)} cells does not shrink {self.stride} times; "
                f"choose an image size whose latent sides are multiples of {self.stride}"
            )
        dtype: torch.dtype = next(self.time_embed.parameters()).dtype
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(dtype))
        if y is not None:
            emb = emb + self.label_emb(y)
        context = context.to(dtype) if isinstance(context, Tensor | Weighted) else context
        pooled = self._pooled(context)
        emb = emb if pooled is None else emb + pooled
        outer = len(self.input_blocks) if deep is None else deep.outer
        h, skips = x.to(dtype), []
        if self.patch_size > 1:
            h = F.pixel_unshuffle(h, self.patch_size)
        for module in list(self.input_blocks)[:outer]:
            h = module(h, emb, context)
            skips.append(h)

        def inner() -> Tensor:
            return self._inner(h, emb, context, outer)

        h = inner() if deep is None else deep.of(inner)
        for module in list(self.output_blocks)[-outer:]:
            h = module(torch.cat([h, skips.pop()], dim=1), emb, context)
        head = self.id_predictor if hasattr(self, "id_predictor") else self.out
        h = head(h)
        if self.patch_size > 1:
            h = F.pixel_shuffle(h, self.patch_size)
        return h.to(x.dtype)

    def _inner(self, h: Tensor, emb: Tensor, context: Context | None, outer: int) -> Tensor:
        """All between the first `outer` input blocks and the last `outer` output blocks."""
        skips = []
        for module in list(self.input_blocks)[outer:]:
            h = module(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        for module in list(self.output_blocks)[:-outer]:
            h = module(torch.cat([h, skips.pop()], dim=1), emb, context)
        return h
