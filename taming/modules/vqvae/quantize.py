"""Vector quantization (van den Oord et al. 2017)."""

import numpy as np
import torch
from torch import Tensor, nn

Info = tuple[None, None, Tensor]


class VectorQuantizer2(nn.Module):
    """Nearest of `n_e` codes of `e_dim` channels, with straight-through gradients.

    `legacy` keeps the weighting of published checkpoints, in which `beta` falls on the codebook term; without it
    `beta` falls on the commitment term, as in the paper. `remap`: a `.npy` list of the codes in use, so that indices
    count only these; a code not on it becomes a random one (`unknown_index="random"`), an extra one ("extra") or a
    fixed number.
    """

    used: Tensor

    def __init__(
        self,
        n_e: int,
        e_dim: int,
        beta: float = 0.25,
        remap: str | None = None,
        unknown_index: str | int = "random",
        sane_index_shape: bool = False,
        legacy: bool = True,
    ) -> None:
        super().__init__()
        self.n_e, self.e_dim, self.beta, self.legacy = n_e, e_dim, beta, legacy
        self.sane_index_shape = sane_index_shape
        self.embedding = nn.Embedding(n_e, e_dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / n_e, 1.0 / n_e)
        self.remap = remap
        self.unknown_index = unknown_index
        if remap is not None:
            self.register_buffer("used", torch.from_numpy(np.load(remap)).long())
            self.re_embed = len(self.used)
            if unknown_index == "extra":
                self.unknown_index = self.re_embed
                self.re_embed += 1

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Info]:
        """z (B, e_dim, H, W) -> (codes like z, loss, (None, None, indices)); indices (B*H*W,) or, sane, (B, H, W)."""
        # |z - e|^2 without |z|^2, which is the same for every code; in bfloat16 near codes would be mixed up.
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            flat = z.permute(0, 2, 3, 1).reshape(-1, self.e_dim).float()
            codes = self.embedding.weight.float()
            indices = torch.addmm(codes.square().sum(1), flat, codes.t(), alpha=-2).argmin(1)
        batch, _, height, width = z.shape
        z_q = self.embedding(indices).view(batch, height, width, self.e_dim).permute(0, 3, 1, 2).contiguous()
        commitment = (z_q.detach() - z).square().mean()
        codebook = (z_q - z.detach()).square().mean()
        loss = commitment + self.beta * codebook if self.legacy else self.beta * commitment + codebook
        z_q = z + (z_q - z).detach()
        if self.remap is not None:
            indices = self.remap_to_used(indices)
        return z_q, loss, (None, None, indices.view(batch, height, width) if self.sane_index_shape else indices)

    def remap_to_used(self, indices: Tensor) -> Tensor:
        """Codebook indices -> positions on the list of used codes, any shape."""
        match = indices.unsqueeze(-1) == self.used
        new = match.int().argmax(-1)
        if self.unknown_index == "random":
            other = torch.randint(self.re_embed, new.shape, device=new.device)
        else:
            other = torch.full_like(new, int(self.unknown_index))
        return torch.where(match.any(-1), new, other)

    def unmap_to_all(self, indices: Tensor) -> Tensor:
        """Positions on the list of used codes -> codebook indices; the extra position becomes the first code."""
        return self.used[torch.where(indices < len(self.used), indices, 0)]

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, int, int, int] | None = None) -> Tensor:
        """Codes of `indices`; with shape (B, H, W, e_dim) given, as (B, e_dim, H, W)."""
        if self.remap is not None:
            indices = self.unmap_to_all(indices)
        codes = self.embedding(indices)
        return codes if shape is None else codes.view(shape).permute(0, 3, 1, 2).contiguous()
