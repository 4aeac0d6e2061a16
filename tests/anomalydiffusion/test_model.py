"""AnomalyDiffusion: its parts against hand-worked numbers, its loss and sampling on a tiny base, its artifact."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fast.anomalydiffusion.location import IR50, LocationEncoder, SmallLocationEncoder, TokenHead, picture_of
from fast.anomalydiffusion.model import AnomalyDiffusion
from fast.anomalydiffusion.prompts import TEMPLATES, templates_of
from fast.anomalydiffusion.weights import code_weights, dilated, dilation_radius, paper_weights
from fast.artifact import find_artifact, load_model
from fast.latent.prompted import SamplingInputs
from fast.synthesis.engine import Engine
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError
from ldm.rng import PairNoise
from support.batches import batch
from support.images import mask as round_mask
from support.images import picture
from support.synthesis import plain_recipe
from support.tiny import TYPES, randomize

SIDE = 32
# A 4 x 4 latent of two channels, clean and as it is; four cells are in the mask.
MASK = torch.zeros(1, 1, 4, 4)
MASK[0, 0, 1:3, 1:3] = 1
NORMAL = torch.zeros(1, 2, 4, 4)
STATE = torch.full((1, 2, 4, 4), 7.0)
STATE[0, :, 1:3, 1:3] = torch.tensor([[[1.0, 1.0], [2.0, 2.0]], [[1.0, 1.0], [2.0, 4.0]]])
D = np.array([1.0, 1.0, 4.0, 10.0])  # channel means of the squared difference in the four cells


@pytest.fixture
def section(tiny_fast_config: dict[str, Any], tiny_base: Path) -> dict[str, Any]:
    """`model:` of AnomalyDiffusion on the tiny base."""
    params = {k: v for k, v in tiny_fast_config["params"].items() if k not in ("farm", "aias", "prompt_tokens")}
    params |= {"types": TYPES, "ckpt_path": str(tiny_base), "location": "small", "steps": 4}
    return {"target": "fast.anomalydiffusion.model.AnomalyDiffusion", "params": params}


def built(section: dict[str, Any], **more: Any) -> AnomalyDiffusion:
    model = AnomalyDiffusion(**section["params"], **more)
    randomize(model.prompts, 2)
    randomize(model.location, 3)
    return model


# the location encoder


def test_published_parameter_counts() -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        whole = LocationEncoder(1280, 4)
        assert count(whole) == 356_019_392
        assert count(IR50()) == 30_727_360
        assert count(TokenHead(1280)) == 81_273_600
        features = whole.backbone(torch.empty(1, 3, 256, 256))
        assert [tuple(f.shape[1:]) for f in features] == [(128, 64, 64), (256, 32, 32), (512, 16, 16)]
        assert whole(torch.empty(2, 1, 300, 200)).shape == (2, 4, 1280)
        assert count(SmallLocationEncoder(128, 4)) == 549_328


def test_the_mask_is_seen_as_a_picture() -> None:
    mask = torch.zeros(1, 1, 512, 256)
    mask[0, 0, :3, :1] = 1  # one cell of 2 x 1 pixels, and half of the next
    seen = picture_of(mask)
    assert seen.shape == (1, 3, 256, 256)
    assert seen[0, :, :3, 0].tolist() == [[1.0, 0.0, -1.0]] * 3
    assert seen[0, :, :, 1:].unique().tolist() == [-1.0]


def test_the_small_encoder_tells_places_apart() -> None:
    torch.manual_seed(0)
    encoder, masks = SmallLocationEncoder(16, 3), torch.zeros(2, 1, 64, 64)
    masks[0, :, 4:20, 4:20] = 1
    masks[1, :, 40:56, 40:56] = 1
    out = encoder(masks)
    assert out.shape == (2, 3, 16)
    assert (out[0] - out[1]).abs().max() > 1e-3


# adaptive attention re-weighting


@pytest.mark.parametrize(("t", "radius"), [(999, 8), (900, 8), (899, 7), (500, 4), (25, 1), (24, 0), (0, 0)])
def test_the_mask_grows_with_the_noise(t: int, radius: int) -> None:
    assert dilation_radius(t, 32) == radius
    grown = dilated(torch.eye(1)[None, None] * torch.nn.functional.pad(torch.ones(1, 1), (9, 9, 9, 9)), radius)
    assert grown.sum() == (2 * radius + 1) ** 2


def test_the_code_s_weights_by_hand() -> None:
    near = 4 * (1 / D) / (1 / D).sum()
    assert near[0] > 1.5  # both ends of the clamp are met
    assert near[3] < 1
    weights = code_weights(STATE, NORMAL, MASK)
    expected = np.ones((4, 4))
    expected[1:3, 1:3] = near.clip(1, 1.5).reshape(2, 2)
    assert_close(weights[0, 0].numpy(), expected.astype(np.float32))


def test_the_paper_s_weights_by_hand() -> None:
    f = 1 / (2 * D)  # of the squared length over two channels
    weights = paper_weights(STATE, NORMAL, MASK)
    expected = np.ones((4, 4))
    expected[1:3, 1:3] = (4 * np.exp(f) / np.exp(f).sum()).reshape(2, 2)
    assert_close(weights[0, 0].numpy(), expected.astype(np.float32))


def test_cells_without_difference_and_windows_without_mask() -> None:
    state = STATE.clone()
    state[0, :, 1, 1] = 0
    assert paper_weights(state, NORMAL, MASK)[0, 0, 1, 1] == 0
    assert torch.equal(paper_weights(NORMAL, NORMAL, MASK), torch.ones_like(MASK))
    assert code_weights(state, NORMAL, MASK)[0, 0, 1, 1] == 1.5
    for weights in (code_weights, paper_weights):
        assert torch.equal(weights(STATE, NORMAL, torch.zeros_like(MASK)), torch.ones_like(MASK))


def test_finer_latents_grow_as_much_and_end_as_they_are() -> None:
    assert [dilation_radius(t, 64) for t in (999, 500, 25, 24, 0)] == [16, 8, 2, 0, 0]


# prompts


def seen_embeddings(model: AnomalyDiffusion, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    seen: list[Tensor] = []
    monkeypatch.setattr(model.cond_stage_model, "encode_embeddings", lambda e: seen.append(e) or e)
    return seen


@pytest.mark.parametrize("template", [None, "* on a stone", "a photo of a * on a stone by a river under a tree"])
def test_vectors_take_the_star_s_place(
    template: str | None, section: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(section, templates=None if template is None else [template])
    encoder, index, located = model.cond_stage_model, TYPES.index("wood/scratch"), torch.randn(1, 4, 32)
    seen = seen_embeddings(model, monkeypatch)
    model.prompts(encoder, torch.tensor([index]), located)
    before, _, after = (template or "wood scratch*").partition("*")
    ids = [encoder.start_id, *encoder.tokenizer.pieces(before)]
    behind = [*(encoder.tokenizer.pieces(after) if after else [])][: 24 - len(ids) - 8 - 1]
    rest = [*behind, encoder.end_id]
    rest += [encoder.pad_id] * (24 - len(ids) - 8 - len(rest))
    words = encoder.embed_tokens(torch.tensor([*ids, *rest]))
    expected = torch.cat([words[: len(ids)], model.prompts.vectors[index], located[0], words[len(ids) :]])
    assert_close(seen[0][0], expected, rtol=0, atol=0)
    columns = model.placeholder(torch.tensor([index]))
    assert columns.shape == (1, 24)
    assert columns[0].nonzero().flatten().tolist() == list(range(len(ids), len(ids) + 8))


def test_words_give_way_to_vectors(section: dict[str, Any]) -> None:
    model = built(section, templates=["a " * 40 + "*"])
    columns = model.placeholder(torch.tensor([0]))[0]
    assert columns.nonzero().flatten().tolist() == list(range(15, 23))  # the end token behind them


def test_training_draws_templates_by_seed_and_synthesis_takes_the_first(
    section: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(section, templates=12, drop_prompt=0.0)
    seen = seen_embeddings(model, monkeypatch)
    rows = {"mask": batch()["mask"][:1].expand(24, -1, -1, -1), "type": torch.zeros(24, dtype=torch.long)}
    model.conditioning({**rows, "seed": torch.arange(24)})
    model.conditioning({**rows, "seed": torch.arange(24)})
    assert torch.equal(seen[0], seen[1])
    assert len({row.numpy().tobytes() for row in seen[0].detach()}) > 5
    model.window_prompts(rows["type"], rows["mask"])
    assert all(torch.equal(row, seen[2][0]) for row in seen[2])


def test_templates() -> None:
    assert templates_of(2) == TEMPLATES[:2]
    assert all(t.count("*") == 1 for t in TEMPLATES)
    for wrong in (0, 99, ["no star"], []):
        with pytest.raises(UserError, match=r"model\.params\.templates"):
            templates_of(wrong)


# training


def test_the_loss_counts_the_mask_alone(section: dict[str, Any]) -> None:
    model, given = built(section), batch()
    loss, _ = model.loss(given)
    x0 = model.scale_factor * given["latent"]
    t, eps = model.draw(given, x0)
    m = torch.nn.functional.max_pool2d(given["mask"], 4)
    bar = torch.tensor([model.schedule.alpha_bar(int(n)) for n in t])[:, None, None, None].float()
    x_t = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
    predicted = model.apply_model(x_t, t - 1, model.conditioning(given))
    inside = m.bool().expand_as(x0)
    assert_close(loss, (predicted - eps)[inside].square().sum() / x0.numel())


def test_gradients_reach_the_vectors_and_the_encoder_alone(section: dict[str, Any]) -> None:
    model = built(section).train()
    model.loss(batch())[0].backward()
    own = ("prompts.", "location.")
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {name for name, _ in model.named_parameters() if name.startswith(own)}
    assert {id(p) for p in model.trainable()} == {id(p) for n, p in model.named_parameters() if n.startswith(own)}


# synthesis


def place(model: AnomalyDiffusion, denoise: Any, steps: int = 4, seed: int = 1) -> SamplingInputs:
    mask = torch.zeros(1, 1, 8, 8)
    mask[:, :, 2:5, 3:6] = 1
    background = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    noise = PairNoise([torch.Generator().manual_seed(seed)])
    return SamplingInputs(mask, background, torch.zeros(1, 24, 32), background, noise, "ddim", steps, denoise, {})


def test_the_surroundings_are_the_normal_picture_before_every_call(section: dict[str, Any]) -> None:
    """A network that knows the noise of the true background: whatever it makes of the defect, every state it is asked
    of, the first and the last too, has the normal picture around the mask. What comes back there is its answer."""
    model = built(section)
    times: list[int] = []
    around: list[float] = []

    def denoise(x: Tensor, t: Tensor, *, weights: Tensor | None, form: str) -> Tensor:
        assert weights is None
        times.append(int(t[0]))
        eps = model.schedule.predict_eps(x, t + 1, given.background)
        around.append(float(eps[(given.mask == 0).expand_as(eps)].std()))
        return torch.where(given.mask.bool(), 0, eps)

    given = place(model, denoise)
    out = model.fill(given)
    assert times == [751, 501, 251, 1]
    assert all(0.8 < std < 1.2 for std in around), "noised by unit noise, so nothing but the background is there"
    outside = (given.mask == 0).expand_as(out)
    sigma = (1 - float(model.schedule.alpha_bar(1))) ** 0.5
    assert (out - given.background)[outside].std() < 2 * sigma
    assert (out - given.background)[outside].abs().min() > 0, "the network's, with the noise of the last step"
    assert (out - given.background)[~outside].std() > 10 * sigma


@pytest.mark.parametrize(("reweight", "weighted"), [(None, []), ("code", [0, 1, 2, 3]), ("paper", [1, 2, 3])])
def test_weights_are_handed_over_by_the_chosen_form(
    section: dict[str, Any], reweight: str | None, weighted: list[int]
) -> None:
    model = built(section, reweight=reweight)
    seen: list[Tensor | None] = []
    forms: list[str] = []

    def denoise(x: Tensor, t: Tensor, *, weights: Tensor | None, form: str) -> Tensor:
        seen.append(weights)
        forms.append(form)
        return 0.5 * x

    given = place(model, denoise)
    model.fill(given)
    assert [i for i, w in enumerate(seen) if w is not None] == weighted
    # 8 cells a side: radius floor((t + 100) * 2 / 1000)
    reach = [1, 1, 0, 0] if reweight == "code" else [0] * 4
    for i in weighted:
        w = seen[i]
        assert w is not None
        inside = torch.nn.functional.max_pool2d(given.mask, 2 * reach[i] + 1, 1, reach[i]).bool()
        assert (w[~inside] == 1).all()
        assert (w[inside] != 1).any()
    assert set(forms) == {"map" if reweight == "paper" else "scores"}
    # A run may choose otherwise than the training did.
    seen.clear()
    model.fill(replace(given, options={"reweight": "code"}))
    assert all(w is not None for w in seen)
    with pytest.raises(UserError, match="reweight=much is unknown"):
        model.fill(replace(given, options={"reweight": "much"}))


@pytest.mark.parametrize("reweight", [None, "code"])
def test_the_engine_makes_pairs(section: dict[str, Any], reweight: str | None) -> None:
    engine = Engine(built(section, reweight=reweight), plain_recipe(SIDE, sampler="ddim", steps=2))
    made, again, other = (
        engine.generate([picture(1)], [round_mask()], [kind], [seed])[0] for kind, seed in ((0, 1), (0, 1), (5, 1))
    )
    assert np.array_equal(made, again)
    assert (made != other).any()
    moved = engine.generate([picture(1)], [np.roll(round_mask(), 8, axis=1)], [0], [1])[0]
    assert (made != moved).any()


def test_an_artifact_comes_back(section: dict[str, Any], tmp_path: Path) -> None:
    model = built(section)
    name, tensors = model.artifact()
    assert name == "anomalydiffusion"
    metadata = {"step": "2", "config": json.dumps({"model": section}), "split": "s", **model.artifact_metadata()}
    save_safetensors(tensors, tmp_path / "anomalydiffusion-2.safetensors", metadata)
    back = load_model(find_artifact(tmp_path, name=name))
    assert_close(back.loss(batch())[0], model.loss(batch())[0], rtol=0, atol=0)
    assert back.evaluations(section["params"]) == 4
    assert back.evaluations({}) == 200


def test_other_types_keep_what_is_known(section: dict[str, Any]) -> None:
    model = built(section)
    before = model.window_prompts(torch.tensor([5]), batch()["mask"][:1])
    model.set_classes(["leather/crack", TYPES[5]])
    assert torch.equal(model.window_prompts(torch.tensor([1]), batch()["mask"][:1]), before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"location": "big"}, "location=big"), ({"reweight": "both"}, "reweight=both"), ({"location_tokens": 20}, "fit")],
)
def test_options_that_do_not_fit(wrong: dict[str, Any], message: str, section: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=message):
        AnomalyDiffusion(**{**section["params"], **wrong})
