"""The small parts: objects from configs, learning rates, keyed random numbers, masks of the text encoder."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ldm.errors import UserError
from ldm.lr_scheduler import LambdaLinearScheduler, LambdaWarmUpCosineScheduler, scheduled
from ldm.models.autoencoder import VQModel
from ldm.modules.diffusionmodules.model import Encoder
from ldm.modules.x_transformer import Attention
from ldm.rng import PairNoise, generator, seed_of
from ldm.util import get_obj_from_str, instantiate_from_config, not_offered


def test_a_config_becomes_an_object() -> None:
    made = instantiate_from_config({"target": "torch.nn.Linear", "params": {"in_features": 2}}, out_features=3)
    assert isinstance(made, nn.Linear)
    assert made.weight.shape == (3, 2)
    assert isinstance(instantiate_from_config({"target": "torch.nn.Identity"}), nn.Identity)
    assert isinstance(instantiate_from_config({"target": "torch.nn.ReLU", "base_learning_rate": 1e-3}), nn.ReLU)
    assert get_obj_from_str("torch.nn.Linear") is nn.Linear
    assert get_obj_from_str("ldm.lr_scheduler.LambdaLinearScheduler") is LambdaLinearScheduler


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"params": {}}, "has no target"),
        ({"target": "Linear"}, "not a dotted path"),
        ({"target": "torch.nn.Linea"}, "torch.nn has no Linea"),
        ({"target": "ldm.modules.absent.Thing"}, "no module ldm.modules.absent"),
        ({"target": "torch.nn.Linear", "parms": {}}, "unknown config key parms"),
        ({"target": "torch.nn.Linear", "params": {"in_features": 2, "width": 3}}, "unknown config key width"),
        ({"target": "torch.nn.Linear", "params": {"in_features": 2}}, "needs the config key out_features"),
    ],
)
def test_bad_configs_are_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        instantiate_from_config(config)


def test_what_is_not_offered() -> None:
    not_offered(a=None, b=False, c=0, d=0.0, e=())
    with pytest.raises(UserError, match=r"b=0\.5 is not offered; leave the key out"):
        not_offered(a=None, b=0.5)


def test_learning_rate_cycles_by_hand() -> None:
    s = LambdaLinearScheduler([10, 0], f_min=[0.1, 0.5], f_max=[1.0, 2.0], f_start=[0.0, 0.0], cycle_lengths=[100, 50])
    expected = {0: 0.0, 5: 0.5, 10: 0.1 + 0.9 * 0.9, 60: 0.1 + 0.9 * 0.4, 100: 0.1, 125: 0.5 + 1.5 * 0.5, 150: 0.5}
    assert {n: s.schedule(n) for n in expected} == pytest.approx(expected)
    assert s.schedule(10**6) == 0.5  # after the last cycle its end stays


def test_learning_rate_on_a_cosine_by_hand() -> None:
    s = LambdaWarmUpCosineScheduler(10, lr_min=0.1, lr_max=0.9, lr_start=0.2, max_decay_steps=40)
    expected = {0: 0.2, 5: 0.55, 10: 0.9, 20: 0.5 + 0.4 * 0.5, 25: 0.5, 40: 0.1, 99: 0.1}
    assert {n: s.schedule(n) for n in expected} == pytest.approx(expected)


def test_an_optimizer_follows_its_schedule() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    assert scheduled(optimizer, None) is optimizer
    params = {"warm_up_steps": [4], "f_min": [1.0], "f_max": [1.0], "f_start": [0.5], "cycle_lengths": [100]}
    both = scheduled(optimizer, {"target": "ldm.lr_scheduler.LambdaLinearScheduler", "params": params})
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([1.0, 1.25, 1.5, 1.75, 2.0, 2.0])
    assert both["lr_scheduler"]["interval"] == "step"


def test_random_numbers_depend_on_their_key_alone() -> None:
    assert seed_of(1, 2) == seed_of(1, 2)
    assert len({seed_of(a, b) for a in range(30) for b in range(30)}) == 900
    assert_close(torch.randn(3, generator=generator(4, 5)), torch.randn(3, generator=generator(4, 5)))
    x = torch.zeros(3, 2, 4, dtype=torch.bfloat16)
    whole = PairNoise([generator(i) for i in range(3)])(x)
    alone = PairNoise([generator(1)])(x[:1])
    assert whole.dtype == torch.bfloat16
    assert_close(whole[1:2], alone, rtol=0, atol=0)


def test_a_hidden_token_attends_evenly_as_published() -> None:
    layer = Attention(8, heads=2, dim_head=3).double()
    x = torch.randn(1, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, False, False]])
    seen = mask[:, :, None] & mask[:, None, :]
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        q, k, v = layer.to_q(x)[..., part], layer.to_k(x)[..., part], layer.to_v(x)[..., part]
        score = (q @ k.transpose(1, 2) / math.sqrt(3)).masked_fill(~seen, -torch.finfo(q.dtype).max)
        heads.append(score.softmax(-1) @ v)
    assert_close(layer(x, mask), layer.to_out(torch.cat(heads, -1)))


def test_first_stage_options_that_are_not_here() -> None:
    dd: dict[str, Any] = {
        "double_z": False, "z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": [],
    }  # fmt: skip
    for option in ({"use_ema": True}, {"batch_resize_range": [8, 16]}, {"lr_g_factor": 2.0}):
        with pytest.raises(UserError, match=f"{next(iter(option))}=.* is not offered"):
            VQModel(dd, {"target": "torch.nn.Identity"}, n_embed=4, embed_dim=4, **option)  # type: ignore[arg-type]
    VQModel(dd, {"target": "torch.nn.Identity"}, n_embed=4, embed_dim=4, batch_resize_range=None, lr_g_factor=1.0)
    with pytest.raises(UserError, match="ch=16 times ch_mult gives 16 channels"):
        Encoder(**dd | {"ch": 16, "ch_mult": [2]})
    assert np.isfinite(float(Encoder(**dd)(torch.zeros(1, 3, 8, 8)).sum().detach()))
