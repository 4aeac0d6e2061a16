"""`PLMSSampler`: the calls of `DDIMSampler`, with the pseudo linear multistep rule."""

from typing import Any

from torch import Tensor

from ldm.errors import UserError
from ldm.models.diffusion import samplers
from ldm.models.diffusion.ddim import DDIMSampler


class PLMSSampler(DDIMSampler):
    def make_schedule(
        self, ddim_num_steps: int, ddim_discretize: str = "uniform", ddim_eta: float = 0.0, verbose: bool = False
    ) -> None:
        if ddim_eta:
            raise UserError(f"eta={ddim_eta}: plms is deterministic; leave eta at 0 or use ddim")
        super().make_schedule(ddim_num_steps, ddim_discretize, ddim_eta)

    def _run(self, denoise: samplers.Denoise, x: Tensor, **options: Any) -> Tensor:
        return samplers.plms(denoise, self.model.schedule, x, steps=self._steps, discretize=self._discretize, **options)
