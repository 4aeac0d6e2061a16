"""SDAS, RealNet's strength-controllable diffusion anomaly synthesis (Zhang et al. 2024): a pixel-space diffusion model
of the normals of all categories, whose samples leave the normals by as much as the noise of its steps is inflated."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fast.training.trainer import say
from ldm.checkpoint import load_strict, read_state_dict
from ldm.errors import UserError
from ldm.lr_scheduler import scheduled
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.modules.ema import LitEma
from ldm.rng import PairNoise, generator
from ldm.util import check_params

SAMPLERS = ("ancestral", "ddim")
LABELS = "label_emb.weight"  # the class embedding: its rows are the categories of one dataset
LEAST = 1e-12  # a probability below this counts as this


class Chain:
    """The reverse steps of a noise schedule.

    Index k in 0..K-1 is paper time k + 1, and the network is called with `times[k]`. The step of index k goes from x at
    k to x at k - 1, where index -1 is the clean image. In the methods `k` is a LongTensor (B,).
    """

    def __init__(self, schedule: NoiseSchedule, times: np.ndarray):
        self.schedule, self.times, tables = schedule, times, schedule.tables()
        self.coef_x0, self.coef_xt = tables["posterior_mean_coef1"], tables["posterior_mean_coef2"]
        low = tables["posterior_variance"].copy()
        low[0] = low[1] if len(low) > 1 else schedule.betas[0]  # the last step's is 0, whose logarithm nobody can take
        self.log_low, self.log_high = np.log(low), np.log(schedule.betas)

    @classmethod
    def respaced(cls, schedule: NoiseSchedule, steps: int) -> "Chain":
        """The chain of `steps` indices spread evenly from 0 (20 of 1000: 0, 50, ..., 950).

        Its betas jump from one index to the next (Nichol and Dhariwal 2021, section 4).

        Raises:
            UserError: when `steps` lies outside 1..T.
        """
        if not 1 <= steps <= schedule.timesteps:
            raise UserError(f"steps={steps} lies outside 1..{schedule.timesteps}; choose a number in that range")
        times = np.arange(steps) * schedule.timesteps // steps
        bar = np.array([schedule.alpha_bar(int(t) + 1) for t in times])
        return cls(NoiseSchedule(1 - bar / np.append(1.0, bar[:-1])), times)

    @staticmethod
    def _at(table: np.ndarray, k: Tensor, like: Tensor) -> Tensor:
        return torch.as_tensor(table, device=k.device)[k].to(like).reshape(-1, *(1,) * (like.dim() - 1))

    def mean(self, x: Tensor, x0: Tensor, k: Tensor) -> Tensor:
        """The mean of q(x at k - 1 | x at k, x0)."""
        return self._at(self.coef_xt, k, x) * x + self._at(self.coef_x0, k, x) * x0

    def log_posterior(self, like: Tensor, k: Tensor) -> Tensor:
        """The logarithm (B,1,1,1) of that distribution's variance."""
        return self._at(self.log_low, k, like)

    def log_variance(self, v: Tensor | None, like: Tensor, k: Tensor) -> Tensor:
        """The logarithm (B,1,1,1), or like `v`, of the variance that a step is taken with.

        `v` in [-1, 1] says where it lies between the posterior's and beta's (Nichol and Dhariwal, Eq. 15). None: it is
        the posterior's.
        """
        low = self.log_posterior(like, k)
        return low if v is None else low + (v + 1) / 2 * (self._at(self.log_high, k, v) - low)


def variational_bound(chain: Chain, x0: Tensor, x: Tensor, k: Tensor, eps: Tensor, v: Tensor | None) -> Tensor:
    """The term of index k (B,) of the variational bound, (B,), in bits per value (Ho et al. 2020, Eq. 5).

    It is the KL divergence between the true and the modelled step. At index 0 it is the negative log likelihood of
    `x0`, 8-bit pixels in [-1, 1], under a Gaussian made discrete.
    """
    mean = chain.mean(x, chain.schedule.predict_x0(x, k + 1, eps), k)
    log_variance, true = chain.log_variance(v, x, k), chain.log_posterior(x, k)
    apart = (chain.mean(x, x0, k) - mean).square() * torch.exp(-log_variance)
    divergence = (log_variance - true + torch.exp(true - log_variance) - 1 + apart) / 2
    first = (k == 0).reshape(-1, 1, 1, 1)
    nats = torch.where(first, -log_likelihood(x0, mean, log_variance), divergence)
    return nats.flatten(1).mean(dim=1) / math.log(2)


def log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log probability of each pixel of `x0`, a byte scaled to [-1, 1], under a Gaussian (Ho et al. 2020, Eq. 13).

    It is that of the Gaussian's mass within half a grey level, to which the darkest and the brightest level add all the
    mass beyond them.
    """
    inverse, off = torch.exp(-log_variance / 2), x0 - mean
    below = torch.special.ndtr((off + 1 / 255) * inverse)
    above = torch.special.ndtr((off - 1 / 255) * inverse)
    below, above = below.where(x0 < 0.999, 1.0), above.where(x0 > -0.999, 0.0)
    return (below - above).clamp(min=LEAST).log()


class SDAS(pl.LightningModule):
    """One pixel-space diffusion model of the normal images of all `categories`, told apart by a class embedding.

    Classifier guidance, which is optional in the original, is left out.

    Args:
        unet: options of the U-Net. Its size, channels and classes are set here.
        categories: the names of the categories to learn. A label is a category's place in this list.
        image_size: side in px of the square images.
        timesteps: T, the length of the noise schedule.
        beta_schedule: one of latent-diffusion's names, see `NoiseSchedule.named`. "sqrt_linear" is linear in beta.
        linear_start, linear_end: the first and the last beta.
        predict_variance: True lets the U-Net learn the variance of its steps too, in three more output channels, with
            the variational bound in the loss. False takes the posterior's.
        parameterization: what the U-Net predicts: "eps", as published, or "v" (Salimans and Ho 2022), which suits a
            short training: at large t an error of the noise is a hundred times larger in x0.
        vlb_weight: weight of the variational bound in the loss.
        use_ema: True keeps an average of the U-Net's weights.
        ema_decay: decay of this average.
        ckpt_path: weights to start from, such as OpenAI's `256x256_diffusion.pt` or another run's artifact. A class
            embedding of another size starts fresh.
        lr: the effective learning rate.
        scheduler_config: the schedule of the learning rate. None: it is constant.

    Raises:
        UserError: when `categories` are empty, an option is unknown, or the weights of `ckpt_path` do not fit.
    """

    learns_categories = True

    def __init__(
        self,
        unet: Mapping[str, Any],
        categories: Sequence[str] = (),
        image_size: int = 256,
        timesteps: int = 1000,
        beta_schedule: str = "sqrt_linear",
        linear_start: float = 1e-4,
        linear_end: float = 2e-2,
        predict_variance: bool = True,
        parameterization: str = "eps",
        vlb_weight: float = 1.0,
        use_ema: bool = True,
        ema_decay: float = 0.9999,
        ckpt_path: str | None = None,
        lr: float = 1e-4,
        scheduler_config: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not categories:
            raise UserError("model.params.categories is empty; name the categories that the model is to learn")
        if parameterization not in ("eps", "v"):
            raise UserError(f"model.params.parameterization={parameterization} is unknown; use eps or v")
        # latent-diffusion's "linear" is linear in sqrt(beta); its "sqrt_linear" is the plainly linear one.
        self.schedule = NoiseSchedule.named(beta_schedule, timesteps, linear_start, linear_end)
        self.chain = Chain(self.schedule, np.arange(timesteps))
        self.categories, self.image_size = list(categories), image_size
        self.predict_variance, self.vlb_weight = predict_variance, vlb_weight
        self.parameterization = parameterization
        self.lr, self.scheduler_config = lr, scheduler_config
        sizes = {"image_size": image_size, "in_channels": 3, "out_channels": 6 if predict_variance else 3}
        options = {**unet, **sizes, "num_classes": len(self.categories)}
        check_params(UNetModel, options, "model.params.unet")
        self.unet = UNetModel(**options)
        if ckpt_path:
            self._start_from(ckpt_path)
        self.ema = LitEma(self.unet, ema_decay) if use_ema else None

    def _start_from(self, path: str) -> None:
        state, own = read_state_dict(path), self.unet.state_dict()[LABELS]
        if LABELS not in state or state[LABELS].shape != own.shape:
            found = tuple(state[LABELS].shape) if LABELS in state else "absent"
            say(f"{path}: {LABELS} is {found}, here {tuple(own.shape)}; it starts fresh")
            state[LABELS] = own
        load_strict(self.unet, {k: v.clone() for k, v in state.items()}, f"checkpoint {Path(path)}")

    def predict(self, x: Tensor, time: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the U-Net says of x (B,3,H,W) at time (B,) in 0..T-1, for the categories `labels` (B,).

        Returns:
            The noise (B,3,H,W), and v of the step's log variance (see `Chain.log_variance`) or None where the variance
            is not learned.
        """
        out = self.unet(x, time, y=labels)
        out, v = out.chunk(2, dim=1) if self.predict_variance else (out, None)
        if self.parameterization == "v":
            signal, sigma = self.schedule.scales(time + 1, x)
            out = signal * out + sigma * x
        return out, v

    # training

    def draw(self, batch: Mapping[str, Any], x0: Tensor) -> tuple[Tensor, Tensor]:
        """Index (B,) in 0..T-1 and noise like x0, from each sample's own seed."""
        sources = [generator(int(seed)) for seed in batch["seed"]]
        index = torch.cat([torch.randint(self.schedule.timesteps, (1,), generator=g) for g in sources])
        noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in sources])
        return index.to(x0.device), noise.to(x0)

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The training objective of a batch, and what to log of it.

        It is the mean squared error of the noise, or of v, whose squared error is the noise's divided by abar. The
        variational bound is added where the variance is learned, and trains the variance alone.
        """
        x0 = batch["image"]
        index, noise = self.draw(batch, x0)
        x = self.schedule.q_sample(x0, index + 1, noise)
        eps, v = self.predict(x, index, batch["category"])
        error = (eps - noise).square()
        if self.parameterization == "v":  # v's error is the noise's over sqrt(abar)
            error = error / self.schedule.scales(index + 1, x0)[0] ** 2
        simple = error.mean()
        if v is None:
            return simple, {"loss_simple": simple}
        bound = variational_bound(self.chain, x0, x, index, eps.detach(), v).mean()
        return simple + self.vlb_weight * bound, {"loss_simple": simple, "loss_vlb": bound}

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        loss, parts = self.loss(batch)
        self.log_dict({f"train/{k}": v.detach() for k, v in parts.items()}, batch_size=1)
        self.log("train/loss", loss.detach(), batch_size=1)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema(self.unet)

    def set_checkpointing(self, on: bool) -> None:
        """Whether the U-Net's activations are computed again in the backward pass or kept for it."""
        for part in self.unet.modules():
            if hasattr(part, "use_checkpoint"):
                part.use_checkpoint = on  # type: ignore[assignment]

    def configure_optimizers(self) -> Any:
        # A fused step cannot be clipped under mixed precision, which the trainer refuses.
        fused = not (self._trainer and self._trainer.gradient_clip_val)
        return scheduled(torch.optim.Adam(self.unet.parameters(), lr=self.lr, fused=fused), self.scheduler_config)

    def artifact(self) -> tuple[str, dict[str, Tensor]]:
        """Name and weights of what this training makes: the U-Net by its own names, averaged if it has an average."""
        return "sdas", dict(self.unet.state_dict()) | ({} if self.ema is None else self.ema.weights(self.unet))

    def artifact_metadata(self) -> dict[str, str]:
        return {"categories": json.dumps(self.categories)}

    def averaged(self) -> AbstractContextManager[None]:
        """Within, the network works with its averaged weights, if it keeps them."""
        return nullcontext() if self.ema is None else self.ema.applied(self.unet)

    # sampling

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        strength: float,
        generators: Sequence[torch.Generator],
        steps: int = 20,
        sampler: str = "ancestral",
    ) -> Tensor:
        """Sample images off the normals, the farther the greater `strength` is.

        Args:
            labels: the categories to sample (B,), each by its place in `categories`.
            strength: s, 0 or more. The noise of an ancestral step gets the variance (1 + s) v, and that of a DDIM step,
                which has none of its own, s v. 0 samples normals. RealNet's ranges are 0.1 to 0.2, and 0.01 to 0.03
                with DDIM.
            generators: one for each image, which gives all of its noise.
            steps: sampling steps, 1 to T.
            sampler: "ancestral" or "ddim".

        Returns:
            Images (B,3,S,S) in [-1, 1].

        Raises:
            UserError: when `sampler` is unknown, or when `strength` or `steps` is out of range.
        """
        if sampler not in SAMPLERS or not 0 <= strength < math.inf:
            raise UserError(f"sampler={sampler}, strength={strength}: use {' or '.join(SAMPLERS)} and a number from 0")
        chain, noise = Chain.respaced(self.schedule, steps), PairNoise(generators)
        shape = (len(labels), 3, self.image_size, self.image_size)
        x = noise(torch.empty(shape, device=labels.device))
        for step in range(steps - 1, -1, -1):
            k = torch.full_like(labels, step)
            eps, v = self.predict(x, torch.full_like(labels, int(chain.times[step])), labels)
            x0 = chain.schedule.predict_x0(x, k + 1, eps).clamp(-1, 1)
            if sampler == "ancestral":
                mean, share = chain.mean(x, x0, k), 1 + strength
            else:
                signal, sigma = chain.schedule.scales(step, x)
                mean, share = signal * x0 + sigma * chain.schedule.predict_eps(x, k + 1, x0), strength
            x = mean
            if step and share:
                x = mean + math.sqrt(share) * torch.exp(chain.log_variance(v, x, k) / 2) * noise(x)
        return x

    def log_images(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Pictures (B,3,S,S) for a sample grid: normals of the data, samples without and with RealNet's strength."""
        labels = batch["category"]
        rows = {"data": batch["image"]}
        with self.averaged():
            for strength in (0.0, 0.15):
                sources = [generator(0, i) for i in range(len(labels))]
                rows[f"strength {strength}"] = self.sample(labels, strength, sources)
        return rows
