"""A prompted base whose U-Net may have low-rank adapters, for one too small to follow words alone."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fast.lora import Adapters
from fast.prompted import PromptedDiffusion
from ldm.errors import UserError
from ldm.util import check_params


class AdaptedDiffusion(PromptedDiffusion):
    """Takes the parameters of `PromptedDiffusion` and `lora`, the options of `fast.lora.Adapters`; None for none."""

    def __init__(self, lora: Mapping[str, Any] | None = None, thaw_unet: bool = False, **base: Any):
        check_params(Adapters, lora or {}, "model.params.lora", complete=False)
        if lora and thaw_unet:
            raise UserError("thaw_unet=true trains the U-Net itself; leave lora out, or thaw_unet")
        super().__init__(thaw_unet=thaw_unet, **base)
        self.lora = Adapters(self.model.diffusion_model, **lora) if lora else None

    def own_parts(self) -> dict[str, nn.Module]:
        return super().own_parts() | ({"lora": self.lora} if self.lora is not None else {})

    def merge_adapters(self) -> None:
        if self.lora is not None:
            self.lora.merge(self.model.diffusion_model)
            self.lora = None
