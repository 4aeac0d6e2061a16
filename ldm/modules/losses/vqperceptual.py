"""What trains the vector-quantized first stage."""

from typing import Any

from torch import Tensor

from ldm.modules.losses.contperceptual import Logs, ReconstructionLoss
from ldm.util import check_params


class VQLPIPSWithDiscriminator(ReconstructionLoss):
    """Loss of `VQModel`: means over pixels and batch.

    Args:
        disc_start: batch from which on the discriminator plays.
        codebook_weight: weight of the codebook's loss.
        options: further ones of `ReconstructionLoss`.
    """

    def __init__(self, disc_start: int, codebook_weight: float = 1.0, **options: Any) -> None:
        check_params(ReconstructionLoss, {"disc_start": disc_start, **options}, type(self).__name__)
        super().__init__(disc_start, **options)
        self.codebook_weight = codebook_weight

    def forward(
        self, codebook_loss: Tensor, inputs: Tensor, reconstructions: Tensor, global_step: int, last_layer: Tensor
    ) -> tuple[Tensor, Logs]:
        """Images (B, C, H, W) in [-1, 1] and what became of them -> (the one loss, values to log)."""
        nll = self.distance(inputs, reconstructions).mean()
        adversarial, logs = self.adversarial(nll, inputs, reconstructions, global_step, last_layer)
        total = nll + self.codebook_weight * codebook_loss.mean() + adversarial
        logs |= {"total_loss": total.detach(), "nll_loss": nll.detach(), "quant_loss": codebook_loss.detach().mean()}
        return total, logs
