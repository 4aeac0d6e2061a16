"""The diagonal Gaussian that the encoder of the first stage returns."""

import math

import torch
from torch import Tensor


def normal_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    """KL(N(mean1, exp logvar1) || N(mean2, exp logvar2)), element by element, in nats."""
    return 0.5 * (logvar2 - logvar1 + torch.exp(logvar1 - logvar2) + (mean1 - mean2).square() * torch.exp(-logvar2) - 1)


class DiagonalGaussianDistribution:
    """N(mean, diag exp(logvar)) from `parameters` (B, 2C, H, W): the mean first, then the log variance."""

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = parameters
        self.mean, logvar = parameters.chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)
        self.std = torch.exp(0.5 * self.logvar)
        self.var = torch.exp(self.logvar)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (B, C, H, W); the noise is made where the generator lives, so a CPU seed means the same on a GPU."""
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype)
        return self.mean + self.std * noise.to(self.mean.device)

    def mode(self) -> Tensor:
        return self.mean

    def kl(self, other: "DiagonalGaussianDistribution | None" = None) -> Tensor:
        """KL to `other` (default: the standard normal), summed per sample: (B,)."""
        mean, logvar = self.mean.float(), self.logvar.float()
        if other is None:
            terms = 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
        else:
            terms = normal_kl(mean, logvar, other.mean.float(), other.logvar.float())
        return terms.flatten(1).sum(1)

    def nll(self, sample: Tensor) -> Tensor:
        """-log density of `sample` (B, C, H, W), summed per sample: (B,)."""
        terms = math.log(2 * math.pi) + self.logvar + (sample - self.mean).square() / self.var
        return 0.5 * terms.flatten(1).sum(1)
