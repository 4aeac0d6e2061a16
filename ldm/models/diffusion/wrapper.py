"""The U-Net behind its conditioning, as `LatentDiffusion.model`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.util import instantiate_from_config


class DiffusionWrapper(nn.Module):
    """Feeds the conditioning to the U-Net the way `conditioning_key` says."""

    def __init__(self, unet_config: Mapping[str, Any], conditioning_key: str | None):
        super().__init__()
        if conditioning_key not in (None, "concat", "crossattn", "hybrid", "adm"):
            raise UserError(f"conditioning_key={conditioning_key} is unknown; use concat, crossattn, hybrid or adm")
        self.diffusion_model = instantiate_from_config(unet_config)
        self.conditioning_key = conditioning_key

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: list[Tensor] | None = None,
        c_crossattn: Sequence[Any] | None = None,
        deep: Any = None,
    ) -> Tensor:
        """Call the U-Net with its conditioning.

        Args:
            x: (B,C,h,w).
            t: (B,) in 0..T-1.
            c_concat: tensors that become further channels of x, for "concat" and "hybrid".
            c_crossattn: encoded prompts (B,L,width), or alone what the U-Net's `project` makes of them. For "adm" its
                first entry is the class.
            deep: the U-Net's `DeepFeatures`. None: every block runs.
        """
        key = self.conditioning_key
        options = {} if deep is None else {"deep": deep}
        if key in ("concat", "hybrid"):
            x = torch.cat([x, *(c_concat or [])], dim=1)
        if key in ("crossattn", "hybrid"):
            given = list(c_crossattn or [])
            options["context"] = given[0] if len(given) == 1 else torch.cat(given, dim=1)
        if key == "adm":
            options["y"] = c_crossattn[0] if c_crossattn else None
        return self.diffusion_model(x, t, **options)
