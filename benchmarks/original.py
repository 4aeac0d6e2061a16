"""Computing as the original latent-diffusion code does, with our modules: the baseline of every ratio.

Its code is not shipped. What decides its time and memory is: float32 weights in the usual order, attention whose
scores are written out whole, normalization in float32, and a prompt that every layer projects anew at each call.
"""

from torch import Tensor, einsum, nn

from ldm.modules.attention import CrossAttention


class OriginalAttention(CrossAttention):
    """Attention in three steps, all scores (B * heads, N, L) held at once."""

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        context = x if context is None else context
        q, k, v = (self._heads(y) for y in (self.to_q(x), self.to_k(context), self.to_v(context)))
        scores = einsum("b i d, b j d -> b i j", q, k) * q.shape[-1] ** -0.5
        out = einsum("b i j, b j d -> b i d", scores.softmax(dim=-1), v)
        batch, n = x.shape[:2]
        return self.to_out(out.view(batch, self.heads, n, -1).transpose(1, 2).reshape(batch, n, -1))

    def _heads(self, x: Tensor) -> Tensor:
        batch, n, width = x.shape
        return x.view(batch, n, self.heads, -1).transpose(1, 2).reshape(batch * self.heads, n, width // self.heads)


class OriginalNorm(nn.GroupNorm):
    """The residual blocks' normalization, in float32 whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


def as_original(unet: nn.Module) -> nn.Module:
    """Make a U-Net compute so, in place."""
    for module in unet.modules():
        if type(module) is CrossAttention:
            module.__class__ = OriginalAttention
        elif type(module) is nn.GroupNorm and module.eps == 1e-5:  # the transformers' has 1e-6 and is a plain one
            module.__class__ = OriginalNorm
    return unet
