"""DFMGAN: its networks against published sizes and direct formulas, its two stages, its pairs."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fast.generators.dfmgan.module as training
from fast.data.sampler import StepSampler
from fast.generators import create
from fast.generators.dfmgan import DFMGAN, DFMGANGenerator
from fast.generators.dfmgan import augment as ada
from fast.generators.dfmgan.layers import ModulatedConv, blur, downsample, upsample
from fast.generators.dfmgan.losses import EPSILON, judging, mode_seeking, path_lengths, r1
from fast.generators.dfmgan.networks import DefectBranch, Discriminator, Sizes, SynthesisNetwork, spread
from fast.training.saver import Saver
from ldm.errors import UserError
from support.training import artifact, assert_same_run, door, losses, recipe

TINY = {"channel_base": 256, "channel_max": 8, "z_dim": 8, "w_dim": 8}
SMALL = Sizes(resolution=64, **TINY)
MODEL = {
    "target": "fast.generators.dfmgan.DFMGAN",
    "params": {**TINY, "resolution": 32, "match_base": 128, "match_max": 8, "backbone_steps": 3, "ema_kimg": 0.001},
}
KINDS = [f"leather/{kind}" for kind in ("crack", "hole", "scratch", "stain")]


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# networks


def test_published_sizes() -> None:
    with torch.device("meta"):
        backbone, branch, judge = SynthesisNetwork(Sizes()), DefectBranch(Sizes()), Discriminator(Sizes())
        match = Discriminator(Sizes(channel_base=4096, channel_max=128), channels=4)
    assert (count(backbone), count(judge), count(match)) == (23_191_522, 24_001_089, 1_502_113)
    assert (count(branch), count(backbone) + count(branch)) == (3_669_703, 26_861_225)
    parts = [count(branch.mapping), *(count(b) for b in branch.blocks)]
    parts[1] += count(branch.mask)
    assert parts == [525_312, 2_295_555, 639_618, 209_218]
    assert (backbone.styles, branch.styles) == (14, 7)
    assert Sizes().defect_sides == [64, 128, 256]
    assert SMALL.defect_sides == [16, 32, 64]


@pytest.mark.parametrize("params", [{"resolution": 48}, {"resolution": 16}, {"resolution": 64, "channel_base": 32}])
def test_sizes_that_make_no_network(params: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"resolution=|channel_base="):
        Sizes(**params)


def test_resampling_is_the_filter_on_zeros_and_pixels() -> None:
    rng = np.random.default_rng(0)
    picture = rng.standard_normal((3, 4))
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    spaced = np.zeros((6, 8))
    spaced[::2, ::2] = picture

    def filtered(values: np.ndarray, before: int, after: int) -> np.ndarray:
        wide = np.pad(values, (before, after))
        windows = np.lib.stride_tricks.sliding_window_view(wide, (4, 4))
        return np.asarray((windows * taps).sum((2, 3)))

    x = torch.from_numpy(picture)[None, None].repeat(1, 2, 1, 1)
    expected = {upsample: 4 * filtered(spaced, 2, 1), lambda t: blur(t, 2): filtered(picture, 2, 2)}
    for act, answer in expected.items():
        for channel in act(x)[0]:
            np.testing.assert_allclose(channel.numpy(), answer, atol=1e-12)
    even = torch.from_numpy(picture[:2])[None, None]
    np.testing.assert_allclose(downsample(even)[0, 0].numpy(), filtered(picture[:2], 1, 1)[::2, ::2], atol=1e-12)


def test_modulation_is_that_of_the_weights() -> None:
    torch.manual_seed(0)
    conv, x, w = ModulatedConv(6, 5, 4), torch.randn(3, 6, 9, 9), 3 * torch.randn(3, 4)
    conv.affine.bias.data += torch.randn(6)
    styles = conv.affine(w)
    for picture, style, y in zip(x, styles, conv(x, w), strict=True):
        weight = conv.weight / 54**0.5 * style[None, :, None, None]  # equation 1
        weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()  # equation 3
        torch.testing.assert_close(y, F.conv2d(picture[None], weight, padding=1)[0], rtol=1e-4, atol=1e-5)


def test_demodulation_keeps_unit_variance() -> None:
    torch.manual_seed(0)
    conv, w = ModulatedConv(16, 8, 4), 5 * torch.randn(2, 4)
    inside = conv(torch.randn(2, 16, 130, 130), w)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(inside.var((2, 3)), torch.ones(2, 8), rtol=0, atol=0.1)
    raw = ModulatedConv(16, 8, 4, demodulate=False)(torch.randn(2, 16, 130, 130), w)
    assert (raw.var((2, 3)) - 1).abs().max() > 1


def test_minibatch_deviation_by_hand() -> None:
    x = torch.tensor([0.0, 1.0, 2.0, 5.0, 4.0, 3.0]).view(6, 1, 1, 1).expand(6, 2, 3, 3)
    # Groups of 3 of the 6: samples 0, 2, 4 and 1, 3, 5.
    expected = [np.std([0, 2, 4]), np.std([1, 5, 3])] * 3
    np.testing.assert_allclose(spread(x, 4)[:, 0, 2, 1], expected, rtol=1e-6)
    assert spread(x, 4).shape == (6, 1, 3, 3)


# the gate


def lively(seed: int) -> tuple[SynthesisNetwork, DefectBranch, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    backbone, branch = SynthesisNetwork(SMALL), DefectBranch(SMALL)
    for module in (backbone, branch):
        for name, p in module.named_parameters():
            if name.endswith("strength"):
                p.data.fill_(0.3)
    ws, wd = torch.randn(2, backbone.styles, 8), torch.randn(2, branch.styles, 8)
    return backbone, branch, ws, wd


def masked(branch: DefectBranch, m: torch.Tensor) -> None:
    """Have the branch draw these logits."""
    original = branch.logits
    branch.logits = lambda *a, **k: (original(*a, **k)[0], m)  # type: ignore[method-assign]


@torch.no_grad()
def test_without_a_mask_the_picture_is_the_normal_one() -> None:
    backbone, branch, ws, wd = lively(0)
    normal = backbone.render(ws)
    assert normal.m is None
    assert not torch.equal(backbone.render(ws, branch, wd).image, normal.image)
    masked(branch, torch.full((2, 1, 16, 16), -1.0))
    assert torch.equal(backbone.render(ws, branch, wd).image, normal.image)


@torch.no_grad()
def test_the_residual_stays_behind_the_gate() -> None:
    backbone, branch, ws, wd = lively(1)
    m = torch.full((2, 1, 16, 16), -1.0)
    m[:, :, 2:4, 2:4] = 1.0
    masked(branch, m)
    normal, made = backbone.render(ws), backbone.render(ws, branch, wd)
    coarse = slice(None, -3), -3
    for a, b in zip(normal.features[coarse[0]], made.features[coarse[0]], strict=True):
        assert torch.equal(a, b)
    gate = (m >= 0).expand_as(normal.features[coarse[1]])
    assert torch.equal(normal.features[-3][~gate], made.features[-3][~gate])
    assert (normal.features[-3][gate] != made.features[-3][gate]).float().mean() > 0.9
    torch.testing.assert_close(made.m, upsample(upsample(m)))
    # The mask of all gates: the coarse cells, 4 pixels each, and what the filter spreads to finer ones.
    assert made.open is not None
    assert made.open[:, :, 8:16, 8:16].all()
    assert (made.open | (made.m < 0)).all()
    assert made.open.sum() > (made.m >= 0).sum(), "the filtered logits close what the coarse gate opened"
    # A doubling convolution carries cell j to pixels 2j-2..2j+3, a 3x3 one by 1 more: twice, 4j-9..4j+12.
    changed = (normal.image - made.image).abs().amax((0, 1)) > 1e-4
    assert changed[:25, :25].float().mean() > 0.5
    assert not changed[25:].any()
    assert not changed[:, 25:].any()


def test_the_mask_learns_from_the_match_alone() -> None:
    backbone, branch, ws, wd = lively(2)
    made = backbone.render(ws, branch, wd, random=True)
    head = branch.mask.conv.weight
    assert torch.autograd.grad(made.image.sum(), head, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(made.m.sum(), head)[0].abs().sum() > 0


# losses


def test_losses_by_hand() -> None:
    w1, w2 = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, -1.0]])
    mask1, mask2 = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([1.0, -1.0, -1.0, -1.0])
    assert float(mode_seeking(w1, w2, mask1, mask2)) == pytest.approx(2 / (0.5 + EPSILON))
    assert float(mode_seeking(w1, w2, mask1, mask1)) == pytest.approx(2 / EPSILON)
    assert float(judging(torch.zeros(2), torch.zeros(2))) == pytest.approx(2 * np.log(2))
    image = torch.arange(24.0).view(2, 3, 2, 2) / 24
    assert float(r1(lambda x: x.square().sum((1, 2, 3)), image)) == pytest.approx(
        float((4 * image.square()).sum((1, 2, 3)).mean())
    )


def test_path_length_of_a_linear_picture() -> None:
    torch.manual_seed(0)
    ws = torch.randn(4000, 2, 3, requires_grad=True)
    image = 2.0 * ws.sum((1, 2))[:, None, None, None].expand(-1, 3, 4, 4) / 48**0.5
    # Every style moves all 48 values by 2 / sqrt(48); the noise has deviation 1/4: slope = 2 N(0, 1) / 4 for each.
    lengths = path_lengths(image, ws)
    assert float(lengths.square().mean()) == pytest.approx(3 * 0.25, rel=0.1)


# augmentation


def test_neutral_operations_leave_the_picture() -> None:
    none, one = torch.zeros(2), torch.ones(2)
    for matrix in (ada.scale(one, one), ada.turn(none), ada.shift(none, none)):
        torch.testing.assert_close(matrix, torch.eye(3).repeat(2, 1, 1))
    for matrix in (ada.brightness(none), ada.contrast(one), ada.luma_flip(none), ada.hue(none), ada.saturation(one)):
        torch.testing.assert_close(matrix, torch.eye(4).repeat(2, 1, 1))
    torch.manual_seed(0)
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    assert ada.augment(image, 0.0) is image
    torch.testing.assert_close(ada.augment(image, 1e-12), image, rtol=0, atol=1e-5)
    certain = ada.augment(image.requires_grad_(), 1.0)
    assert (certain - image).abs().mean() > 0.1
    assert torch.autograd.grad(certain.square().sum(), image)[0].abs().sum() > 0


def test_colours_by_hand() -> None:
    colour = torch.tensor([0.5, -0.1, 0.2, 1.0])
    for matrix, expected in (
        (ada.brightness(torch.tensor([0.3])), [0.8, 0.2, 0.5]),
        (ada.contrast(torch.tensor([2.0])), [1.0, -0.2, 0.4]),
        (ada.saturation(torch.tensor([0.0])), [0.2, 0.2, 0.2]),
        (ada.luma_flip(torch.tensor([1.0])), [0.1, -0.5, -0.2]),  # the mean 0.2 becomes -0.2
        (ada.hue(torch.tensor([2 * np.pi / 3])), [0.2, 0.5, -0.1]),  # red to green to blue
    ):
        np.testing.assert_allclose((matrix[0] @ colour)[:3].numpy(), expected, atol=1e-6)


def test_blitting_is_exact() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)

    def moved(matrix: torch.Tensor) -> np.ndarray:
        places = F.affine_grid(matrix[:, :2], [1, 1, 4, 4], align_corners=False)
        return F.grid_sample(image, places, padding_mode="reflection", align_corners=False)[0, 0].numpy()

    picture, one, none = image[0, 0].numpy(), torch.ones(1), torch.zeros(1)
    np.testing.assert_allclose(moved(ada.scale(-one, one)), picture[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(moved(ada.turn(np.pi / 2 * one)), np.rot90(picture), atol=1e-4)
    np.testing.assert_allclose(moved(ada.shift(one / 2, none))[:, :3], picture[:, 1:], atol=1e-4)


def test_coins_fall_with_probability_p() -> None:
    torch.manual_seed(0)
    draw = ada.Chance(20000, 0.3, torch.device("cpu"))
    assert float((draw.normal(1.0) != 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float((draw.factor(1.0) != 1).float().mean()) == pytest.approx(0.3, abs=0.02)
    values = draw.uniform(2.0, 1.0)
    assert float(values.abs().max()) == pytest.approx(2.0, abs=0.01)
    assert set(draw.whole(4).tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_a_new_stage_leaves_the_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process draws its own codes from them, on a GPU from the card's; the new branch alone is shared."""
    model = DFMGAN(types=["a/b"], **{**TINY, "resolution": 32})
    monkeypatch.setattr(model, "_optimizers", list)
    before, seeded = torch.get_rng_state(), list[int]()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    model._begin(1)
    assert torch.equal(before, torch.get_rng_state())
    assert not seeded


def test_augmentation_follows_the_signs() -> None:
    model = DFMGAN(types=["a/b"], ada_target=0.6, ada_kimg=1.0, **{**TINY, "resolution": 32})
    for signs, expected in ((4 * 0.9, 32 / 1000), (4 * 0.9, 64 / 1000), (4 * 0.1, 32 / 1000)):
        model.ada_signs.fill_(signs)
        model._adapt(8, step=3)
        assert float(model.ada_p) == pytest.approx(expected)
        assert float(model.ada_signs) == 0
    model._adapt(8, step=4)
    assert float(model.ada_p) == pytest.approx(32 / 1000)


# whose turn it is


def test_a_module_chooses_the_groups() -> None:
    groups = [[0, 1], [2], [3, 4, 5]]
    chosen = StepSampler(groups, 2, 9, 7, groups_at=lambda step: [[2], [0, 1]][step > 4])
    batches = [[t.sample for t in batch] for batch in chosen]
    early = [s for batch in batches[:5] for s in batch]
    assert set(early) == {3, 4, 5}
    assert sorted(early[:3]) == sorted(early[3:6]) == [3, 4, 5]  # each once before any twice
    assert all(2 in batch and {0, 1} & set(batch) for batch in batches[5:])
    everyone = StepSampler(groups, 2, 9, 7, groups_at=lambda step: [0, 1, 2])
    assert list(everyone) == list(StepSampler(groups, 2, 9, 7))


# runs


@pytest.fixture(scope="module")
def watched(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    """A run of 3 steps of backbone and 2 for each of leather's 4 types, with what its steps saw. Read only."""
    seen: dict[str, list[Any]] = {"types": [], "masks": [], "learnt": []}
    folder, step, joined = tmp_path_factory.mktemp("dfmgan"), DFMGAN.training_step, training.with_mask

    def watch_step(self: DFMGAN, batch: Any, batch_idx: int = 0) -> None:
        step(self, batch, batch_idx)
        seen["types"].append(batch["type"].tolist())
        seen["learnt"].append(len(self.learnt))

    def watch_mask(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen["masks"].append(mask.detach())
        return joined(image, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DFMGAN, "training_step", watch_step)
        patch.setattr(training, "with_mask", watch_mask)
        assert door("-b", small(folder, drawn_root), "-t", "-n", "run", "-l", folder) == 0
    return folder / "run", seen


def small(folder: Path, root: Path, **params: Any) -> Path:
    options = {"steps": 11, "size": 32, "use": "both", "cache": False, "category": "leather", **params}
    return recipe(folder, MODEL, root, **options)


def test_backbone_first_and_the_types_one_after_another(watched: Any) -> None:
    run, seen = watched
    assert seen["types"] == [[-1, -1]] * 3 + [[k, k] for k in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert seen["learnt"] == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [row["step"] for row in losses(run)] == [str(n) for n in range(1, 12)]
    before, middle, after = (artifact(run, step) for step in (3, 9, 11))
    assert not any(k.startswith("branches") for k in before)
    for k, v in before.items():
        assert torch.equal(v, after[k]), k
    first = [k for k in middle if k.startswith("branches.0.")]
    assert all(torch.equal(middle[k], after[k]) for k in first)
    assert any(not torch.equal(after[k], after[k.replace("branches.0", "branches.1")]) for k in first)


def test_d_match_sees_masks_from_minus_to_plus_one(watched: Any) -> None:
    masks = watched[1]["masks"]
    real = [m for m in masks if m.abs().eq(1).all() and not m.requires_grad]
    assert len(real) >= 8  # the real ones of each defect step
    assert all(set(m.unique().tolist()) == {-1.0, 1.0} for m in real)
    soft = [m for m in masks if not m.abs().eq(1).all()]
    assert soft
    assert all(m.abs().max() <= 1 for m in soft)


def test_pairs(watched: Any) -> None:
    made = DFMGANGenerator(watched[0], device="cpu")
    assert list(made.types) == KINDS
    given = np.zeros((40, 50, 3), np.uint8)
    for kind in (None, KINDS[1]):
        image, mask = made.synthesize(given, None, np.random.default_rng(5), kind)
        assert (image.shape, mask.shape, image.dtype, mask.dtype) == ((40, 50, 3), (40, 50), np.uint8, np.uint8)
        assert set(np.unique(mask)) <= {0, 1}
        assert mask.any()
        again = made.synthesize(given, np.ones((40, 50), np.uint8), np.random.default_rng(5), kind)
        np.testing.assert_array_equal(image, again[0])
        np.testing.assert_array_equal(mask, again[1])
    image, mask = made.synthesize(None, None, np.random.default_rng(5), KINDS[1])
    other = made.synthesize(None, None, np.random.default_rng(6), KINDS[1])[0]
    assert image.shape == (32, 32, 3)
    assert (image != other).any()
    assert made.settings() == DFMGANGenerator(watched[0], device="cpu").settings()
    assert made.settings() != DFMGANGenerator(watched[0], device="cpu", truncation=0.7).settings()


def test_the_matching_normal_picture(watched: Any) -> None:
    made = DFMGANGenerator(watched[0], device="cpu")
    branch = made.branches[KINDS[2]]
    image, _ = made.synthesize(None, None, np.random.default_rng(8), KINDS[2])
    normal = made.normal(np.random.default_rng(8), KINDS[2])
    assert (image != normal).any()
    assert made.backbone is not None
    branch.logits = lambda x, wd, random=False: (  # type: ignore[method-assign]
        torch.zeros(1, made.backbone.sizes.channels(8), 8, 8),
        torch.ones(1, 1, 8, 8),
    )
    for block in branch.blocks[1:]:
        block.forward = lambda x, first, second, random: x.new_zeros(())  # type: ignore[method-assign]
    image, mask = made.synthesize(None, None, np.random.default_rng(8), KINDS[2])
    np.testing.assert_array_equal(image, normal)  # a residual of nothing, the same z
    assert mask.all()


def test_empty_masks_are_drawn_again_and_counted(watched: Any) -> None:
    made = DFMGANGenerator(watched[0], device="cpu", max_tries=7)
    branch, answers = made.branches[KINDS[0]], [-1.0, -1.0, 1.0]
    original = branch.logits
    branch.logits = lambda *a, **k: (  # type: ignore[method-assign]
        original(*a, **k)[0],
        torch.full((1, 1, 8, 8), answers.pop(0) if answers else -1.0),
    )
    assert made.synthesize(None, None, np.random.default_rng(0), KINDS[0])[1].all()
    assert made.rejected == 2
    with pytest.raises(UserError, match=r"7 masks of leather/crack were empty; train .* or raise max_tries"):
        made.synthesize(None, None, np.random.default_rng(0), KINDS[0])
    assert made.rejected == 9


def test_what_training_has_not_reached(watched: Any) -> None:
    with pytest.raises(UserError, match="no defect type yet; train beyond"):
        DFMGANGenerator(watched[0], step=3, device="cpu")
    part = create("dfmgan", weights=watched[0], step=6, device="cpu")
    assert list(part.types) == KINDS[:2]
    with pytest.raises(UserError, match=r"leather/stain \(training has not come to it yet"):
        part.synthesize(None, None, np.random.default_rng(0), "leather/stain")
    with pytest.raises(UserError, match="knows no defect type leather/dent; it has leather/crack, leather/hole"):
        part.normal(np.random.default_rng(0), "leather/dent")
    with pytest.raises(UserError, match="has no weights; give weights=RUN"):
        DFMGANGenerator().synthesize(None, None, np.random.default_rng(0))
    with pytest.raises(UserError, match="truncation=2"):
        DFMGANGenerator(truncation=2.0)


def test_a_broken_run_goes_on_as_if_unbroken(
    watched: Any, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    original, waiting = Saver.on_train_batch_start, [8]

    def killed(self: Saver, trainer: Any, *args: Any) -> None:
        original(self, trainer, *args)
        if trainer.global_step in waiting:
            waiting.remove(trainer.global_step)
            raise KeyboardInterrupt

    monkeypatch.setattr(Saver, "on_train_batch_start", killed)
    assert door("-b", small(tmp_path, drawn_root), "-t", "-n", "run", "-l", tmp_path) == 2
    assert not waiting
    assert door("-r", tmp_path / "run", "-t") == 0
    assert_same_run(watched[0], tmp_path / "run", 11)
    capsys.readouterr()
    assert door("-r", tmp_path / "run", "-t", "--max_steps", 20) == 2
    assert "go on with --max_steps 11, or start a new run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"category": None}, "defect types of one category, the data has leather, wood; give --category"),
        ({"size": 64}, "data.params.size=64 is not model.params.resolution=32"),
        ({"use": "defects"}, "needs normals and defects; set data.params.use=both"),
    ],
)
def test_data_that_do_not_fit(
    params: dict[str, Any], message: str, drawn_root: Path, tmp_path: Path, capsys: Any
) -> None:
    assert door("-b", small(tmp_path, drawn_root, **params), "-t", "-n", "run", "-l", tmp_path) == 2
    assert message in capsys.readouterr().err


def test_a_foreign_file(watched: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "dfmgan-5.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"step": "5"})
    with pytest.raises(UserError, match="is not an artifact of DFMGAN's training"):
        DFMGANGenerator(path, device="cpu")
    shutil.copy(watched[0] / "checkpoints" / "dfmgan-11.safetensors", path)
    assert list(DFMGANGenerator(tmp_path, device="cpu").types) == KINDS
