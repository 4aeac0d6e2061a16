from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.testing import assert_close

from ldm.errors import UserError
from ldm.models.autoencoder import AutoencoderKL, IdentityFirstStage, VQModel, VQModelInterface, psnr
from ldm.modules.diffusionmodules.model import AttnBlock, Decoder, Downsample, Encoder, LinAttnBlock
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution, normal_kl
from ldm.modules.losses import LPIPSWithDiscriminator, VQLPIPSWithDiscriminator
from ldm.modules.losses.contperceptual import edge_distance
from support.golden import golden, published_keys, weigh

TINY = {
    "double_z": True, "z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [8], "dropout": 0.0,
}  # fmt: skip
NO_LOSS = {"target": "torch.nn.Identity"}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def kl_loss(**params: Any) -> dict[str, Any]:
    params = {"disc_start": 0, "disc_ndf": 8, "disc_num_layers": 1, "kl_weight": 1e-6, **params}
    return {"target": "ldm.modules.losses.LPIPSWithDiscriminator", "params": params}


def vq_loss(**params: Any) -> dict[str, Any]:
    params = {"disc_start": 0, "disc_ndf": 8, "disc_num_layers": 1, **params}
    return {"target": "ldm.modules.losses.VQLPIPSWithDiscriminator", "params": params}


def vq_model(lossconfig: dict[str, Any] = NO_LOSS, **options: Any) -> VQModel:
    return VQModel(TINY | {"double_z": False}, lossconfig, n_embed=16, embed_dim=4, **options)


def images(size: int = 16, count: int = 2) -> Tensor:
    """Smooth pictures in [-1, 1]."""
    coarse = torch.rand(count, 3, 4, 4) * 2 - 1
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def test_golden_kl() -> None:
    config, tensors = golden("autoencoder_kl")
    model = weigh(AutoencoderKL(**config))
    with torch.no_grad():
        posterior = model.encode(tensors["x"])
        decoded = model.decode(tensors["mean"])
    assert_close(posterior.mean, tensors["mean"], rtol=1e-4, atol=1e-5)
    assert_close(posterior.logvar, tensors["logvar"], rtol=1e-4, atol=1e-5)
    assert_close(decoded, tensors["decoded"], rtol=1e-4, atol=1e-5)


def test_key_contract_of_txt2img_f8_large() -> None:
    prefix = "first_stage_model."
    want = {k.removeprefix(prefix): shape for k, shape in published_keys().items() if k.startswith(prefix)}
    large = TINY | {"resolution": 256, "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": []}
    with torch.device("meta"):
        model = AutoencoderKL(OmegaConf.create(large), OmegaConf.create(NO_LOSS), embed_dim=4)
    assert want
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == want


def test_vq_and_loss_keys() -> None:
    keys = vq_model(vq_loss()).state_dict().keys()
    assert {k.split(".")[0] for k in keys} == {
        "encoder", "decoder", "quant_conv", "post_quant_conv", "quantize", "loss",
    }  # fmt: skip
    assert {"quantize.embedding.weight", "loss.discriminator.main.0.weight", "encoder.mid.attn_1.q.weight"} <= set(keys)
    assert "loss.logvar" in AutoencoderKL(TINY, kl_loss(), 4).state_dict()


def test_downsample_pads_right_and_below_only() -> None:
    layer = Downsample(1, with_conv=True)
    assert layer.conv is not None
    nn.init.ones_(layer.conv.weight)
    layer.conv.bias.data.zero_()  # type: ignore[union-attr]
    out = layer(torch.ones(1, 1, 4, 4))
    assert_close(out, torch.tensor([[[[9.0, 6.0], [6.0, 4.0]]]]))
    assert_close(Downsample(1, with_conv=False)(torch.arange(4.0).view(1, 1, 2, 2)), torch.full((1, 1, 1, 1), 1.5))


@pytest.mark.parametrize("size", [(4, 4), (3, 7)])
def test_attention_is_a_softmax_over_positions(size: tuple[int, int]) -> None:
    block = AttnBlock(32).double()
    x = torch.randn(2, 32, *size, dtype=torch.float64)
    h = block.norm(x)
    q, k, v = (f(h).reshape(2, 32, -1) for f in (block.q, block.k, block.v))
    weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / 32**0.5, dim=2)
    want = x + block.proj_out(torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape))
    assert_close(block(x), want)


def test_linear_attention() -> None:
    block = LinAttnBlock(4).double()
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64)
    q, k, v = block.to_qkv(x).reshape(3, 4, 6)
    context = torch.einsum("dn,en->de", torch.softmax(k, 1), v)
    assert_close(block(x), block.to_out(torch.einsum("de,dn->en", context, q).reshape(x.shape)))


def test_coder_options() -> None:
    x = torch.rand(1, 3, 24, 8)  # another size than `resolution`
    for option in ({"attn_type": "none"}, {"use_linear_attn": True}, {"resamp_with_conv": False, "double_z": False}):
        config = TINY | option
        z = Encoder(**config)(x)
        assert z.shape == (1, 8 if config["double_z"] else 4, 12, 4)
    assert Decoder(**TINY, give_pre_end=True)(z).shape == (1, 32, 24, 8)
    assert Decoder(**TINY, tanh_out=True)(100 * z).abs().max() <= 1


@pytest.mark.parametrize(
    ("change", "word"),
    [({"chh": 3}, "chh"), ({"ch": 20}, "ch=20"), ({"attn_type": "dense"}, "dense"), ({"double_z": False}, "double_z")],
)
def test_bad_ddconfig(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        AutoencoderKL(TINY | change, NO_LOSS, 4)


def test_gaussian() -> None:
    parameters = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    first = DiagonalGaussianDistribution(parameters)
    other = DiagonalGaussianDistribution(torch.randn_like(parameters))
    ours = torch.distributions.Normal(first.mean, first.std)
    standard = torch.distributions.Normal(torch.zeros_like(first.mean), torch.ones_like(first.mean))
    theirs = torch.distributions.Normal(other.mean, other.std)
    kl = torch.distributions.kl_divergence
    assert_close(first.kl().double(), kl(ours, standard).sum((1, 2, 3)), rtol=1e-5, atol=1e-5)
    assert_close(first.kl(other).double(), kl(ours, theirs).sum((1, 2, 3)), rtol=1e-5, atol=1e-4)
    assert_close(normal_kl(first.mean, first.logvar, other.mean, other.logvar), kl(ours, theirs))
    draw = first.sample(torch.Generator().manual_seed(1))
    assert_close(first.nll(draw), -ours.log_prob(draw).sum((1, 2, 3)))
    assert_close(draw, first.sample(torch.Generator().manual_seed(1)))
    assert_close(first.mode(), first.mean)
    assert DiagonalGaussianDistribution(torch.full((1, 2, 1, 1), 99.0)).logvar.item() == 20


def test_edge_distance_by_hand() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)  # slope 1 across, 0 down: mean |gradient| 1/2, then slope 2
    assert_close(edge_distance(ramp, torch.zeros_like(ramp), scales=2).item(), 0.5 * (0.5 + 1.0))
    assert edge_distance(ramp, ramp + 3).item() == 0
    assert edge_distance(ramp.expand(4, 3, 8, 8), torch.zeros(4, 3, 8, 8)).shape == (4, 1, 1, 1)


def test_kl_loss_by_hand() -> None:
    loss = LPIPSWithDiscriminator(0, logvar_init=0.5, kl_weight=0.1, perceptual_weight=0, disc_factor=0)
    x, rec = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    posterior = DiagonalGaussianDistribution(torch.randn(2, 8, 2, 2))
    total, logs = loss(x, rec, posterior, 0, torch.zeros(1))
    nll = ((x - rec).abs() / torch.tensor(0.5).exp() + 0.5).sum() / 2
    assert_close(total, nll + 0.1 * posterior.kl().sum() / 2)
    assert_close(logs["rec_loss"], (x - rec).abs().mean())
    assert loss.discriminator is None
    assert set(loss.state_dict()) == {"logvar"}


@pytest.mark.parametrize("disc_loss", ["hinge", "vanilla"])
def test_each_player_gets_only_its_own_gradient(disc_loss: str) -> None:
    model = AutoencoderKL(TINY, kl_loss(disc_loss=disc_loss, disc_factor=0.7, disc_weight=0.5), 4)
    loss: Any = model.loss
    x = images()
    rec, posterior = model(x)
    nll = loss.distance(x, rec).sum() / 2
    players = list(loss.discriminator.parameters())
    coders = [p for name, p in model.named_parameters() if not name.startswith("loss.")]

    buffers = {k: v.clone() for k, v in loss.discriminator.named_buffers()}
    generator, logs = loss.generator_term(nll, rec, model.get_last_layer())
    assert_close(dict(loss.discriminator.named_buffers()), buffers)
    assert all(g is None for g in torch.autograd.grad(generator, players, retain_graph=True, allow_unused=True))
    adversarial = torch.autograd.grad(generator, model.get_last_layer(), retain_graph=True)[0]
    plain = torch.autograd.grad(nll, model.get_last_layer(), retain_graph=True)[0]
    # lambda makes both gradients equally long, up to disc_weight * disc_factor and the 1e-4.
    assert_close(adversarial.norm() / plain.norm(), torch.tensor(0.35), rtol=1e-2, atol=0)

    discriminator, _ = loss.discriminator_term(x, rec)
    assert all(g is None for g in torch.autograd.grad(discriminator, coders, retain_graph=True, allow_unused=True))
    alone = torch.autograd.grad(discriminator, players, retain_graph=True)

    total, _ = loss(x, rec, posterior, 0, model.get_last_layer())
    assert_close(torch.autograd.grad(total, players), alone)
    assert logs["d_weight"] > 0


def test_before_disc_start_every_parameter_has_a_gradient() -> None:
    model = AutoencoderKL(TINY, kl_loss(disc_start=5), 4)
    loss: Any = model.loss
    model.training_step({"image": images()}).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None or not p.requires_grad, name
    assert all(p.grad.abs().max() == 0 for p in loss.discriminator.parameters())
    last = model.decoder.conv_out.weight.grad
    assert last is not None
    assert last.abs().max() > 0


@pytest.mark.parametrize(
    "make", [lambda: AutoencoderKL(TINY, kl_loss(), 4, lr=2e-3), lambda: vq_model(vq_loss(), lr=2e-3)]
)
def test_training_lowers_the_error(make: Any) -> None:
    model = make()
    optimizer = model.configure_optimizers()
    batch = {"image": images()}
    errors = []
    for _ in range(25):
        errors.append((model.reconstruct(batch["image"]) - batch["image"]).abs().mean().item())
        optimizer.zero_grad()
        model.training_step(batch).backward()
        optimizer.step()
    assert errors[-1] < 0.75 * errors[0]


def test_trainer_counts_batches(tmp_path: Path) -> None:
    model = AutoencoderKL(TINY, kl_loss(disc_start=2), 4, monitor="val/rec_loss", lr=1e-4)
    loader: Any = torch.utils.data.DataLoader([{"image": x} for x in images(count=4)], batch_size=1)  # type: ignore
    trainer = pl.Trainer(
        max_steps=3, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=1, val_check_interval=3,
    )  # fmt: skip
    trainer.fit(model, loader, loader)
    assert trainer.global_step == 3
    assert {"val/rec_loss", "val/psnr", "train/d_weight"} <= set(trainer.callback_metrics)


def test_identity_loss_is_not_trainable() -> None:
    model = AutoencoderKL(TINY, NO_LOSS, 4)
    with pytest.raises(UserError, match="not trainable"):
        model.training_step({"image": images()})
    with pytest.raises(UserError, match="image_key=image"):
        model.get_input({"picture": images()})


def test_log_images() -> None:
    x = images()
    grids = AutoencoderKL(TINY, NO_LOSS, 4).log_images({"image": x})
    assert_close(grids["inputs"], x)
    assert grids["reconstructions"].shape == (2, 3, 16, 16)
    assert grids["reconstructions"].abs().max() <= 1


def test_psnr_by_hand() -> None:
    assert_close(psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.2)).item(), 20.0)  # 10 log10(4 / 0.04)


def test_checkpoint_and_ignored_keys(tmp_path: Path) -> None:
    path = str(tmp_path / "ae.pt")
    trained = AutoencoderKL(TINY, NO_LOSS, 4)
    torch.save({"state_dict": trained.state_dict()}, path)
    assert_close(AutoencoderKL(TINY, NO_LOSS, 4, ckpt_path=path).state_dict(), trained.state_dict())
    with pytest.raises(UserError, match=r"loss\.logvar"):
        AutoencoderKL(TINY, kl_loss(), 4, ckpt_path=path)
    tuned = AutoencoderKL(TINY, kl_loss(), 4, ckpt_path=path, ignore_keys=["loss"])  # begin training from coders alone
    assert_close(tuned.encoder.state_dict(), trained.encoder.state_dict())
    torch.save(tuned.state_dict(), path)  # over the file it began from
    AutoencoderKL(TINY, NO_LOSS, 4, ckpt_path=path, ignore_keys=["loss."])


def test_vq_round_trip() -> None:
    model = vq_model(sane_index_shape=True).eval()
    x = images()
    quant, loss, (_, _, indices) = model.encode(x)
    assert indices.shape == (2, 8, 8)
    assert loss.ndim == 0
    assert_close(model.decode(quant), model.decode_code(indices))
    assert_close(model(x)[0], model.decode(quant))


def test_vq_interface_quantizes_on_decode() -> None:
    options: dict[str, Any] = {"ddconfig": TINY | {"double_z": False}, "lossconfig": NO_LOSS, "n_embed": 16}
    model = VQModelInterface(embed_dim=4, **options).eval()
    x = images()
    h = model.encode(x)
    assert_close(model.decode(h), model(x)[0])
    quant = model.quantize(h)[0]
    assert_close(model.decode(quant, force_not_quantize=True), model.decode(h))
    assert not torch.equal(model.decode(h, force_not_quantize=True), model.decode(h))
    with pytest.raises(UserError, match="n_embedd"):
        VQModelInterface(embed_dim=4, **options, n_embedd=3)


def test_identity_first_stage() -> None:
    x = images()
    stage = IdentityFirstStage()
    assert stage.encode(x) is x
    assert stage.decode(x) is x
    assert IdentityFirstStage(vq_interface=True).quantize(x)[0] is x


@pytest.mark.parametrize(
    "options", [{"disc_loss": "wgan"}, {"use_actnorm": True}, {"discstart": 3}, {"lpips_weights": "no"}]
)
def test_bad_loss_options(options: dict[str, Any]) -> None:
    for target in (LPIPSWithDiscriminator, VQLPIPSWithDiscriminator):
        with pytest.raises(UserError, match=next(iter(options))):
            target(disc_start=0, **options)
