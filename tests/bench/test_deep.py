"""KID, IS and IC-LPIPS with small made-up networks, against their formulas."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fast.bench.deep import Options, ic_lpips, inception_score, kid, load_inception, load_lpips, measures
from fast.segmentation.data import SegmentationSample
from ldm.errors import UserError
from taming.modules.losses.lpips import LPIPS, AlexNetFeatures

MASK = np.ones((8, 8), np.uint8)


def flat(*levels: int, kind: str = "a/hole") -> list[SegmentationSample]:
    return [SegmentationSample(np.full((8, 8, 3), level, np.uint8), MASK, kind) for level in levels]


def brightness(image: Tensor) -> Tensor:
    """An embedding in which two pictures are apart by the square of their difference in grey levels."""
    return (image.mean((1, 2, 3))[:, None] + 1) * 127.5


class Small(nn.Module):
    """Three features; with `logits` two class scores too."""

    def __init__(self, logits: bool = False) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        mean = image.mean((2, 3)) * torch.tensor([1.0, 2.0, -1.0])
        return (mean, 9 * mean[:, :2]) if self.logits else mean


class Scripted(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))


def plain_kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD of all of both, the sums written out."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / len(a) + 1) ** 3

    def within(z: np.ndarray) -> float:
        return 2 * sum(k(a, b) for a, b in combinations(z, 2)) / (len(z) * (len(z) - 1))

    return within(x) + within(y) - 2 * float(np.mean([[k(a, b) for b in y] for a in x]))


def test_kid_is_its_formula_when_a_subset_holds_all() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 4)) + 1
    result = kid(torch.tensor(x), torch.tensor(y))
    assert result["kid"] == pytest.approx(plain_kid(x, y))
    assert result["kid_spread"] == pytest.approx(0, abs=1e-12)
    assert result["kid_subset"] == 6


def test_kid_has_a_seed_of_its_own_and_needs_two(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = torch.tensor(rng.normal(size=(12, 4))), torch.tensor(rng.normal(size=(5, 4)))
    before, seeded = torch.get_rng_state(), list[int]()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    first = kid(x, y, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert not seeded, "a card's generator is left alone too"
    assert first == kid(x, y, seed=3) != kid(x, y, seed=4)
    assert first["kid_spread"] > 0
    assert kid(x, y[:1]) == {"kid": None, "kid_spread": None, "kid_subset": 1}


def test_inception_score_of_known_classes() -> None:
    sure = torch.tensor([[40.0, 0.0], [0.0, 40.0]]).repeat(5, 1)
    assert inception_score(sure) == {"is": pytest.approx(2), "is_spread": None}  # two classes, each told for certain
    assert inception_score(torch.zeros(10, 2))["is"] == pytest.approx(1)
    assert inception_score(torch.zeros(20, 2))["is_spread"] == pytest.approx(0)


def test_ic_lpips_worked_by_hand() -> None:
    """Clusters about 0: 10, 20, 40 (100, 400 and 900 apart); about 200: one alone; about 255: none."""
    result = ic_lpips(flat(10, 20, 40, 190), flat(0, 200, 255), brightness)
    inside = (100 + 400 + 900) / 3
    assert result["ic_lpips"] == pytest.approx(inside / 3, rel=1e-4)
    assert result["ic_lpips_nonzero"] == pytest.approx(inside, rel=1e-4)
    assert ic_lpips(flat(10), flat(0), brightness) == {"ic_lpips": 0, "ic_lpips_nonzero": None}


def test_ic_lpips_of_more_than_a_block_and_with_a_cap() -> None:
    levels = list(range(0, 60, 3))
    whole = ic_lpips(flat(*levels), flat(0), brightness, Options(cap=None))
    expected = np.mean([(a - b) ** 2 for a, b in combinations(levels, 2)])
    assert whole["ic_lpips"] == pytest.approx(expected, rel=1e-4)
    two = [ic_lpips(flat(*levels), flat(0), brightness, Options(seed=seed, cap=2))["ic_lpips"] for seed in (1, 1, 2)]
    assert two[0] == two[1] != two[2]
    assert round(two[0] or 0) in {round((a - b) ** 2) for a, b in combinations(levels, 2)}


def test_measures_in_all_and_by_type() -> None:
    made = flat(10, 60, 90) + flat(200, 220, kind="a/stain") + flat(5, kind="a/new")
    real = flat(0, 50, 100) + flat(210, 211, kind="a/stain")
    result = measures(made, real, inception=Small(logits=True), embed=brightness)
    assert (result["made"], result["real"], result["kid_subset"]) == (6, 5, 5)
    assert result["types"]["a/hole"]["kid_subset"] == 3
    assert result["types"]["a/new"]["kid"] is None
    assert result["types"]["a/new"]["ic_lpips"] is None
    assert result["types"]["a/stain"]["ic_lpips"] == pytest.approx(0, abs=1e-9)  # one with either
    hole = result["types"]["a/hole"]["ic_lpips"]
    assert result["ic_lpips"] == pytest.approx((hole + 0) / 2)
    assert result["is"] > 1
    assert "is" not in measures(made, real, inception=Small())
    assert "kid" not in measures(made, real, embed=brightness)


def test_kid_grows_with_the_distance_of_the_sets() -> None:
    real = flat(*range(100, 120, 2))
    near, far = (measures(flat(*range(a, a + 20, 2)), real, inception=Small())["kid"] for a in (101, 200))
    assert near < 0.01 < far


def test_lpips_is_the_squared_distance_of_embeddings() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    for net in ("vgg", "alex"):
        model = LPIPS(net=net)
        for name, p in model.named_parameters():
            if name.startswith("lin"):
                p.copy_(p.abs())
        apart = (model.embed(a) - model.embed(b)).square().sum(1)
        torch.testing.assert_close(apart, model(a, b).flatten())
        assert (apart > 0).all()


def test_alexnet_has_the_published_convolutions() -> None:
    with torch.device("meta"):
        net = AlexNetFeatures()
    assert sum(p.numel() for p in net.parameters()) == 2_469_696
    assert [name for name in net.state_dict() if name.endswith("weight")] == [
        f"slice{s}.{n}.weight" for s, n in ((1, 0), (2, 3), (3, 6), (4, 8), (5, 10))
    ]
    shapes = [tuple(x.shape[1:]) for x in AlexNetFeatures()(torch.zeros(1, 3, 224, 224))]
    assert shapes == [(64, 55, 55), (192, 27, 27), (384, 13, 13), (256, 13, 13), (256, 13, 13)]


def test_networks_are_read_from_files(tmp_path: Path) -> None:
    torch.jit.script(Scripted()).save(str(tmp_path / "net.pt"))
    network = load_inception(tmp_path / "net.pt")
    assert measures(flat(1, 2), flat(1, 2), inception=network)["kid"] is not None
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("no network")
    for name in ("state.pt", "text.pt"):
        with pytest.raises(UserError, match="no TorchScript file"):
            load_inception(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        load_inception(tmp_path / "none.pt")
    alex = LPIPS(net="alex")
    save_file(alex.state_dict(), tmp_path / "alex.safetensors")
    assert torch.equal(
        load_lpips(tmp_path / "alex.safetensors", "alex").net.slice1[0].weight, alex.net.slice1[0].weight
    )
    with pytest.raises(UserError, match="--lpips vgg"):
        load_lpips(tmp_path / "alex.safetensors")


def test_without_pictures_nothing_is_compared() -> None:
    with pytest.raises(UserError, match="0 synthetic and 1 real"):
        measures([], flat(1))
