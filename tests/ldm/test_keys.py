"""The shipped descriptions of published checkpoints: every weight name and shape, without allocating a weight."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ldm.errors import UserError
from ldm.util import instantiate_from_config
from support.golden import published_keys
from support.paths import ROOT

TXT2IMG = ROOT / "configs/latent-diffusion/txt2img-1p4B.yaml"
SD_V1 = ROOT / "configs/stable-diffusion/v1-inference.yaml"
BUFFERS = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
)  # fmt: skip
Shapes = dict[str, tuple[int, ...]]
# 32 layers (attention 1280-512-1280, feed-forward 1280-5120-1280, two norms), tokens, positions, last norm, vocabulary.
BERT = (
    32 * (4 * 1280 * 512 + 1280 + 2 * 1280 * 5120 + 5120 + 1280 + 4 * 1280)
    + (30522 + 77) * 1280 + 2 * 1280 + 30522 * 1281
)  # fmt: skip


def build(path: Path, **params: Any) -> Any:
    config: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert list(config) == ["model"]
    config["model"]["params"].update(params)
    with torch.device("meta"):
        return instantiate_from_config(config["model"])


def shapes(module: torch.nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def affine(out: Shapes, name: str, *shape: int, bias: bool = True) -> None:
    out[f"{name}.weight"] = shape
    if bias:
        out[f"{name}.bias"] = shape[:1]


def unet_shapes(context: int, base: int = 320) -> Shapes:
    """The U-Net of both checkpoints, written from its figure: 4 levels, 2 blocks each, attention on the upper three."""
    out: Shapes = {}
    time = 4 * base
    widths = [base, 2 * base, 4 * base, 4 * base]

    def residual(at: str, c_in: int, c_out: int) -> None:
        affine(out, f"{at}.in_layers.0", c_in)
        affine(out, f"{at}.in_layers.2", c_out, c_in, 3, 3)
        affine(out, f"{at}.emb_layers.1", c_out, time)
        affine(out, f"{at}.out_layers.0", c_out)
        affine(out, f"{at}.out_layers.3", c_out, c_out, 3, 3)
        if c_in != c_out:
            affine(out, f"{at}.skip_connection", c_out, c_in, 1, 1)

    def transformer(at: str, c: int) -> None:
        affine(out, f"{at}.norm", c)
        affine(out, f"{at}.proj_in", c, c, 1, 1)
        affine(out, f"{at}.proj_out", c, c, 1, 1)
        block = f"{at}.transformer_blocks.0"
        for name, width in (("attn1", c), ("attn2", context)):
            affine(out, f"{block}.{name}.to_q", c, c, bias=False)
            affine(out, f"{block}.{name}.to_k", c, width, bias=False)
            affine(out, f"{block}.{name}.to_v", c, width, bias=False)
            affine(out, f"{block}.{name}.to_out.0", c, c)
        affine(out, f"{block}.ff.net.0.proj", 8 * c, c)
        affine(out, f"{block}.ff.net.2", c, 4 * c)
        for n in (1, 2, 3):
            affine(out, f"{block}.norm{n}", c)

    affine(out, "time_embed.0", time, base)
    affine(out, "time_embed.2", time, time)
    affine(out, "input_blocks.0.0", base, 4, 3, 3)
    number, width, skips = 1, base, [base]
    for level, wide in enumerate(widths):
        for _ in range(2):
            residual(f"input_blocks.{number}.0", width, wide)
            if level < 3:
                transformer(f"input_blocks.{number}.1", wide)
            number, width = number + 1, wide
            skips.append(wide)
        if level < 3:
            affine(out, f"input_blocks.{number}.0.op", wide, wide, 3, 3)
            number += 1
            skips.append(wide)
    residual("middle_block.0", width, width)
    transformer("middle_block.1", width)
    residual("middle_block.2", width, width)
    for number in range(12):
        level = 3 - number // 3
        residual(f"output_blocks.{number}.0", width + skips.pop(), widths[level])
        width = widths[level]
        if level < 3:
            transformer(f"output_blocks.{number}.1", width)
        if level and number % 3 == 2:
            affine(out, f"output_blocks.{number}.{2 if level < 3 else 1}.conv", width, width, 3, 3)
    affine(out, "out.0", base)
    affine(out, "out.2", 4, base, 3, 3)
    return out


def test_txt2img_has_the_published_names_and_shapes() -> None:
    want = published_keys()
    assert len(want) == 1368
    assert shapes(build(TXT2IMG)) == want


@pytest.mark.parametrize(("path", "context"), [(TXT2IMG, 1280), (SD_V1, 768)])
def test_unet_names_follow_from_its_figure(path: Path, context: int) -> None:
    want = unet_shapes(context)
    assert len(want) == 686
    assert shapes(build(path).model.diffusion_model) == want


@pytest.mark.parametrize(
    ("path", "sizes", "entries"),
    [
        (TXT2IMG, {"model": 872_300_484, "first_stage_model": 83_653_863, "cond_stage_model": BERT}, 1368),
        (SD_V1, {"model": 859_520_964, "first_stage_model": 83_653_863, "cond_stage_model": 123_060_480}, 1142),
    ],
)
def test_sizes_are_the_published_ones(path: Path, sizes: dict[str, int], entries: int) -> None:
    model = build(path)
    found: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        found[name.split(".")[0]] += parameter.numel()
    assert found == sizes
    state = model.state_dict()
    assert len(state) == entries
    assert [k for k in state if "." not in k] == list(BUFFERS)
    assert all(state[k].shape == (1000,) for k in BUFFERS)


def test_first_stage_and_text_keys_are_counted() -> None:
    model = build(SD_V1)
    # Coders: 10 + 14 residual blocks of 8 entries, 2 + 2 shortcuts of 2, two attentions of 10, 3 + 3 resizers of 2,
    # two times conv_in, norm_out and conv_out; then the two 1x1 convolutions between.
    assert len(model.first_stage_model.state_dict()) == 24 * 8 + 4 * 2 + 2 * 10 + 6 * 2 + 2 * 6 + 2 * 2
    assert len(model.cond_stage_model.state_dict()) == 12 * 16 + 4


def test_what_the_configs_say_reaches_the_model() -> None:
    model = build(SD_V1)
    assert model.scale_factor == 0.18215
    assert model.model_ema is None
    assert (model.schedule.betas[0], model.schedule.betas[-1]) == pytest.approx((8.5e-4, 1.2e-2), rel=1e-9)
    assert not any(p.requires_grad for p in model.cond_stage_model.parameters())
    assert all(p.requires_grad for p in build(TXT2IMG).cond_stage_model.transformer.attn_layers.parameters())
    schedule = model.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [schedule(n) for n in (0, 10000, 10**6)] == pytest.approx([1e-6, 1.0, 1.0])


def test_a_misspelt_key_is_refused() -> None:
    with pytest.raises(UserError, match="scalefactor"):
        build(SD_V1, scalefactor=1.0)


UNET: dict[str, Any] = {
    "image_size": 64, "in_channels": 3, "out_channels": 3, "num_res_blocks": 2, "attention_resolutions": [8, 4, 2],
}  # fmt: skip
VQ: dict[str, Any] = {
    "target": "ldm.models.autoencoder.VQModelInterface",
    "params": {
        "embed_dim": 3, "n_embed": 8192, "monitor": "val/rec_loss",
        "ddconfig": {
            "attn_type": "none", "double_z": False, "z_channels": 3, "resolution": 256, "in_channels": 3, "out_ch": 3,
            "ch": 128, "ch_mult": [1, 2, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
        },
        "lossconfig": {"target": "ldm.modules.losses.contperceptual.DummyLoss"},
    },
}  # fmt: skip
# Other published models: their U-Net's options, what else their config says, millions of parameters of the U-Net.
OTHERS: list[tuple[dict[str, Any], dict[str, Any], float, str | None]] = [
    (
        {"model_channels": 224, "channel_mult": [1, 2, 3, 4], "num_head_channels": 32},
        {"cond_stage_config": "__is_unconditional__", "cond_stage_key": "image"}, 274.06, None,
    ),
    (
        {"in_channels": 7, "model_channels": 256, "channel_mult": [1, 2, 3, 4], "num_heads": 8,
         "resblock_updown": True},
        {"cond_stage_config": "__is_first_stage__", "cond_stage_key": "masked_image", "concat_mode": True},
        387.25, "concat",
    ),
    (
        {"model_channels": 192, "channel_mult": [1, 2, 3, 5], "num_heads": 1, "use_spatial_transformer": True,
         "transformer_depth": 1, "context_dim": 512},
        {"cond_stage_config": {"target": "ldm.modules.encoders.modules.ClassEmbedder",
                               "params": {"n_classes": 1001, "embed_dim": 512, "key": "class_label"}},
         "cond_stage_key": "class_label", "conditioning_key": "crossattn", "cond_stage_trainable": True},
        400.92, "crossattn",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("unet", "params", "millions", "key"), OTHERS)
def test_other_published_models_have_their_size(
    unet: dict[str, Any], params: dict[str, Any], millions: float, key: str | None
) -> None:
    common = {
        "linear_start": 0.0015, "linear_end": 0.0195, "num_timesteps_cond": 1, "log_every_t": 200, "timesteps": 1000,
        "loss_type": "l1", "first_stage_key": "image", "channels": 3, "image_size": 64, "monitor": "val/loss",
    }  # fmt: skip
    target = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
    parts = {"first_stage_config": VQ, "unet_config": {"target": target, "params": UNET | unet}}
    with torch.device("meta"):
        model = instantiate_from_config(
            {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": common | parts | params}
        )
    assert sum(p.numel() for p in model.model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert model.model.conditioning_key == key
    assert sum(k.startswith("model_ema.") for k in model.state_dict()) == len(list(model.model.parameters())) + 2
