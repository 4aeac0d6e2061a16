"""The whole model at toy size: training, conditioning of every kind, averaged weights, checkpoints, published keys."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.testing import assert_close

from ldm.checkpoint import read_state_dict, save_safetensors
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.models.diffusion import samplers
from ldm.models.diffusion.ddim import DDIMSampler, bind
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.modules.ema import LitEma
from ldm.util import instantiate_from_config

DD = {
    "double_z": True, "z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1],
    "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
UNET = {
    "image_size": 8, "in_channels": 4, "model_channels": 32, "out_channels": 4, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 2,
}  # fmt: skip
PROMPTED = UNET | {"use_spatial_transformer": True, "context_dim": 16, "legacy": False}
KL = {
    "target": "ldm.models.autoencoder.AutoencoderKL",
    "params": {"embed_dim": 4, "ddconfig": DD, "lossconfig": {"target": "torch.nn.Identity"}},
}
VQ = {
    "target": "ldm.models.autoencoder.VQModelInterface",
    "params": {
        "embed_dim": 4, "n_embed": 16, "ddconfig": DD | {"double_z": False},
        "lossconfig": {"target": "torch.nn.Identity"},
    },
}  # fmt: skip
BERT = {
    "target": "ldm.modules.encoders.modules.BERTEmbedder",
    "params": {
        "n_embed": 16, "n_layer": 1, "vocab_size": 2000, "max_seq_len": 8, "tokenizer": "configs/mini/tokenizer",
    },
}  # fmt: skip
CLASSES = {
    "target": "ldm.modules.encoders.modules.ClassEmbedder",
    "params": {"embed_dim": 16, "n_classes": 5, "key": "class_label"},
}
BATCH = {"caption": ["a crack", "a hole"], "seed": torch.tensor([3, 8])}


def make(**options: Any) -> LatentDiffusion:
    torch.manual_seed(0)
    unet = options.pop("unet", PROMPTED)
    params = {
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
        "first_stage_config": KL, "cond_stage_config": BERT, "linear_start": 8.5e-4, "linear_end": 1.2e-2,
        "use_ema": False, "scale_factor": 0.5, "lr": 2e-3, **options,
    }  # fmt: skip
    return instantiate_from_config({"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params})


def awake(model: LatentDiffusion) -> LatentDiffusion:
    """Fresh networks end in zeros; give the last layers weights, so that what goes in matters."""
    generator = torch.Generator().manual_seed(1)
    for p in model.model.parameters():
        if not p.any():
            p.data = 0.2 * torch.randn(p.shape, generator=generator)
    if model.model_ema is not None:
        model.model_ema = LitEma(model.model, model.ema_decay)
    return model


def latents(count: int = 2) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("parameterization", ["eps", "x0"])
def test_overfitting_lowers_the_loss(parameterization: str) -> None:
    model = make(cond_stage_trainable=True, parameterization=parameterization)
    batch = BATCH | {"latent": latents()}
    optimizer = model.configure_optimizers()
    losses = []
    for _ in range(30):
        loss, parts = model.loss(batch)
        assert set(parts) == {"loss_simple"}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("loss_type", "distance"), [("l1", F.l1_loss), ("l2", F.mse_loss)])
def test_the_loss_is_the_distance_to_the_noise(loss_type: str, distance: Any) -> None:
    model = awake(make(loss_type=loss_type, l_simple_weight=3.0))
    batch = BATCH | {"latent": latents()}
    x0 = 0.5 * batch["latent"]
    t, noise = model.draw(batch, x0)
    bar = torch.tensor(np.cumprod(1 - model.schedule.betas), dtype=torch.float32)[t - 1].view(2, 1, 1, 1)
    context = model.cond_stage_model(BATCH["caption"])
    out = model.model.diffusion_model(bar.sqrt() * x0 + (1 - bar).sqrt() * noise, t - 1, context=context)
    loss, parts = model.loss(batch)
    assert_close(loss, 3.0 * distance(out, noise))
    assert_close(parts["loss_simple"], distance(out, noise))


def test_a_samples_seed_fixes_its_time_and_noise_in_any_batch() -> None:
    model = make()
    x0 = latents(4)
    t, noise = model.draw({"seed": torch.tensor([5, 6, 7, 8])}, x0)
    torch.manual_seed(99)
    t_again, noise_again = model.draw({"seed": [8, 6]}, x0[:2])
    assert_close(t_again, t[[3, 1]])
    assert_close(noise_again, noise[[3, 1]])
    assert t.min() >= 1
    assert t.max() <= 1000
    many, _ = model.draw({}, torch.zeros(4000, 1, 1, 1))
    assert 1 <= many.min() < 10  # of 4000 even draws none this low: chance 1e-16
    assert 990 < many.max() <= 1000
    assert many.float().mean().sub(500.5).abs() < 20  # over four standard errors


def test_each_prompt_is_encoded_once() -> None:
    model = make()
    asked: list[list[str]] = []
    encode = model.cond_stage_model.encode

    def count(texts: list[str]) -> Tensor:
        asked.append(list(texts))
        return encode(texts)

    model.cond_stage_model.encode = count
    with torch.inference_mode():  # as in a validation loop
        first = model.get_learned_conditioning(["b", "a", "b"])
    second = model.get_learned_conditioning(["a", "c"])
    assert asked == [["a", "b"], ["c"]]
    assert_close(first[[0, 2]], first[[2, 0]])
    assert_close(second[0], first[1])
    assert_close(model.get_learned_conditioning("c"), second[1:])
    assert_close(second, encode(["a", "c"]), rtol=1e-4, atol=1e-5)
    model._prompts.limit = 3
    model.get_learned_conditioning(["d", "e"])
    assert set(model._prompts.known) == {"d", "e"}
    model.loss(BATCH | {"latent": latents()})[0].backward()  # what inference made may be trained on


def test_frozen_parts_get_no_gradient() -> None:
    for trainable in (False, True):
        model = make(cond_stage_trainable=trainable)
        awake(model).loss(BATCH | {"image": images()})[0].backward()
        assert all(p.grad is not None for p in model.model.parameters())
        assert all(p.grad is None for p in model.first_stage_model.parameters())
        text = [p.grad is not None for p in model.cond_stage_model.transformer.attn_layers.parameters()]
        assert all(text) if trainable else not any(text)
        trained = {id(p) for group in model.configure_optimizers().param_groups for p in group["params"]}
        assert trained == {id(p) for p in model.parameters() if p.requires_grad}


def test_frozen_parts_stay_in_evaluation() -> None:
    for trainable in (False, True):
        model = make(cond_stage_trainable=trainable)
        for _ in range(2):
            parts = model.model.training, model.first_stage_model.training, model.cond_stage_model.training
            assert parts == (True, False, trainable)
            assert model.eval().train() is model


def test_image_and_latent_say_the_same() -> None:
    model = make()
    mean = model.first_stage_model.encode(images()).mode()
    assert_close(model.latents({"image": images()}), 0.5 * mean)
    assert_close(model.latents({"latent": mean}), 0.5 * mean)
    assert_close(model.decode_first_stage(0.5 * mean), model.first_stage_model.decode(mean))
    with pytest.raises(UserError, match="first_stage_key=image is not in the batch; it has caption, seed"):
        model.latents(BATCH)
    with pytest.raises(UserError, match="cond_stage_key=caption is not in the batch"):
        model.conditioning({"image": 0})


class Data:
    def latent_std(self) -> float:
        return 4.0


class Run:
    datamodule, global_step = Data(), 0


def test_scale_by_std_is_set_by_a_run_from_scratch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LatentDiffusion, "trainer", Run())
    monkeypatch.setattr(LatentDiffusion, "global_step", 0)
    model = make(scale_by_std=True, scale_factor=1.0)
    assert model.state_dict()["scale_factor"] == 1.0
    model.on_train_start()
    assert float(model.scale_factor) == 0.25
    path = tmp_path / "base.safetensors"
    save_safetensors(model.artifact()[1], path, {})
    again = make(scale_by_std=True, scale_factor=1.0, ckpt_path=str(path))
    again.on_train_start()
    assert float(again.scale_factor) == 0.25
    model.scale_factor.fill_(0.7)
    save_safetensors(model.artifact()[1], path, {})
    again = make(scale_by_std=True, scale_factor=1.0, ckpt_path=str(path))
    again.on_train_start()  # a base's latents keep the scale they were learned at
    assert float(again.scale_factor) == pytest.approx(0.7)


def test_ema_by_hand() -> None:
    layer = nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    nn.init.zeros_(layer.weight)
    ema = LitEma(layer, decay=0.25)
    assert set(ema.state_dict()) == {"decay", "num_updates", "weight"}
    expected = 0.0
    for n in range(1, 5):
        nn.init.constant_(layer.weight, float(n))
        ema(layer)
        decay = min(0.25, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        assert_close(ema.weights(layer)["weight"], torch.full((1, 2), expected))
    with pytest.raises(ZeroDivisionError), ema.applied(layer):  # noqa: PT012
        assert_close(layer.weight.data, torch.full((1, 2), expected))
        _ = 1 / 0
    assert_close(layer.weight.data, torch.full((1, 2), 4.0))


def test_the_artifact_carries_averaged_weights_and_loads_strictly(tmp_path: Path) -> None:
    model = awake(make(use_ema=True, ema_decay=0.5))
    assert "model_ema.diffusion_modeltime_embed0weight" in model.state_dict()
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    for p in model.model.parameters():
        p.data += 1.0
    assert model.model_ema is not None
    model.on_train_batch_end()
    name, state = model.artifact()
    decay = min(0.5, 2 / 11)
    assert name == "ldm"
    assert not any(k.startswith("model_ema.") for k in state)
    for key, value in before.items():
        assert_close(state[f"model.{key}"], value + (1 - decay))
    path = tmp_path / "ldm-1.safetensors"
    save_safetensors(state, path, {})
    loaded = make(ckpt_path=str(path))
    assert_close(dict(loaded.state_dict()), state)
    assert not any(p.is_meta for p in loaded.parameters())
    digest = file_hash(path)
    optimizer = loaded.configure_optimizers()
    loaded.loss(BATCH | {"latent": latents()})[0].backward()
    optimizer.step()
    assert file_hash(path) == digest
    with loaded.ema_scope(), model.ema_scope():
        assert_close(model.model.state_dict()["diffusion_model.out.2.bias"], state["model.diffusion_model.out.2.bias"])


def test_averaged_weights_of_a_published_file_come_along(tmp_path: Path) -> None:
    model = awake(make(use_ema=True))
    path = tmp_path / "whole.ckpt"
    state = {k: v + 1 if k.startswith("model_ema.d") and v.dim() else v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state}, path)
    loaded = make(use_ema=True, ckpt_path=str(path))
    assert_close(dict(loaded.state_dict()), dict(state))
    assert make(ckpt_path=str(path)).model_ema is None
    pruned = {k: v for k, v in state.items() if not k.startswith("model_ema.d") or k == "model_ema.decay"}
    torch.save({"state_dict": pruned}, path)
    loaded = make(use_ema=True, ckpt_path=str(path))
    assert loaded.model_ema is not None
    assert_close(loaded.model_ema.weights(loaded.model), dict(loaded.model.named_parameters()), check_stride=False)


def test_a_base_of_another_schedule_or_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.ckpt"
    torch.save({"state_dict": make().state_dict()}, path)
    with pytest.raises(UserError, match=r"another noise schedule \(beta_T 0\.012, the config says 0\.02\)"):
        make(ckpt_path=str(path), linear_end=2e-2)
    with pytest.raises(UserError, match=r"12 of another shape \(betas \(1000,\) for \(500,\)"):
        make(ckpt_path=str(path), timesteps=500)
    with pytest.raises(UserError, match="does not fit LatentDiffusion"):
        make(ckpt_path=str(path), unet=PROMPTED | {"num_res_blocks": 2})
    with pytest.raises(UserError, match="does not exist"):
        make(ckpt_path=str(tmp_path / "absent.ckpt"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_base_keeps_an_exact_schedule(tmp_path: Path, dtype: torch.dtype) -> None:
    model = awake(make())
    path = tmp_path / "half.ckpt"
    torch.save({"state_dict": {k: v.to(dtype) for k, v in model.state_dict().items()}}, path)
    loaded = make(ckpt_path=str(path))
    assert_close(loaded.betas, model.betas, rtol=0, atol=0)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    with pytest.raises(UserError, match="another noise schedule"):
        make(ckpt_path=str(path), linear_end=1.3e-2)


def test_ignored_keys_stay_fresh(tmp_path: Path) -> None:
    path = tmp_path / "base.ckpt"
    model = awake(make())
    state = model.state_dict()
    wider = {k: v for k, v in state.items() if not k.startswith("cond_stage_model.")}
    torch.save({"state_dict": wider | {"first_stage_model.loss.logvar": torch.zeros(())}}, path)
    with pytest.raises(UserError, match="missing"):
        make(ckpt_path=str(path))
    loaded = make(ckpt_path=str(path), ignore_keys=["cond_stage_model."])
    assert_close(dict(loaded.model.state_dict()), dict(model.model.state_dict()))
    assert not any(p.is_meta for p in loaded.parameters())


def test_a_first_stage_brings_its_own_weights_and_leaves_its_loss(tmp_path: Path) -> None:
    first = make().first_stage_model
    torch.save({"state_dict": {**first.state_dict(), "loss.discriminator.x": torch.ones(1)}}, tmp_path / "kl.ckpt")
    config = {"target": KL["target"], "params": {**KL["params"], "ckpt_path": str(tmp_path / "kl.ckpt")}}  # type: ignore
    assert_close(dict(make(first_stage_config=config).first_stage_model.state_dict()), dict(first.state_dict()))


def test_x0_networks_are_sampled_as_noise_predictors() -> None:
    """A network that always answers with the same x0 must lead every sampler there."""
    model = make(parameterization="x0")
    target = latents()
    model.model.forward = lambda x, t, **cond: target  # type: ignore[method-assign]
    denoise = bind(model, None)
    for rule in (samplers.ddim, samplers.plms):
        out = rule(denoise, model.schedule, torch.randn(2, 4, 8, 8), steps=20)  # type: ignore[operator]
        assert (out - target).abs().mean() < 0.06
    x, t = latents(), torch.tensor([0, 700])
    assert_close(model.network(x, t, None), target)
    assert_close(model.schedule.predict_x0(x, t + 1, model.apply_model(x, t, None)), target, rtol=1e-3, atol=1e-3)
    assert set(make(parameterization="x0").log_images(BATCH | {"latent": latents()}, steps=2)) == {
        "reconstructions", "samples",
    }  # fmt: skip


def test_log_images_shows_the_averaged_network_and_repeats() -> None:
    model = awake(make(use_ema=True))
    batch = BATCH | {"image": images()}
    first = model.log_images(batch, steps=3)
    for p in model.model.parameters():
        p.data += 0.3  # the average has not moved yet
    second = model.log_images(batch, steps=3)
    assert_close(second, first)
    assert first["samples"].shape == (2, 3, 16, 16)


def test_vq_first_stage() -> None:
    model = make(first_stage_config=VQ)
    stage = model.first_stage_model
    code = model.first_stage_mean(images())
    assert_close(code, stage.quant_conv(stage.encoder(images())))  # before quantization
    out = model.decode_first_stage(0.5 * code)
    nearest = torch.cdist(code.permute(0, 2, 3, 1).reshape(-1, 4), stage.quantize.embedding.weight).argmin(1)
    quantized = stage.quantize.embedding.weight[nearest].view(2, 8, 8, 4).permute(0, 3, 1, 2)
    assert_close(out, stage.decoder(stage.post_quant_conv(quantized)), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(model.loss(BATCH | {"image": images()})[0])


def test_classes() -> None:
    model = awake(make(cond_stage_config=CLASSES, cond_stage_key="class_label", cond_stage_trainable=True))
    labels = torch.tensor([4, 1])
    batch = {"class_label": labels, "latent": latents(), "seed": BATCH["seed"]}
    context = model.conditioning(batch)
    assert_close(context, model.cond_stage_model.embedding.weight[labels][:, None])
    assert_close(model.get_learned_conditioning({"class_label": labels}), context)  # as the published notebook calls it
    model.loss(batch)[0].backward()
    assert model.cond_stage_model.embedding.weight.grad is not None


def test_unconditional() -> None:
    model = awake(make(unet=UNET, cond_stage_config="__is_unconditional__", cond_stage_key="image", concat_mode=False))
    assert model.model.conditioning_key is None
    assert model.conditioning({}) is None
    assert not any(k.startswith("cond_stage_model") for k in model.state_dict())
    assert torch.isfinite(model.loss({"latent": latents()})[0])
    out, _ = DDIMSampler(model).sample(3, 2, (4, 8, 8), verbose=False)
    assert out.shape == (2, 4, 8, 8)


def test_concatenated_condition() -> None:
    unet = UNET | {"in_channels": 7}
    options: dict[str, Any] = {
        "unet": unet,
        "cond_stage_key": "hint",
        "cond_stage_config": {"target": "torch.nn.Identity"},
    }
    hint = torch.randn(2, 3, 8, 8)
    for how in ({"conditioning_key": "concat"}, {"concat_mode": True}):
        model = awake(make(**options, **how))
        batch = {"hint": hint, "latent": latents(), "seed": BATCH["seed"]}
        assert_close(model.conditioning(batch), hint)
        x, t = latents(), torch.tensor([1, 2])
        want = model.model.diffusion_model(torch.cat([x, hint], 1), t)
        assert_close(model.apply_model(x, t, hint), want)
        assert_close(model.apply_model(x, t, {"c_concat": [hint]}), want)
        assert torch.isfinite(model.loss(batch)[0])


def test_hybrid_and_label_conditions() -> None:
    x, t, hint, context = latents(), torch.tensor([1, 2]), torch.randn(2, 3, 8, 8), torch.randn(2, 6, 16)
    model = awake(make(unet=PROMPTED | {"in_channels": 7}, conditioning_key="hybrid"))
    out = model.apply_model(x, t, {"c_concat": [hint], "c_crossattn": [context[:, :2], context[:, 2:]]})
    assert_close(out, model.model.diffusion_model(torch.cat([x, hint], 1), t, context=context))
    model = awake(make(unet=UNET | {"num_classes": 5}, conditioning_key="adm"))
    assert_close(model.apply_model(x, t, t), model.model.diffusion_model(x, t, y=t))


def test_the_first_stage_may_condition(tmp_path: Path) -> None:
    model = awake(make(unet=UNET | {"in_channels": 8}, cond_stage_config="__is_first_stage__", cond_stage_key="image",
                       conditioning_key="concat"))  # fmt: skip
    assert_close(model.conditioning({"image": images()}), model.first_stage_model.encode(images()).mode())
    path = tmp_path / "twice.safetensors"
    save_safetensors(model.artifact()[1], path, {})
    assert_close(
        read_state_dict(path)["cond_stage_model.quant_conv.bias"], model.first_stage_model.quant_conv.bias.data
    )


def test_a_named_method_may_condition() -> None:
    model = make(cond_stage_forward="tokenize")
    assert_close(model.get_learned_conditioning(["a hole"]), model.cond_stage_model.tokenize(["a hole"]))
    with pytest.raises(UserError, match="cond_stage_forward=embed is no method of BERTEmbedder"):
        make(cond_stage_forward="embed").get_learned_conditioning(["a hole"])


def test_token_ids_may_condition() -> None:
    model = make(cond_stage_key="coordinates_bbox")
    tokens = torch.randint(0, 2000, (2, 8))
    assert_close(model.conditioning({"coordinates_bbox": tokens}), model.cond_stage_model(tokens))


PUBLISHED: dict[str, Any] = {
    "num_timesteps_cond": 1, "log_every_t": 200, "monitor": "val/loss_simple_ema", "concat_mode": False,
    "clip_denoised": False, "load_only_unet": False, "original_elbo_weight": 0.0, "l_simple_weight": 1.0,
    "learn_logvar": False, "logvar_init": 0.0, "use_positional_encodings": False, "given_betas": None,
    "cond_stage_forward": None, "v_posterior": 0.0, "cosine_s": 8e-3, "ignore_keys": [], "beta_schedule": "linear",
}  # fmt: skip


def test_published_keys_are_taken() -> None:
    config = OmegaConf.create(PUBLISHED)
    model = make(**{str(k): v for k, v in config.items()})
    assert_close(dict(model.state_dict()), dict(make().state_dict()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("load_only_unet", True), ("num_timesteps_cond", 2), ("original_elbo_weight", 0.1), ("learn_logvar", True),
        ("logvar_init", 1.0), ("use_positional_encodings", True), ("parameterization", "w"), ("loss_type", "huber"),
        ("conditioning_key", "cross"), ("cond_stage_config", "__none__"), ("beta_schedule", "cubic"),
    ],
)  # fmt: skip
def test_values_that_ask_for_what_is_not_here(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{key}={value}"):
        make(**{key: value})


def test_given_betas() -> None:
    betas = [0.1, 0.2, 0.3]
    model = make(given_betas=betas, timesteps=3)
    assert_close(model.betas, torch.tensor(betas))
    assert model.schedule.timesteps == 3


def test_defect_cells_may_count_more() -> None:
    """mask_weight 3 on a mask of one pixel: that pixel's cell counts four times, worked out by hand."""
    model = make(mask_weight=3.0)
    error = torch.ones(1, 1, 2, 2)
    error[0, 0, 1, 0] = 5.0
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 7, 1] = 1
    assert_close(model._weighted_mean(error, {"mask": mask}), torch.tensor((1 + 1 + 1 + 4 * 5) / 7))
    assert_close(model._weighted_mean(error, {}), torch.tensor(2.0))
    assert_close(make()._weighted_mean(error, {"mask": mask}), torch.tensor(2.0))
