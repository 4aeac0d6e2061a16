"""RealNet: its diffusion model's size, chain and loss against independent figures; its pairs end to end."""

import copy
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.testing import assert_close

from fast.data.layouts import open_dataset
from fast.generators import create
from fast.generators.realnet import Library, RealNetGenerator
from fast.generators.sdas import SDAS, Chain, log_likelihood, variational_bound
from fast.training.config import check_config, merge, resolved
from ldm.checkpoint import read_checkpoint, save_safetensors
from ldm.errors import UserError
from ldm.models.diffusion.samplers import ddpm
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.rng import PairNoise, generator
from support.paths import ROOT
from support.tiny import MATERIALS, randomize
from support.training import artifact, assert_same_run, door, losses

SCHEDULE = NoiseSchedule(np.linspace(1e-4, 0.02, 1000))
MODEL: dict[str, Any] = {
    "target": "fast.generators.sdas.SDAS",
    "params": {
        "image_size": 16,
        "ema_decay": 0.9,
        "lr": 1e-3,
        "categories": list(MATERIALS),
        "unet": {
            "model_channels": 32,
            "channel_mult": [1, 1],
            "num_res_blocks": 1,
            "attention_resolutions": [2],
            "num_head_channels": 16,
            "use_scale_shift_norm": True,
            "resblock_updown": True,
            "patch_size": 2,
        },
    },
}


def model_section(**params: Any) -> dict[str, Any]:
    section = copy.deepcopy(MODEL)
    section["params"] |= params
    return section


def tiny(**params: Any) -> SDAS:
    """A model of 16 pixels whose random network answers with about unit noise, not with zeros."""
    model = SDAS(**model_section(**params)["params"])
    randomize(model.unet, 3)
    return model.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with an artifact of the tiny model, as main.py writes one. Read only."""
    folder, model = tmp_path_factory.mktemp("realnet"), tiny(use_ema=False)
    meta = {"step": "4", "split": "all", "config": json.dumps({"model": MODEL}), **model.artifact_metadata()}
    save_safetensors(model.artifact()[1], folder / "checkpoints" / "sdas-4.safetensors", meta)
    return folder


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def pair(made: RealNetGenerator, image: np.ndarray, seed: int, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    return made.synthesize(image, given.get("mask"), np.random.default_rng(seed), given.get("anomaly", "wood/hole"))


# the model


def test_parameters_of_the_published_model() -> None:
    config = resolved(merge([ROOT / "configs/methods/full/realnet.yaml"]))
    params = config["model"]["params"] | {"categories": [f"c{i}" for i in range(15)], "use_ema": False}
    with torch.device("meta"):
        model = SDAS(**params)
    assert sum(p.numel() for p in model.parameters()) == 552_829_446
    assert set(model.artifact()[1]) == set(model.unet.state_dict())
    assert_close(model.schedule.betas, SCHEDULE.betas)


@pytest.mark.parametrize("name", ["realnet.yaml", "full/realnet.yaml"])
def test_recipes_resolve(name: str) -> None:
    config = resolved(merge([ROOT / "configs/methods" / name]))
    check_config(config)
    assert config["model"]["params"]["image_size"] == config["data"]["params"]["size"]


def test_respaced_chain_keeps_the_noise_levels() -> None:
    chain = Chain.respaced(SCHEDULE, 20)
    assert chain.times.tolist() == list(range(0, 1000, 50))
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    assert_close(np.array([chain.schedule.alpha_bar(k + 1) for k in range(20)]), bar[::50])
    assert Chain.respaced(SCHEDULE, 7).times.tolist() == [0, 142, 285, 428, 571, 714, 857]
    for steps in (0, 1001):
        with pytest.raises(UserError, match=r"outside 1\.\.1000"):
            Chain.respaced(SCHEDULE, steps)


def test_bound_against_numbers_by_hand() -> None:
    """Index 400: the divergence of two Gaussians, by its closed form in numpy. Index 0: the mass of a grey level."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    x0, x, eps, v = 0.2, -0.7, 0.4, 0.3
    t = 400
    variance = betas[t] * (1 - bar[t - 1]) / (1 - bar[t])
    own = np.exp((v + 1) / 2 * np.log(betas[t]) + (1 - v) / 2 * np.log(variance))

    def mean(clean: float) -> float:
        return (
            np.sqrt(bar[t - 1]) * betas[t] * clean + np.sqrt(1 - betas[t]) * (1 - bar[t - 1]) * x
        ) / (1 - bar[t])  # fmt: skip

    guess = (x - np.sqrt(1 - bar[t]) * eps) / np.sqrt(bar[t])
    apart = (mean(x0) - mean(guess)) ** 2
    late = (np.log(own / variance) + (variance + apart) / own - 1) / 2 / np.log(2)

    # At index 0 the mean is the estimate of x0 itself; the variance lies between beta_1 and that of the next step.
    low = betas[1] * (1 - bar[0]) / (1 - bar[1])
    sigma = math.sqrt(math.exp((v + 1) / 2 * math.log(betas[0]) + (1 - v) / 2 * math.log(low)))
    pixel, near = 51 / 127.5 - 1, -0.59
    centre = (near - math.sqrt(betas[0]) * eps) / math.sqrt(bar[0])

    def cdf(z: float) -> float:
        return (1 + math.erf((z - centre) / sigma / math.sqrt(2))) / 2

    first = -math.log2(cdf(pixel + 1 / 255) - cdf(pixel - 1 / 255))

    def full(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    chain, k = Chain(SCHEDULE, np.arange(1000)), torch.tensor([t, 0])
    found = variational_bound(chain, full(x0, pixel), full(x, near), k, full(eps, eps), full(v, v))
    assert_close(found, torch.tensor([late, first], dtype=torch.float64), rtol=1e-9, atol=0)


def test_probabilities_of_all_grey_levels_sum_to_one() -> None:
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, deviation in ((0.3, 0.1), (-0.99, 0.5), (0.0, 0.004)):
        log = log_likelihood(levels, torch.tensor(mean), torch.tensor(2 * math.log(deviation), dtype=torch.float64))
        assert float(log.exp().sum()) == pytest.approx(1, abs=1e-9)


def test_bound_trains_the_variance_alone() -> None:
    model = tiny()
    batch = {
        "image": torch.rand(2, 3, 16, 16, generator=generator(1)) * 2 - 1,
        "category": torch.tensor([0, 1]),
        "seed": torch.tensor([5, 6]),
    }
    head = model.unet.out[-1]
    loss, parts = model.loss(batch)
    assert_close(loss, parts["loss_simple"] + parts["loss_vlb"])
    parts["loss_vlb"].backward()
    grad = head.bias.grad.reshape(6, -1)  # of a pixel's channels: three of noise, three of v, by cells of the patch
    assert not grad[:3].any()
    assert grad[3:].any()
    small = tiny(predict_variance=False)
    loss, parts = small.loss(batch)
    assert set(parts) == {"loss_simple"}
    assert small.unet.out_channels == 3
    alone = {name: value[1:] for name, value in batch.items()}
    both = tiny(predict_variance=False).draw(batch, batch["image"])
    for one, of_two in zip(small.draw(alone, alone["image"]), both, strict=True):
        assert torch.equal(one[0], of_two[1])  # whatever its batch


def test_starts_from_published_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tiny(categories=[f"c{i}" for i in range(5)])
    path = tmp_path / "openai.pt"
    torch.save(source.unet.state_dict(), path)
    model = SDAS(**model_section(ckpt_path=str(path))["params"])
    assert "label_emb.weight is (5, 128), here (2, 128); it starts fresh" in capsys.readouterr().out
    for name, value in model.unet.state_dict().items():
        assert torch.equal(value, source.unet.state_dict()[name]) == (name != "label_emb.weight")
    with pytest.raises(UserError, match="2 of another shape"):  # the last layer's weights and bias
        SDAS(**model_section(ckpt_path=str(path), predict_variance=False)["params"])
    with pytest.raises(UserError, match="categories is empty"):
        SDAS(**model_section(categories=[])["params"])


# sampling


class Constant(nn.Module):
    """A network that sees no picture: `eps` and `v` at every pixel."""

    def __init__(self, eps: float, v: float):
        super().__init__()
        self.eps, self.v = eps, v

    def forward(self, x: Tensor, time: Tensor, y: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x, self.eps), torch.full_like(x, self.v)], dim=1)


def test_without_strength_it_is_plain_ancestral_sampling() -> None:
    model = tiny(predict_variance=False)
    labels = torch.tensor([0, 1])
    found = model.sample(labels, 0.0, [generator(1), generator(2)], steps=9)
    chain, noise = Chain.respaced(SCHEDULE, 9), PairNoise([generator(1), generator(2)])

    def denoise(x: Tensor, k: Tensor) -> Tensor:
        eps = model.unet(x, torch.as_tensor(chain.times)[k], y=labels)
        x0 = chain.schedule.predict_x0(x, k + 1, eps).clamp(-1, 1)
        return chain.schedule.predict_eps(x, k + 1, x0)

    with torch.no_grad():
        plain = ddpm(denoise, chain.schedule, noise(torch.empty_like(found)), noise=noise)
    assert_close(found, plain, rtol=0, atol=2e-5)
    assert not torch.allclose(found, model.sample(labels, 0.2, [generator(1), generator(2)], steps=9), atol=1e-2)


@pytest.mark.parametrize(("sampler", "share"), [("ancestral", 1.3), ("ddim", 0.3)])
def test_variance_of_the_added_noise(sampler: str, share: float) -> None:
    """Two steps under a network that says eps = 0: x at 500 is clean / sqrt(bar) clipped, its noise is known."""
    model = tiny(image_size=64)
    model.unet = Constant(0.0, -0.4)
    seen: list[Tensor] = []
    model.unet.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    model.sample(torch.tensor([0]), 0.3, [generator(4)], steps=2, sampler=sampler)
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    beta = 1 - bar[500] / bar[0]
    low = beta * (1 - bar[0]) / (1 - bar[500])
    v = math.exp(0.3 * math.log(beta) + 0.7 * math.log(low))  # (v + 1) / 2 = 0.3
    start, end = seen
    x0 = (start / math.sqrt(bar[500])).clamp(-1, 1)
    if sampler == "ancestral":
        mean = (math.sqrt(bar[0]) * beta * x0 + math.sqrt(1 - beta) * (1 - bar[0]) * start) / (1 - bar[500])
    else:
        eps = (start - math.sqrt(bar[500]) * x0) / math.sqrt(1 - bar[500])
        mean = math.sqrt(bar[0]) * x0 + math.sqrt(1 - bar[0]) * eps
    noise = (end - mean) / math.sqrt(share * v)
    assert float(noise.square().mean()) == pytest.approx(1, abs=0.03)  # 12288 values: one sigma is 0.013
    assert abs(float(noise.mean())) < 0.03


def test_sampling_refuses_bad_options() -> None:
    for options in ({"sampler": "plms"}, {"strength": -0.1}, {"strength": math.nan}, {"steps": 0}):
        with pytest.raises(UserError):
            tiny().sample(torch.tensor([0]), **({"strength": 0.1, "generators": [generator(1)]} | options))


# pairs


@pytest.mark.parametrize("pool", [0, 3])
def test_pairs(weights: Path, image: np.ndarray, pool: int) -> None:
    before = image.copy()
    made = create("realnet", weights=weights, pool=pool, steps=3)
    first, mask = pair(made, image, 1)
    assert first.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
    assert np.array_equal(first[mask == 0], before[mask == 0])
    assert (first[mask == 1] != before[mask == 1]).any()
    assert np.array_equal(image, before)
    pair(made, image, 2)
    other = create("realnet", weights=weights / "checkpoints" / "sdas-4.safetensors", pool=pool, steps=3)
    again, same = pair(other, image, 1)
    assert np.array_equal(again, first)
    assert np.array_equal(same, mask)
    assert made.settings() == other.settings() == json.loads(json.dumps(made.settings()))
    assert made.settings() != create("realnet", weights=weights, pool=pool, steps=4).settings()


def test_opacity_strength_and_a_given_mask(weights: Path, image: np.ndarray) -> None:
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[5:20, 10:30] = 255
    options: dict[str, Any] = {"weights": weights, "steps": 2, "pool": 1, "vary": False, "strength": 0.15}
    whole, used = pair(create("realnet", opacity=1, **options), image, 3, mask=mask)
    half, _ = pair(create("realnet", opacity=[0.5, 0.5], **options), image, 3, mask=mask)
    assert np.array_equal(used, mask // 255)
    inside = mask > 0
    expected = (image[inside].astype(float) + whole[inside]) / 2
    assert np.abs(half[inside] - expected).max() <= 0.5
    with pytest.raises(UserError, match="mask is empty"):
        pair(create("realnet", **options), image, 3, mask=np.zeros_like(mask))


def test_a_pool_is_drawn_once_and_in_any_order(weights: Path) -> None:
    options: dict[str, Any] = {"weights": weights, "steps": 2, "pool": 4}
    one, other = create("realnet", **options), create("realnet", **options)
    forth = [one._library.get(1, k) for k in range(4)]
    back = [other._library.get(1, k) for k in (3, 2, 1, 0)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forth, back, strict=True))
    assert not np.array_equal(forth[0], forth[1])
    assert not np.array_equal(forth[0], one._library.get(0, 0))

    calls: list[tuple[int, int]] = []

    def make(label: int, number: int) -> np.ndarray:
        calls.append((label, number))
        return np.full((1, 1), number)

    library = Library(make)
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda k: int(library.get(0, k % 5)[0, 0]), range(60)))
    assert got == [k % 5 for k in range(60)]
    assert sorted(calls) == [(0, k) for k in range(5)]


def test_the_part_from_a_file(weights: Path, image: np.ndarray, tmp_path: Path) -> None:
    from fast.data.images import write_mask

    left = np.zeros((20, 28), np.uint8)
    left[:, :14] = 1
    write_mask(tmp_path / "part.png", left)
    made = create("realnet", weights=weights, steps=1, foreground=str(tmp_path / "part.png"))
    masks = [pair(made, image, seed)[1] for seed in range(4)]
    assert all(m[:, :28].any() and not m[:, 28:].any() for m in masks)


def test_categories(weights: Path, image: np.ndarray) -> None:
    options: dict[str, Any] = {"weights": weights, "steps": 2, "pool": 1}
    made = create("realnet", **options)
    by_type, _ = pair(made, image, 1, anomaly="leather/hole")
    assert not np.array_equal(by_type, pair(made, image, 1, anomaly="wood/hole")[0])
    by_option = create("realnet", category="leather", **options).synthesize(image, None, np.random.default_rng(1))
    assert np.array_equal(by_type, by_option[0])
    with pytest.raises(UserError, match=r"category .carpet. is not among .* leather, wood"):
        pair(made, image, 1, anomaly="carpet/hole")
    with pytest.raises(UserError, match="category=carpet is not among"):
        create("realnet", category="carpet", **options)
    with pytest.raises(UserError, match="say which with category=NAME"):
        made.synthesize(image, None, np.random.default_rng(1))
    with pytest.raises(UserError, match="has learned nothing yet"):
        create("realnet").synthesize(image, None, np.random.default_rng(1))


def test_foreign_and_bad_input(weights: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no sdas-<step>\.safetensors"):
        create("realnet", weights=tiny_artifact)
    with pytest.raises(UserError, match="is no artifact of SDAS"):
        create("realnet", weights=tiny_artifact / "checkpoints" / "fast-3.safetensors")
    (tmp_path / "sdas-1.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="is damaged or not safetensors"):
        create("realnet", weights=tmp_path)
    wrong = [{"strength": [0.3, 0.1]}, {"opacity": 2}, {"steps": 0}, {"pool": -1}, {"foreground": "magic"}]
    for options in (*wrong, {"device": "abacus"}, {"sampler": "plms"}):
        with pytest.raises(UserError):
            create("realnet", weights=weights, **options)


# training


def test_trains_resumes_and_makes_pairs(drawn_root: Path, tmp_path: Path) -> None:
    data = {"use": "normals", "cache": False, "size": 16, "batch_size": 2, "path": str(drawn_root)}
    trainer = {"max_steps": 4, "precision": "32", "log_every_n_steps": 1, "accelerator": "cpu"}
    trainer |= {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}
    lightning = {"trainer": trainer, "checkpoint_every": 2, "images_every": 4, "tensorboard": False}
    model = model_section()
    del model["params"]["categories"]  # the door takes them from the data
    config = {"model": model, "data": {"target": "fast.data.module.DefectData", "params": data}, "lightning": lightning}
    path = tmp_path / "recipe.yaml"
    OmegaConf.save(OmegaConf.create(config), path)
    assert door("-b", path, "-t", "-n", "whole", "-l", tmp_path) == 0
    assert door("-b", path, "-t", "-n", "cut", "-l", tmp_path, "--max_steps", 2) == 0
    assert door("-r", tmp_path / "cut", "-t", "--max_steps", 4) == 0
    assert [row["step"] for row in losses(tmp_path / "whole")] == list("1234")
    assert_same_run(tmp_path / "whole", tmp_path / "cut", 4)
    kept = read_checkpoint(tmp_path / "whole/checkpoints/last.ckpt")["state_dict"]
    assert int(kept["ema.num_updates"]) == 4  # steps, not batches
    averaged = artifact(tmp_path / "whole", 4)["out.2.weight"]
    assert torch.equal(averaged, kept["ema.out2weight"])
    assert not torch.equal(averaged, kept["unet.out.2.weight"])
    assert (tmp_path / "whole/images/0000004.png").is_file()
    normal = open_dataset(drawn_root).normals[0]
    from fast.data.images import read_image

    made, mask = pair(create("realnet", weights=tmp_path / "cut", steps=2, pool=1), read_image(normal.image), 1)
    assert made.shape[:2] == mask.shape == (64, 64)


def test_a_network_that_says_v_is_asked_for_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """v = sqrt(abar) eps - sqrt(1 - abar) x0: a network that says it exactly makes no error, at any time."""
    model, x0, index = tiny(parameterization="v"), torch.rand(3, 3, 16, 16) * 2 - 1, torch.tensor([0, 400, 999])
    batch = {"image": x0, "category": torch.zeros(3, dtype=torch.long), "seed": torch.arange(3)}
    _, noise = model.draw(batch, x0)
    bar = torch.tensor([SCHEDULE.alpha_bar(int(i) + 1) for i in index]).float().reshape(-1, 1, 1, 1)
    exact = bar.sqrt() * noise - (1 - bar).sqrt() * x0
    off = torch.zeros_like(x0)
    monkeypatch.setattr(model, "draw", lambda *_: (index, noise))
    monkeypatch.setattr(model.unet, "forward", lambda x, time, y: torch.cat([exact + off, torch.zeros_like(x)], dim=1))
    model.vlb_weight = 0.0
    assert float(model.loss(batch)[0]) < 1e-6
    off += 0.1
    assert_close(float(model.loss(batch)[1]["loss_simple"]), 0.01, rtol=1e-3, atol=0)
    with pytest.raises(UserError, match="parameterization=x0 is unknown; use eps or v"):
        tiny(parameterization="x0")
