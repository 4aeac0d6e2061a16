"""KID, IS and IC-LPIPS of synthetic defects beside the real training defects, by networks from files that the user
names; none is downloaded.

What each of them says: KID, how far the pictures are as a set; IS, how sharply classes are told apart, which for
near-constant pictures is near 1 and says little; IC-LPIPS, how varied the pictures are, which broken ones raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from fast.data.images import resize_image
from fast.data.tensors import to_tensor
from fast.segmentation.data import SegmentationSample
from ldm.errors import UserError
from taming.modules.losses.lpips import LPIPS

INCEPTION_SIDE, LPIPS_SIDE = 299, 256  # pixels that pictures are resized to
LARGEST, SUBSETS, SPLITS = 1000, 100, 10  # pictures of a subset at most, subsets of KID; parts of IS
_BLOCK = 8  # pictures at a time: an LPIPS embedding of 256 x 256 pixels takes 32 MB

Embed = Callable[[Tensor], Tensor]  # images (B,3,H,W) in [-1, 1] -> (B,D); see `LPIPS.embed`


def load_inception(path: str | Path) -> nn.Module:
    """A TorchScript network: images float (B,3,299,299) in [-1, 1] to pool features (B,2048), or to those and class
    logits, which IS needs.

    The file is a program. TorchScript has no Python, and loading unpickles tensors and its own types alone, but what
    the program computes is its author's business: give one that you trust, by its hash (`ldm.checkpoint.file_hash`).
    UserError when it is missing or no TorchScript.
    """
    if not Path(path).is_file():
        raise UserError(f"Inception network {path} does not exist; give a TorchScript file")
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"Inception network {path} is no TorchScript file ({reason}); give another") from None


def load_lpips(path: str | Path, net: str = "vgg") -> LPIPS:
    """LPIPS on VGG16 ("vgg", as SeaS) or AlexNet ("alex", as DFMGAN); figures on the two cannot be compared."""
    try:
        return LPIPS(path, net)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{error}; give the weights of --lpips {net}") from None


@dataclass(frozen=True)
class Options:
    """`seed` chooses subsets and what a cluster keeps; `cap`: of an IC-LPIPS cluster at most so many pictures, None
    all (DFMGAN's code 200, SeaS' 140)."""

    seed: int = 0
    cap: int | None = 200
    batch_size: int = 16
    device: str = "cpu"


def measures(
    made: Sequence[SegmentationSample],
    real: Sequence[SegmentationSample],
    *,
    inception: nn.Module | None = None,
    embed: Embed | None = None,
    options: Options | None = None,
) -> dict[str, Any]:
    """KID, IS and IC-LPIPS of all pictures and of each type, as far as the networks for them are given.

    Pictures are resized as everywhere here, by area when they shrink and cubic when they grow. Published figures use
    other filters.

    Args:
        made, real: the synthetic and the real defects to compare.
        inception: a network of `load_inception`, for KID and IS.
        embed: the embedding of a network of `load_lpips` (`LPIPS.embed`), for IC-LPIPS.
        options: see `Options`. None: its defaults.

    Returns:
        The number of `made` and `real` pictures, the figures of all of them, and those of each type under `types`. What
        a network is missing for is left out.
        - with `inception`: `kid`, its standard deviation over the subsets `kid_spread`, and the pictures of a subset
          `kid_subset`. `kid` is None for fewer than two real or made pictures.
        - with `inception` that answers with logits, too: `is` and `is_spread`.
        - with `embed`: `ic_lpips` and `ic_lpips_nonzero`, see the function `ic_lpips`. For all pictures they are the
          mean over the types.

    Raises:
        UserError: when there are no synthetic or no real pictures.
    """
    if not made or not real:
        raise UserError(f"{len(made)} synthetic and {len(real)} real pictures cannot be compared; give some of both")
    how = options or Options()
    total: dict[str, Any] = {}
    types: dict[str, dict[str, Any]] = {kind: {} for kind in sorted({pair.kind for pair in made})}
    chosen = {kind: ([p.kind == kind for p in made], [p.kind == kind for p in real]) for kind in types}
    if inception is not None:
        ours, theirs = (_features(inception, pairs, how) for pairs in (made, real))
        total |= _inception_figures(ours, theirs, how.seed)
        for kind, (a, b) in chosen.items():
            types[kind] |= _inception_figures([x[a] for x in ours], [x[b] for x in theirs], how.seed)
    if embed is not None:
        for kind, (a, b) in chosen.items():
            own, true = ([p for p, k in zip(s, w, strict=True) if k] for s, w in ((made, a), (real, b)))
            types[kind] |= ic_lpips(own, true, embed, how) if true else {"ic_lpips": None, "ic_lpips_nonzero": None}
        for key in ("ic_lpips", "ic_lpips_nonzero"):
            known = [row[key] for row in types.values() if row[key] is not None]
            total[key] = float(np.mean(known)) if known else None
    return {"made": len(made), "real": len(real), **total, "types": types}


def _batches(pairs: Sequence[SegmentationSample], side: int, size: int, device: str) -> Iterator[Tensor]:
    for start in range(0, len(pairs), size):
        images = [resize_image(pair.read()[0], side) for pair in pairs[start : start + size]]
        yield torch.stack([to_tensor(image) for image in images]).to(device)


@torch.no_grad()
def _features(network: nn.Module, pairs: Sequence[SegmentationSample], options: Options) -> list[Tensor]:
    """Features (N,D) and, where the network has them, logits (N,K)."""
    rows = []
    network = network.to(options.device)
    for batch in _batches(pairs, INCEPTION_SIDE, options.batch_size, options.device):
        answer = network(batch)
        rows.append([x.float().cpu().flatten(1) for x in ([answer] if isinstance(answer, Tensor) else answer)])
    return [torch.cat(parts) for parts in zip(*rows, strict=True)]


def _inception_figures(made: list[Tensor], real: list[Tensor], seed: int) -> dict[str, Any]:
    result = kid(made[0], real[0], seed)
    return result if len(made) < 2 else {**result, **inception_score(made[1], seed)}


def kid(made: Tensor, real: Tensor, seed: int = 0) -> dict[str, Any]:
    """Kernel Inception Distance (Binkowski et al. 2018) of features (N,D) and (M,D): unbiased squared maximum mean
    discrepancy, kernel (x.y / D + 1)**3, mean over 100 subsets of min(N, M, 1000) each.

    With few real pictures a subset holds them all: the spread is then of the made ones alone, and of none where N = M.
    """
    size = min(len(made), len(real), LARGEST)
    if size < 2:
        return {"kid": None, "kid_spread": None, "kid_subset": size}
    metric = KernelInceptionDistance(nn.Identity(), subsets=SUBSETS, subset_size=size)
    metric.update(real.double(), real=True)
    metric.update(made.double(), real=False)
    mean, spread = _seeded(metric.compute, seed)
    return {"kid": float(mean), "kid_spread": float(spread), "kid_subset": size}


def inception_score(logits: Tensor, seed: int = 0) -> dict[str, Any]:
    """IS (Salimans et al. 2016) of class logits (N,K), mean and spread over 10 parts, fewer below 10 pictures each."""
    metric = InceptionScore(nn.Identity(), splits=max(1, min(SPLITS, len(logits) // SPLITS)))
    metric.update(logits.double())
    mean, spread = _seeded(metric.compute, seed)
    return {"is": float(mean), "is_spread": None if torch.isnan(spread) else float(spread)}


def _seeded(compute: Callable[[], tuple[Tensor, Tensor]], seed: int) -> tuple[Tensor, Tensor]:
    """torchmetrics draws from torch's global generator, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return compute()


@torch.no_grad()
def ic_lpips(
    made: Sequence[SegmentationSample], real: Sequence[SegmentationSample], embed: Embed, options: Options | None = None
) -> dict[str, float | None]:
    """Clustered diversity of the pictures of one type (Ojha et al. 2021): each made picture joins the real one that is
    nearest by LPIPS; of each cluster, the mean LPIPS between its members.

    `ic_lpips`: mean over all clusters, one per real picture, 0 for a cluster of none or one; `ic_lpips_nonzero`: over
    those that are not 0, None without one.
    """
    how = options or Options()
    rng = np.random.default_rng(how.seed)
    nearest = np.concatenate([d.argmin(1) for d in _distances(made, real, embed, how.device)])
    values = []
    for k in range(len(real)):
        members = np.flatnonzero(nearest == k).tolist()
        if how.cap is not None and len(members) > how.cap:
            members = sorted(rng.choice(members, how.cap, replace=False).tolist())
        values.append(_spread([made[i] for i in members], embed, how.device))
    above = [v for v in values if v > 0]
    return {"ic_lpips": float(np.mean(values)), "ic_lpips_nonzero": float(np.mean(above)) if above else None}


def _spread(pairs: Sequence[SegmentationSample], embed: Embed, device: str) -> float:
    """Mean distance of two different ones; 0 for fewer than two."""
    if len(pairs) < 2:
        return 0.0
    apart = np.concatenate(list(_distances(pairs, pairs, embed, device)))
    return float((apart.sum() - np.trace(apart)) / (len(pairs) * (len(pairs) - 1)))


def _distances(
    a: Sequence[SegmentationSample], b: Sequence[SegmentationSample], embed: Embed, device: str
) -> Iterator[np.ndarray]:
    """Squared distances of the embeddings, `_BLOCK` rows of (len(a), len(b)) at a time. Those of `b` are made anew for
    each block: kept, a thousand would take 32 GB."""
    for rows in _batches(a, LPIPS_SIDE, _BLOCK, device):
        left = embed(rows)
        columns = []
        for batch in _batches(b, LPIPS_SIDE, _BLOCK, device):
            right = embed(batch)
            columns.append(torch.stack([(left - x).square().sum(1) for x in right], dim=1))
        yield torch.cat(columns, dim=1).double().cpu().numpy()
