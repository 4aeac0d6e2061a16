import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from ldm.modules.losses import LPIPSWithDiscriminator
from taming.modules.discriminator.model import NLayerDiscriminator, weights_init
from taming.modules.losses.lpips import LPIPS
from taming.modules.vqvae.quantize import VectorQuantizer2


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def lpips_state() -> dict[str, Tensor]:
    """Random LPIPS weights, those over the channels non-negative as the trained ones are."""
    return {k: v.abs() if k.startswith("lin") else v for k, v in LPIPS().state_dict().items()}


@pytest.fixture(scope="module")
def lpips_file(lpips_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(lpips_state, path)
    return path


def test_lpips_is_a_distance(lpips_file: Path) -> None:
    model = LPIPS(lpips_file).train()
    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    assert_close(model(x, x), torch.zeros(2, 1, 1, 1))
    assert (model(x, y) > 0).all()
    assert_close(model(x, y), model(y, x))
    assert not any(p.requires_grad for p in model.parameters())


def test_lpips_against_its_formula(lpips_state: dict[str, Tensor], lpips_file: Path) -> None:
    x, y = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    shift, scale = lpips_state["scaling_layer.shift"], lpips_state["scaling_layer.scale"]
    pair = (torch.cat([x, y]) - shift) / scale
    total = torch.zeros(())
    for s, convs in enumerate([(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)], start=1):
        pair = nn.functional.max_pool2d(pair, 2) if s > 1 else pair
        for n in convs:
            name = f"net.slice{s}.{n}"
            pair = nn.functional.conv2d(
                pair, lpips_state[f"{name}.weight"], lpips_state[f"{name}.bias"], padding=1
            ).relu()
        unit = pair / (pair.norm(dim=1, keepdim=True) + 1e-10)
        weights = lpips_state[f"lin{s - 1}.model.1.weight"].view(1, -1, 1, 1)
        total = total + (weights * (unit[:1] - unit[1:]).square()).sum(1).mean()
    assert_close(LPIPS(lpips_file)(x, y).squeeze(), total)


def test_lpips_from_torchvision_names(lpips_state: dict[str, Tensor], lpips_file: Path, tmp_path: Path) -> None:
    renamed = {re.sub(r"^net\.slice\d", "features", k): v for k, v in lpips_state.items() if "scaling" not in k}
    torch.save(renamed | {"classifier.0.bias": torch.zeros(1)}, tmp_path / "vgg.pt")
    assert_close(LPIPS(tmp_path / "vgg.pt").state_dict(), LPIPS(lpips_file).state_dict())


def test_lpips_refuses_other_files(lpips_state: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LPIPS(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    few = {k: v for k, v in lpips_state.items() if k.startswith("lin")}
    torch.save(few, tmp_path / "lins.pt")
    torch.save(lpips_state | {"lin0.model.1.weight": torch.zeros(1)}, tmp_path / "shape.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("text.pt", "text.safetensors", "lins.pt", "shape.pt", "list.pt"):
        with pytest.raises(ValueError, match=re.escape(name)):
            LPIPS(tmp_path / name)


def test_loss_with_lpips(lpips_file: Path) -> None:
    loss = LPIPSWithDiscriminator(0, disc_factor=0, lpips_weights=str(lpips_file), perceptual_weight=2.0)
    x, y = torch.rand(2, 2, 3, 32, 32)
    assert_close(loss.distance(x, y), (x - y).abs() + 2 * LPIPS(lpips_file)(y, x))
    assert "perceptual_loss.net.slice1.0.weight" in loss.state_dict()


def test_lpips_gradient_is_finite_where_all_channels_are_off(lpips_file: Path) -> None:
    model = LPIPS(lpips_file)
    x = torch.zeros(1, 3, 32, 32, requires_grad=True)
    for name, p in model.net.named_parameters():
        if name.endswith("bias"):
            p.data.fill_(-1.0)
    model(x, torch.ones(1, 3, 32, 32)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_discriminator() -> None:
    model = NLayerDiscriminator(ndf=4, n_layers=3).apply(weights_init)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 1, 6, 6)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if v.ndim == 4}
    assert shapes == {
        "main.0.weight": (4, 3, 4, 4),
        "main.2.weight": (8, 4, 4, 4),
        "main.5.weight": (16, 8, 4, 4),
        "main.8.weight": (32, 16, 4, 4),
        "main.11.weight": (1, 32, 4, 4),
    }
    assert "main.2.bias" not in model.state_dict()
    assert "main.11.bias" in model.state_dict()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.bias.abs().max() == 0 and (m.weight - 1).abs().max() < 0.2 for m in norms)


def quantizer(**options: object) -> VectorQuantizer2:
    model = VectorQuantizer2(3, 2, **options)  # type: ignore[arg-type]
    model.embedding.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    return model


def test_quantizer_by_hand() -> None:
    z = torch.tensor([[0.9, 0.1], [0.2, 1.8]]).t().view(1, 2, 1, 2).requires_grad_()  # near codes 1 and 2
    z_q, loss, (_, _, indices) = quantizer()(z)
    assert indices.tolist() == [1, 2]
    assert_close(z_q.detach(), torch.tensor([[1.0, 0.0], [0.0, 2.0]]).t().view(1, 2, 1, 2))
    error = (0.1**2 + 0.1**2 + 0.2**2 + 0.2**2) / 4
    assert_close(loss.item(), 1.25 * error)
    z_q.sum().backward()
    assert_close(z.grad, torch.ones_like(z))  # straight through


@pytest.mark.parametrize("legacy", [True, False])
def test_legacy_flips_beta(legacy: bool) -> None:
    model = quantizer(legacy=legacy)
    z = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).requires_grad_()
    model(z)[1].backward()
    commitment, codebook = (1.0, 0.25) if legacy else (0.25, 1.0)
    assert z.grad is not None
    assert_close(z.grad.flatten(), commitment * torch.tensor([-0.1, 0.1]))
    assert model.embedding.weight.grad is not None
    assert_close(model.embedding.weight.grad[1], codebook * torch.tensor([0.1, -0.1]))


def test_codebook_entry_and_index_shape() -> None:
    model = quantizer(sane_index_shape=True)
    z_q, _, (_, _, indices) = model(torch.rand(2, 2, 3, 4) * 2)
    assert indices.shape == (2, 3, 4)
    assert_close(model.get_codebook_entry(indices, (2, 3, 4, 2)), z_q)
    assert model.get_codebook_entry(indices.flatten()).shape == (24, 2)


@pytest.mark.parametrize("unknown", ["extra", "random", 0])
def test_remap(unknown: str | int, tmp_path: Path) -> None:
    np.save(tmp_path / "used.npy", np.array([2, 1]))
    model = quantizer(remap=str(tmp_path / "used.npy"), unknown_index=unknown)
    mapped = model.remap_to_used(torch.tensor([1, 2, 0]))
    assert mapped[:2].tolist() == [1, 0]
    assert mapped[2].item() in {"extra": [2], "random": [0, 1], 0: [0]}[unknown]
    assert model.unmap_to_all(mapped)[:2].tolist() == [1, 2]
    assert model(torch.tensor([0.9, 0.1]).view(1, 2, 1, 1))[2][2].tolist() == [1]
