"""First stages: images in [-1, 1] to latents and back. Parameter names are those of latent-diffusion checkpoints."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

from ldm.checkpoint import load_strict, read_state_dict
from ldm.errors import UserError
from ldm.lr_scheduler import scheduled
from ldm.metrics import decibels
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.diffusionmodules.tiny import TinyDecoder, TinyEncoder
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.util import check_params, instantiate_from_config, not_offered
from taming.modules.vqvae.quantize import Info, VectorQuantizer2

Batch = Mapping[str, Any]


def psnr(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, mean over the batch; images (B, C, H, W) in [-1, 1]."""
    mse = (image - reconstruction.clamp(-1, 1)).float().square().flatten(1).mean(1)
    return decibels(mse, 2).mean()


def _plain(ddconfig: Mapping[str, Any]) -> dict[str, Any]:
    config = OmegaConf.to_container(ddconfig, resolve=True) if OmegaConf.is_config(ddconfig) else dict(ddconfig)
    return cast(dict[str, Any], config)


class _FirstStage(pl.LightningModule):
    """What the autoencoders share: coders, loss, checkpoint, optimizer, validation, pictures."""

    coders: tuple[type[nn.Module], type[nn.Module]] = (Encoder, Decoder)

    def __init__(
        self, ddconfig: Mapping[str, Any], lossconfig: Mapping[str, Any], image_key: str, colorize_nlabels: int | None
    ) -> None:
        super().__init__()
        self.ddconfig = _plain(ddconfig)
        self.image_key = image_key
        encoder, decoder = self.coders
        self.encoder = encoder(**self.ddconfig)
        self.decoder = decoder(**self.ddconfig)
        self.loss = instantiate_from_config(lossconfig)
        if colorize_nlabels:
            self.register_buffer("colorize", torch.randn(3, colorize_nlabels, 1, 1))

    def _finish(
        self,
        ckpt_path: str | None,
        ignore_keys: Iterable[str],
        monitor: str | None,
        lr: float,
        scheduler_config: Mapping[str, Any] | None,
    ) -> None:
        """Set what training reads; load weights. Keys that begin with one of `ignore_keys` keep their fresh values."""
        self.monitor, self.learning_rate, self.scheduler_config = monitor, lr, scheduler_config
        if ckpt_path is None:
            return
        ignored = tuple(ignore_keys)
        state = {k: v for k, v in read_state_dict(ckpt_path).items() if not k.startswith(ignored)}
        if not isinstance(self.loss, nn.Identity):  # a mapped file must not change; training may save over it
            state = {k: v.clone() for k, v in state.items()}
        fresh = {k: v for k, v in self.state_dict().items() if k.startswith(ignored)}
        # Published first stages carry the loss they were trained with; one without a loss has no use for it.
        surplus = ("loss.",) if isinstance(self.loss, nn.Identity) else ()
        load_strict(self, {**state, **fresh}, f"checkpoint {ckpt_path}", ignore=surplus)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Through the latent and back without chance."""
        raise NotImplementedError

    def training_loss(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The one loss of a batch, generator and discriminator parts added, and what to log."""
        raise NotImplementedError

    def get_input(self, batch: Batch) -> Tensor:
        """The images of a batch, (B, C, H, W) in [-1, 1]."""
        if self.image_key not in batch:
            raise UserError(f"image_key={self.image_key} is not in the batch; it has {', '.join(sorted(batch))}")
        return batch[self.image_key].float()

    def get_last_layer(self) -> Tensor:
        return self.decoder.get_parameter("conv_out.weight")

    def training_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        if isinstance(self.loss, nn.Identity):
            raise UserError(
                "lossconfig.target=torch.nn.Identity marks this autoencoder as not trainable; to train it give "
                "ldm.modules.losses.LPIPSWithDiscriminator (or VQLPIPSWithDiscriminator for VQ)"
            )
        total, logs = self.training_loss(self.get_input(batch))
        self.log("aeloss", total.detach(), prog_bar=True, logger=False)
        self.log_dict({f"train/{name}": value for name, value in logs.items()})
        return total

    def validation_step(self, batch: Batch, batch_idx: int = 0) -> None:
        """Log val/rec_loss (the mean absolute error) and val/psnr of reconstructions without chance."""
        x = self.get_input(batch)
        y = self.reconstruct(x).float()
        logs = {"val/rec_loss": F.l1_loss(y, x), "val/psnr": psnr(x, y)}
        self.log_dict(logs, prog_bar=True, batch_size=len(x), sync_dist=True)

    def artifact(self) -> tuple[str, dict[str, Tensor]]:
        """Name and weights of what this training makes: a first stage without its training loss."""
        return "autoencoder", {k: v for k, v in self.state_dict().items() if not k.startswith("loss.")}

    def configure_optimizers(self) -> Any:
        """One Adam for both players, so that `global_step` counts batches."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        precision = str(self._trainer.precision) if self._trainer else ""
        # A fused step unscales gradients itself, which Lightning forbids beside clipping in fp16.
        fused = precision != "16-mixed" and all(p.is_cuda and p.is_floating_point() for p in parameters)
        # A short memory suits a game of two; without a discriminator the usual averages settle lower.
        adversarial = getattr(self.loss, "discriminator", None) is not None
        betas = (0.5, 0.9) if adversarial else (0.9, 0.99)
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, betas=betas, fused=fused or None)
        return scheduled(optimizer, self.scheduler_config)

    @torch.no_grad()
    def log_images(self, batch: Batch) -> dict[str, Tensor]:
        """`inputs` and `reconstructions`, (B, 3, H, W) in [-1, 1]."""
        x = self.get_input(batch).to(self.device)
        return {"inputs": self._to_rgb(x), "reconstructions": self._to_rgb(self.reconstruct(x)).clamp(-1, 1)}

    def _to_rgb(self, x: Tensor) -> Tensor:
        """Label maps of more than three channels through the random projection `colorize`."""
        if x.shape[1] <= 3 or not hasattr(self, "colorize"):
            return x
        x = F.conv2d(x, self.get_buffer("colorize"))
        return 2 * (x - x.min()) / (x.max() - x.min()).clamp_min(1e-8) - 1


class AutoencoderKL(_FirstStage):
    """Autoencoder whose latent is a diagonal Gaussian held near the standard normal.

    `lossconfig` with target `torch.nn.Identity` makes it an inference-only model.
    """

    def __init__(
        self,
        ddconfig: Mapping[str, Any],
        lossconfig: Mapping[str, Any],
        embed_dim: int,
        ckpt_path: str | None = None,
        ignore_keys: Iterable[str] = (),
        image_key: str = "image",
        colorize_nlabels: int | None = None,
        monitor: str | None = None,
        lr: float = 4.5e-6,
        scheduler_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(ddconfig, lossconfig, image_key, colorize_nlabels)
        if not self.ddconfig.get("double_z", True):
            raise UserError("ddconfig.double_z=false leaves AutoencoderKL without a variance; set it true")
        self.embed_dim, z_channels = embed_dim, self.ddconfig["z_channels"]
        self.quant_conv = nn.Conv2d(2 * z_channels, 2 * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)
        self._finish(ckpt_path, ignore_keys, monitor, lr, scheduler_config)

    def encode(self, x: Tensor) -> DiagonalGaussianDistribution:
        return DiagonalGaussianDistribution(self.quant_conv(self.encoder(x)))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))

    def forward(self, x: Tensor, sample_posterior: bool = True) -> tuple[Tensor, DiagonalGaussianDistribution]:
        posterior = self.encode(x)
        return self.decode(posterior.sample() if sample_posterior else posterior.mode()), posterior

    def reconstruct(self, x: Tensor) -> Tensor:
        return self(x, sample_posterior=False)[0]

    def training_loss(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction, posterior = self(x)
        return self.loss(x, reconstruction, posterior, self.global_step, self.get_last_layer())


class AutoencoderTiny(AutoencoderKL):
    """An `AutoencoderKL` with small coders; its `ddconfig` has the options of `TinyEncoder`."""

    coders = (TinyEncoder, TinyDecoder)

    def on_fit_start(self) -> None:
        """The order of weights that convolutions want; it changes no name and no shape."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def standardize(self, mean: Tensor, std: Tensor) -> None:
        """Fold `mean` and `std` (C,) of the latents into the 1 x 1 convolutions: latents become standard, pictures
        stay what they were."""
        channels = len(mean)
        before, after = self.quant_conv, self.post_quant_conv
        before.weight[:channels] /= std.view(-1, 1, 1, 1)
        before.bias[:channels] = (before.bias[:channels] - mean) / std  # type: ignore[index]
        before.bias[channels:] -= 2 * std.log()  # type: ignore[index]
        after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)  # type: ignore[operator]
        after.weight *= std.view(1, -1, 1, 1)


class VQModel(_FirstStage):
    """Autoencoder whose latent is a grid of codebook entries."""

    def __init__(
        self,
        ddconfig: Mapping[str, Any],
        lossconfig: Mapping[str, Any],
        n_embed: int,
        embed_dim: int,
        ckpt_path: str | None = None,
        ignore_keys: Iterable[str] = (),
        image_key: str = "image",
        colorize_nlabels: int | None = None,
        monitor: str | None = None,
        remap: str | None = None,
        sane_index_shape: bool = False,
        use_ema: bool = False,
        lr: float = 4.5e-6,
        scheduler_config: Mapping[str, Any] | None = None,
        batch_resize_range: Any = None,
        lr_g_factor: float = 1.0,
    ) -> None:
        factor = None if lr_g_factor == 1 else lr_g_factor
        not_offered(use_ema=use_ema, batch_resize_range=batch_resize_range, lr_g_factor=factor)
        # Published VQ configs write out double_z: false; the default of the coders serves the KL model.
        super().__init__({"double_z": False, **_plain(ddconfig)}, lossconfig, image_key, colorize_nlabels)
        if self.ddconfig["double_z"]:
            raise UserError("ddconfig.double_z=true gives VQModel twice the channels it quantizes; set it false")
        self.embed_dim, z_channels = embed_dim, self.ddconfig["z_channels"]
        try:
            self.quantize = VectorQuantizer2(n_embed, embed_dim, remap=remap, sane_index_shape=sane_index_shape)
        except (OSError, ValueError) as error:
            raise UserError(f"remap={remap} is not a readable .npy list of indices ({error})") from None
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)
        self._finish(ckpt_path, ignore_keys, monitor, lr, scheduler_config)

    def encode_to_prequant(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x))

    def encode(self, x: Tensor) -> Any:
        """Image -> (codes (B, embed_dim, h, w), codebook loss, (None, None, indices))."""
        return self.quantize(self.encode_to_prequant(x))

    def decode(self, quant: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(quant))

    def decode_code(self, indices: Tensor) -> Tensor:
        """Indices (B, h, w) -> image."""
        return self.decode(self.quantize.get_codebook_entry(indices, (*indices.shape, self.embed_dim)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Info]:
        """Image -> (reconstruction, codebook loss, (None, None, indices))."""
        quant, codebook_loss, info = self.quantize(self.encode_to_prequant(x))
        return VQModel.decode(self, quant), codebook_loss, info

    def reconstruct(self, x: Tensor) -> Tensor:
        return self(x)[0]

    def training_loss(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction, codebook_loss, _ = self(x)
        return self.loss(codebook_loss, x, reconstruction, self.global_step, self.get_last_layer())


class VQModelInterface(VQModel):
    """VQModel as a first stage of diffusion: the latent is what comes before quantization."""

    def __init__(self, embed_dim: int, **options: Any) -> None:
        check_params(VQModel, {"embed_dim": embed_dim, **options}, type(self).__name__)
        super().__init__(embed_dim=embed_dim, **options)

    def encode(self, x: Tensor) -> Tensor:
        return self.encode_to_prequant(x)

    def decode(self, h: Tensor, force_not_quantize: bool = False) -> Tensor:
        return super().decode(h if force_not_quantize else self.quantize(h)[0])


class IdentityFirstStage(nn.Module):
    """Pixels as latents."""

    def __init__(self, vq_interface: bool = False) -> None:
        super().__init__()
        self.vq_interface = vq_interface

    def forward(self, x: Tensor) -> Tensor:
        return x

    encode = decode = forward

    def quantize(self, x: Tensor) -> Any:
        return (x, None, (None, None, None)) if self.vq_interface else x
