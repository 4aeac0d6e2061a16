"""The published segmenters against their published sizes, their losses against hand-worked pictures, their weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fast.segmentation import build
from fast.segmentation.bisenetv2 import Context, Expand, Stem
from fast.segmentation.layers import Heads
from fast.segmentation.losses import detail, detail_target, objective, ohem
from fast.segmentation.networks import inference_parameters, save
from fast.segmentation.recipes import COMMON, PUBLISHED, find
from fast.segmentation.stdc import STDC, Backbone
from ldm.errors import UserError

META = torch.device("meta")


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def made(name: str, num_classes: int = 2) -> nn.Module:
    with META:
        return build(name, num_classes)


@pytest.mark.parametrize(
    ("name", "inference", "training"),
    [
        ("bisenetv2", 3_341_202, 5_190_874),
        ("stdc", 8_270_752, 8_566_368),
        ("stdc2", 12_301_216, 12_596_832),
    ],
)
def test_networks_have_the_published_number_of_parameters(name: str, inference: int, training: int) -> None:
    model = made(name)
    assert inference_parameters(model) == inference
    assert size(model) == training


def test_parts_of_bisenetv2_have_the_published_sizes() -> None:
    model = made("bisenetv2")
    parts = [size(part) for part in (model.detail, model.semantic, model.aggregation, model.head)]  # type: ignore[arg-type]
    assert parts == [519_232, 1_159_504, 478_720, 1_183_746]
    assert [size(head) for head in model.aux] == [37_186, 111_106, 369_922, 1_331_458]  # type: ignore[union-attr]
    with META:
        steps = [Expand(16, 32, 2), Expand(32, 64, 2), Expand(64, 128, 2), Expand(32, 32), Expand(64, 64)]
        assert [size(layer) for layer in steps] == [8_336, 28_448, 104_000, 17_600, 65_920]
        assert [size(layer) for layer in (Expand(128, 128), Stem(), Context())] == [254_720, 6_432, 164_608]
    assert inference_parameters(made("bisenetv2", 19)) == 3_358_627
    assert size(made("bisenetv2", 19)) == 5_231_487


def test_parts_of_stdc_have_the_published_sizes() -> None:
    model = made("stdc")
    parts = [size(part) for part in (model.backbone, model.context, model.fusion)]  # type: ignore[arg-type]
    assert parts == [5_318_304, 2_230_016, 131_584]
    assert [size(head) for head in model.aux.values()] == [73_984, 73_984, 147_648]  # type: ignore[operator, union-attr]
    with META:
        assert size(Backbone((4, 5, 3))) == 9_348_768
        features = Backbone((2, 2, 2))(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [(256, 8, 12), (512, 4, 6), (1024, 2, 3)]


@pytest.mark.parametrize(("name", "count"), [("bisenetv2", 5), ("stdc", 3)])
def test_the_main_head_is_the_first_and_the_others_are_for_training_alone(name: str, count: int) -> None:
    model, image = build(name, 3, seed=0).eval(), torch.rand(2, 3, 33, 50)
    with torch.no_grad():
        heads, alone = model.heads(image), model(image)  # type: ignore[operator]
        for parameter in model.aux.parameters():  # type: ignore[union-attr]
            parameter.fill_(float("nan"))
        torch.testing.assert_close(model(image), alone)
    assert [tuple(logits.shape) for logits in heads.logits] == [(2, 3, 33, 50)] * count
    torch.testing.assert_close(heads.logits[0], alone)
    assert all(not torch.equal(heads.logits[0], other) for other in heads.logits[1:])
    assert (heads.detail is None) == (name == "bisenetv2")
    if heads.detail is not None:
        assert heads.detail.shape == (2, 1, 5, 7)


def test_gather_and_expansion_begins_as_its_shortcut() -> None:
    x = torch.rand(2, 32, 6, 6)
    torch.testing.assert_close(Expand(32, 32)(x), x)


def logits_of(probability: list[float]) -> Tensor:
    """(1,2,1,W) that give class 1 these probabilities."""
    p = torch.tensor(probability, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()])[None, :, None]


def test_hard_pixels_alone_count() -> None:
    target = torch.ones(1, 1, 5, dtype=torch.int64)
    value = ohem(logits_of([0.9, 0.69, 0.71, 0.2, 0.5]), target)  # hard: below 0.7
    assert value.item() == pytest.approx(-np.log([0.69, 0.2, 0.5]).mean())


def test_a_sixteenth_counts_at_least() -> None:
    probability = [0.99] * 30 + [0.8, 0.9]  # none is hard: the 2 hardest of 32
    target = torch.ones(1, 1, 32, dtype=torch.int64)
    assert ohem(logits_of(probability), target).item() == pytest.approx(-np.log([0.8, 0.9]).mean())
    target[..., 15:] = 255  # 15 pixels count: the hardest one
    probability[3] = 0.95
    assert ohem(logits_of(probability), target).item() == pytest.approx(-np.log(0.95))
    logits = logits_of(probability).requires_grad_()
    ohem(logits, torch.full_like(target, 255)).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def rims(mask: np.ndarray) -> np.ndarray:
    """Detail target as published, pixel by pixel: strides 1, 2, 4 of a Laplacian, weighed 0.6, 0.3, 0.1."""
    padded = np.pad(mask.astype(int), 1)
    total = np.zeros(mask.shape)
    for stride, weight in ((1, 0.6), (2, 0.3), (4, 0.1)):
        for y, x in np.ndindex(mask.shape):
            top, left = y // stride * stride, x // stride * stride
            around = padded[top : top + 3, left : left + 3]
            total[y, x] += weight * (9 * around[1, 1] - around.sum() > 0.1)
    return total > 0.1 + 1e-6


def test_detail_target_against_its_definition() -> None:
    masks = np.random.default_rng(0).random((3, 16, 24)) < 0.4
    masks[2], masks[2, 3:12, 5:14] = False, True
    found = detail_target(torch.from_numpy(masks.astype(np.int64)))
    np.testing.assert_array_equal(found.numpy() > 0, np.stack([rims(mask) for mask in masks]))


def test_detail_target_is_the_inner_rim_and_blocks() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, 2:6, 2:7] = 1
    wanted = torch.zeros(8, 8)
    wanted[2:6, 2:8] = 1  # the rim, and blocks of 2 x 2 from its even pixels: some reach inwards, column 7 lies outside
    wanted[4, 4:6] = 0  # around (4, 4) all is defect: no block
    assert torch.equal(detail_target(labels)[0], wanted)


def test_detail_loss_worked_by_hand() -> None:
    target = torch.zeros(2, 8, 8, dtype=torch.int64)
    target[0, :2, :2] = 1  # stride 1: all 4 pixels lie at the border of the picture; stride 2: the block at (0, 0)
    value = detail(torch.zeros(2, 1, 1, 1), target)  # a half everywhere
    dice = [1 - (2 * 2 + 1) / (32 + 4 + 1), 1 - 1 / (32 + 1)]
    assert value.item() == pytest.approx(np.log(2) + np.mean(dice))


def test_all_heads_weigh_the_same() -> None:
    target = torch.tensor([[[1, 0]]])
    even, sure = torch.zeros(1, 2, 1, 2), logits_of([0.9, 0.1]).float()
    each = [objective(Heads([logits]), target, "ce", 2.0) for logits in (even, sure)]
    assert objective(Heads([even, sure, even]), target, "ce", 2.0).item() == pytest.approx(
        (2 * each[0] + each[1]).item()
    )
    published = objective(Heads([even, even], torch.zeros(1, 1, 1, 1)), target, "ohem+detail")
    both = 2 * np.log(2) + np.log(2) + 1 - (2 * 1 + 1) / (1 + 2 + 1)  # both pixels belong to the block at (0, 0)
    assert published.item() == pytest.approx(both)


def test_published_schedules() -> None:
    detailed, concat, former = (PUBLISHED[name] for name in ("BiSeNetV2", "STDC", "SegFormer"))
    assert detailed.factor(0.0) == pytest.approx(0.1)
    assert detailed.factor(500 / 150_000) == pytest.approx(0.1**0.5, rel=0.01)
    assert 0.01 * concat.factor(0.0) == pytest.approx(1e-5)
    assert former.factor(750 / 160_000) == pytest.approx(0.5, rel=0.01)
    assert [r.factor(0.5) for r in (detailed, concat, former)] == pytest.approx([0.5**0.9, 0.5**0.9, 0.5])


@pytest.mark.parametrize("name", ["bisenetv2", "stdc", "segformer"])
def test_heads_learn_ten_times_as_fast_and_norms_do_not_decay(name: str) -> None:
    model = made(name)
    plan = find("published", model)
    groups = plan.make_optimizer(model, plan.lr).param_groups
    place = {id(p): (group["base_lr"] / plan.lr, group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(place) == len(list(model.parameters())) == sum(len(group["params"]) for group in groups)
    for key, parameter in model.named_parameters():
        fast = key.split(".")[0] in ("head", "aux", "fusion") or "decode_head" in key
        assert place[id(parameter)] == (pytest.approx(10 if fast else 1), plan.decay if parameter.ndim > 1 else 0)
    common = COMMON.make_optimizer(model, 1e-3).param_groups
    assert {group["base_lr"] for group in common} == {1e-3}


def test_recipes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UserError, match="recipe 'best' is unknown"):
        find("best", nn.Identity())
    with pytest.raises(UserError, match="nothing is published for Mini"):
        find("published", made("mini"))


def test_whole_weights_are_taken_and_another_answer_begins_anew(tmp_path: Path) -> None:
    source = build("bisenetv2", seed=1)
    file = save(source, tmp_path / "w.safetensors", "bisenetv2", "drawn")
    same = build("bisenetv2", weights=file, seed=2).state_dict()
    assert all(torch.equal(same[k], v) for k, v in source.state_dict().items())
    assert same["head.last.weight"].stride() == source.state_dict()["head.last.weight"].stride()
    more = build("bisenetv2", 4, weights=file, seed=2).state_dict()
    differing = {k.rsplit(".", 1)[0] for k, v in source.state_dict().items() if not torch.equal(more[k], v)}
    assert differing == {"head.last", *(f"aux.{i}.last" for i in range(4))}
    with pytest.raises(UserError, match="holds a segmenter 'bisenetv2', not 'mini'"):
        build("mini", weights=file)


def test_backbone_weights_of_stdc_are_taken_under_published_names(tmp_path: Path) -> None:
    """Names of MichaelFan01/STDC-Seg, one of each kind written out; a classifier lies beside them."""
    source = Backbone((2, 2, 2))
    state = {f"backbone.{k}": v.clone() for k, v in source.state_dict().items() if "num_batches" not in k}
    for name in ("0.conv.weight", "2.conv_list.0.bn.bias", "2.avd_layer.0.weight", "2.avd_layer.1.running_var"):
        assert f"backbone.features.{name}" in state
    save_file({**state, "fc.weight": torch.zeros(2)}, tmp_path / "b.safetensors")
    model = build("stdc", weights=tmp_path / "b.safetensors", seed=0)
    assert isinstance(model, STDC)
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in model.backbone.state_dict().items())
    with pytest.raises(UserError, match="missing"), META:
        build("stdc2", weights=tmp_path / "b.safetensors")
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is no STDC backbone"), META:
        build("stdc", weights=tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="takes no encoder weights"):
        build("bisenetv2", weights=tmp_path / "b.safetensors")
