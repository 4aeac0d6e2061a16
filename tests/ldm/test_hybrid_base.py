"""What the mini base has beside latent-diffusion: small coders, patches, v and min-SNR, the defect's place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from ldm.errors import UserError
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from support.hybrid import UNET, base, batch, first_stage


def test_the_small_coders_shrink_by_four_and_see_a_window_as_the_whole_picture() -> None:
    model = first_stage()
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    z = model.encode(x).mode()
    assert z.shape == (1, 4, 16, 16)
    assert model.decode(z).shape == x.shape
    # Far from the window's edge, where zeros are padded, nothing depends on what lies outside it.
    window = model.encode(x[:, :, 16:64, 16:64]).mode()
    assert_close(window[:, :, 6:-6, 6:-6], z[:, :, 10:-6, 10:-6])


def test_standard_latents_give_the_same_pictures() -> None:
    model, x = first_stage(), torch.rand(3, 3, 32, 32) * 2 - 1
    posterior, picture = model.encode(x), model.reconstruct(x)
    mean, std = posterior.mean.mean((0, 2, 3)), posterior.mean.std((0, 2, 3))
    model.standardize(mean, std)
    after = model.encode(x)
    assert_close(model.reconstruct(x), picture, atol=1e-5, rtol=1e-5)
    assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    assert_close(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    assert_close(after.std, posterior.std / std.view(1, -1, 1, 1), atol=1e-5, rtol=1e-4)


def test_a_patched_network_works_on_squares_of_cells() -> None:
    torch.manual_seed(0)
    model = UNetModel(**UNET)
    context, t = torch.randn(1, 3, 16), torch.tensor([5])
    assert model.stride == 4
    assert model(torch.randn(1, 9, 8, 12), t, context).shape == (1, 4, 8, 12)
    assert model.input_blocks[0][0].weight.shape[1] == 36
    with pytest.raises(UserError, match="multiples of 4"):
        model(torch.randn(1, 9, 8, 6), t, context)


@pytest.mark.parametrize("parameterization", ["eps", "x0", "v"])
def test_every_parameterization_yields_the_noise_that_made_x(parameterization: str) -> None:
    model, given = base(parameterization=parameterization), batch()
    x0 = given["latent"]
    t, noise = model.draw(given, x0)
    x = model.schedule.q_sample(x0, t, noise)
    perfect = model._target(x0, t, noise)
    model.network = lambda *_: perfect  # type: ignore[method-assign]
    assert_close(model.apply_model(x, t - 1, None), noise, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("parameterization", ["eps", "x0", "v"])
def test_min_snr_weighs_the_x0_error_alike_in_every_parameterization(parameterization: str) -> None:
    model = base(parameterization=parameterization)
    x0, wrong, noise = (torch.randn(2, 4, 8, 8) for _ in range(3))
    t = torch.tensor([2, 700])
    bar = torch.as_tensor(np.cumprod(1 - model.schedule.betas)[t.numpy() - 1])
    snr = (bar / (1 - bar)).float().view(2, 1, 1, 1)
    x = model.schedule.q_sample(x0, t, noise)
    # The answer that a network believing in `wrong` gives, and what its error weighs.
    said = model._target(wrong, t, model.schedule.predict_eps(x, t, wrong))
    error = model._min_snr(x0, t, 5.0) * (said - model._target(x0, t, noise)).square()
    assert_close(error, snr.clamp(max=5.0) * (wrong - x0).square(), atol=1e-3, rtol=1e-2)


def test_the_network_sees_the_place_and_the_normal_picture_around_it_or_under_it_too() -> None:
    model, given = base(), batch()
    cells = F.max_pool2d(given["mask"], 4)
    seen = {}
    for share in (0.0, 1.0):
        model.hide_known = share
        cond = model.placed(given, torch.zeros(4, 3, 16), given["latent"])
        (place,) = cond["c_concat"]
        assert_close(place[:, :1], cells)
        seen[share] = place[:, 1:]
    assert_close(seen[0.0], given["normal_latent"])
    assert_close(seen[1.0], (1 - cells) * given["normal_latent"])
    del given["normal_latent"]  # a real defect has no twin
    (place,) = model.placed(given, torch.zeros(4, 3, 16), given["latent"])["c_concat"]
    assert_close(place[:, 1:], (1 - cells) * given["latent"])


def test_which_samples_see_under_the_mask_is_their_seeds_matter() -> None:
    model, given = base(hide_known=0.5), batch()
    given["seed"] = torch.arange(40)
    given["mask"], given["normal_latent"] = given["mask"][:1].repeat(40, 1, 1, 1), torch.ones(40, 4, 8, 8)
    like = given["normal_latent"]
    hidden = model._hidden(given, like).flatten()
    assert 8 < hidden.sum() < 32
    turned = model._hidden({**given, "seed": given["seed"].flip(0)}, like).flatten()
    assert_close(turned, hidden.flip(0))


def test_other_bases_take_their_prompt_as_it_is() -> None:
    model = base()
    model.model.conditioning_key = "crossattn"
    context = torch.zeros(1, 3, 16)
    assert model.with_place(context, torch.ones(1, 1, 8, 8), torch.ones(1, 4, 8, 8)) is context


def test_a_hybrid_base_learns() -> None:
    model, given = base(parameterization="v", min_snr_gamma=5.0, mask_weight=5.0, cond_stage_trainable=True), batch()
    optimizer = torch.optim.Adam(model.trainable(), 2e-3)
    losses = []
    for _ in range(40):
        loss, _ = model.loss(given)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
