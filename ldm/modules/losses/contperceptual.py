"""What trains the first stage: a perceptual distance, the KL term and a patch discriminator, in one loss.

Latent-diffusion alternates two optimizers. Here one optimizer takes the sum of both players' losses, each cut off from
the other's parameters, so that Lightning's automatic optimization serves and `global_step` counts batches.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ldm.errors import UserError
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.util import check_params
from taming.modules.discriminator.model import NLayerDiscriminator, weights_init
from taming.modules.losses.lpips import LPIPS

Logs = dict[str, Tensor]


def edge_distance(x: Tensor, y: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute difference of Sobel gradients over halved scales, (B, C, H, W) -> (B, 1, 1, 1)."""
    difference = (x - y).flatten(0, 1).unsqueeze(1)  # Sobel is linear: the gradient of the difference is the difference
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=x.device, dtype=x.dtype) / 8
    kernel = torch.stack([sobel, sobel.t()]).unsqueeze(1)
    total = x.new_zeros(x.shape[0])
    for _ in range(scales):
        if min(difference.shape[-2:]) < 3:
            break
        total = total + F.conv2d(difference, kernel).abs().reshape(x.shape[0], -1).mean(1) / scales
        difference = F.avg_pool2d(difference, 2)
    return total.view(-1, 1, 1, 1)


class ReconstructionLoss(nn.Module):
    """Pixel and perceptual distance and the two adversarial terms: the base class of the KL and the VQ loss.

    Args:
        disc_start: batch from which on the discriminator plays.
        pixelloss_weight: weight of the absolute difference of pixels.
        disc_num_layers, disc_in_channels: layers and input channels of the discriminator.
        disc_factor: weight of both adversarial terms. 0 leaves the discriminator out.
        disc_weight: further weight of the generator's term. 0 leaves the discriminator out.
        perceptual_weight: weight of the perceptual distance.
        use_actnorm, disc_conditional: not offered, only False is taken.
        disc_loss: "hinge" or "vanilla".
        lpips_weights: file of weights with which the perceptual distance is LPIPS. None: it is that of image gradients
            at several scales, times `edge_weight`.
        disc_ndf: width of the discriminator's first layer.
        edge_weight: see `lpips_weights`.

    Raises:
        UserError: an option is unknown or not offered, or the weights cannot be read.
    """

    discriminator: nn.Module | None
    perceptual_loss: nn.Module | None

    def __init__(
        self,
        disc_start: int,
        pixelloss_weight: float = 1.0,
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_factor: float = 1.0,
        disc_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        use_actnorm: bool = False,
        disc_conditional: bool = False,
        disc_loss: str = "hinge",
        lpips_weights: str | None = None,
        disc_ndf: int = 64,
        edge_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if disc_loss not in ("hinge", "vanilla"):
            raise UserError(f"disc_loss={disc_loss} is unknown; take hinge or vanilla")
        for name, value in (("use_actnorm", use_actnorm), ("disc_conditional", disc_conditional)):
            if value:
                raise UserError(f"{name}=true is not offered by the first-stage loss; leave it false")
        self.disc_start, self.disc_loss = disc_start, disc_loss
        self.disc_factor, self.disc_weight = disc_factor, disc_weight
        self.pixelloss_weight, self.edge_weight = pixelloss_weight, edge_weight
        self.perceptual_weight = perceptual_weight
        self.perceptual_loss = None
        if lpips_weights is not None:
            try:
                self.perceptual_loss = LPIPS(lpips_weights)
            except (FileNotFoundError, ValueError) as error:
                raise UserError(f"lpips_weights: {error}; leave lpips_weights out to train without LPIPS") from None
        self.discriminator = None
        if disc_factor and disc_weight:
            self.discriminator = NLayerDiscriminator(disc_in_channels, disc_ndf, disc_num_layers).apply(weights_init)

    def distance(self, inputs: Tensor, reconstructions: Tensor) -> Tensor:
        """|x - x'| per pixel with the perceptual distance of the sample added to each: (B, C, H, W)."""
        distance = self.pixelloss_weight * (inputs - reconstructions).abs()
        if self.perceptual_weight == 0:
            return distance
        if self.perceptual_loss is not None:
            perceptual = self.perceptual_loss(reconstructions, inputs)
        else:
            perceptual = self.edge_weight * edge_distance(inputs, reconstructions)
        return distance + self.perceptual_weight * perceptual

    def generator_term(self, nll: Tensor, reconstructions: Tensor, last_layer: Tensor) -> tuple[Tensor, Logs]:
        """lambda * -mean D(x'), lambda balancing the two gradients at the last layer (Esser et al. 2021, Eq. 7).

        Leaves no gradient in the discriminator's parameters, and leaves its running statistics alone.
        """
        assert self.discriminator is not None
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        frozen |= {name: b.clone() for name, b in self.discriminator.named_buffers()}
        g_loss = -functional_call(self.discriminator, frozen, (reconstructions,)).mean()
        nll_norm = torch.autograd.grad(nll, last_layer, retain_graph=True)[0].norm()
        g_norm = torch.autograd.grad(g_loss, last_layer, retain_graph=True)[0].norm()
        weight = (nll_norm / (g_norm + 1e-4)).clamp(0.0, 1e4).detach() * self.disc_weight
        return weight * self.disc_factor * g_loss, {"g_loss": g_loss.detach(), "d_weight": weight}

    def discriminator_term(self, inputs: Tensor, reconstructions: Tensor) -> tuple[Tensor, Logs]:
        """What the discriminator minimizes; no gradient to the reconstructions."""
        assert self.discriminator is not None
        real = self.discriminator(inputs.detach())
        fake = self.discriminator(reconstructions.detach())
        if self.disc_loss == "hinge":
            loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        else:
            loss = 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
        logs = {"disc_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
        return self.disc_factor * loss, {name: value.detach() for name, value in logs.items()}

    def adversarial(
        self, nll: Tensor, inputs: Tensor, reconstructions: Tensor, global_step: int, last_layer: Tensor
    ) -> tuple[Tensor, Logs]:
        """The sum of both terms; zero before `disc_start`."""
        if self.discriminator is None:
            return nll.new_zeros(()), {}
        if global_step < self.disc_start:
            # Distributed training wants a gradient for every parameter, were it zero.
            return 0.0 * torch.stack([p.sum() for p in self.discriminator.parameters()]).sum(), {}
        generator, logs = self.generator_term(nll, reconstructions, last_layer)
        discriminator, more = self.discriminator_term(inputs, reconstructions)
        return generator + discriminator, logs | more


class DummyLoss(nn.Identity):
    """Marks a first stage as not trainable, as `torch.nn.Identity` does; some published configs name it."""


class LPIPSWithDiscriminator(ReconstructionLoss):
    """Loss of `AutoencoderKL`: sums over pixels, means over the batch.

    Args:
        disc_start: batch from which on the discriminator plays.
        logvar_init: the output's log variance. It is part of published checkpoints and never trained, there nor here.
        kl_weight: weight of the KL term.
        options: further ones of `ReconstructionLoss`.
    """

    def __init__(self, disc_start: int, logvar_init: float = 0.0, kl_weight: float = 1.0, **options: Any) -> None:
        check_params(ReconstructionLoss, {"disc_start": disc_start, **options}, type(self).__name__)
        super().__init__(disc_start, **options)
        self.kl_weight = kl_weight
        self.logvar = nn.Parameter(torch.tensor(float(logvar_init)), requires_grad=False)

    def forward(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        posterior: DiagonalGaussianDistribution,
        global_step: int,
        last_layer: Tensor,
    ) -> tuple[Tensor, Logs]:
        """Images (B, C, H, W) in [-1, 1] and what became of them -> (the one loss, values to log)."""
        distance = self.distance(inputs, reconstructions)
        nll = (distance / self.logvar.exp() + self.logvar).sum() / len(inputs)
        kl = posterior.kl().mean()
        adversarial, logs = self.adversarial(nll, inputs, reconstructions, global_step, last_layer)
        total = nll + self.kl_weight * kl + adversarial
        logs |= {"total_loss": total.detach(), "nll_loss": nll.detach(), "kl_loss": kl.detach()}
        return total, logs | {"rec_loss": distance.detach().mean()}
