"""A classifier that names the type of a defect, to tell whether the words of a base can be seen in what it makes.

It looks at images alone and never at a mask: on a normal image it can only guess, and whatever it knows of a defect it
has from what fills the mask. Masks filled with something of no type teach it not to read types from outlines.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from fast.procedural import DEFECTS
from fast.quality.examples import UNTYPED
from fast.quality.windows import SEEN, STORED, cut_all
from fast.segmentation.layers import ConvNorm
from ldm.checkpoint import read_metadata, save_safetensors
from ldm.errors import UserError

SMOOTHING, WEIGHT_DECAY = 0.05, 0.05
UNTYPED_SHARE = 0.2  # of a batch
BATCH = {"cpu": 64, "cuda": 384}
RATE = {"cpu": 3e-3, "cuda": 5e-3}


class ResidualBlock(nn.Module):
    """Two convolutions (B,C,h,w) -> (B,C,h,w) beside an identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class WordNet(nn.Module):
    """Views near (B,3,SEEN,SEEN) and far (B,3,SEEN/2,SEEN/2), both about -2 to 2 -> logits (B,types)."""

    def __init__(self, types: int):
        super().__init__()
        self.near, self.far = self._trunk(), self._trunk()
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(4 * 144, types)

    @staticmethod
    def _trunk() -> nn.Sequential:
        return nn.Sequential(
            ConvNorm(3, 16, 5, 2),
            ConvNorm(16, 40, 3, 2),
            ResidualBlock(40),
            ConvNorm(40, 80, 3, 2),
            ResidualBlock(80),
            ConvNorm(80, 144, 3, 2),
            ResidualBlock(144),
        )

    def forward(self, near: Tensor, far: Tensor) -> Tensor:
        found = [self.near(near), self.far(far)]
        pooled = [pool for x in found for pool in (x.mean((2, 3)), x.amax((2, 3)))]
        return self.head(self.drop(torch.cat(pooled, 1)))


class Classifier:
    """A trained network and the types that it tells apart."""

    def __init__(self, network: WordNet, types: Sequence[str] = DEFECTS):
        self.network, self.types = network.eval(), tuple(types)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def logits(self, images: np.ndarray, masks: np.ndarray, batch: int = 128) -> Tensor:
        """Logits (N,types) for `images` (N,H,W,3) uint8, best of 256 pixels as in training, and their `masks` (N,H,W),
        which say where to look. The mean over the eight turned and mirrored views."""
        return self.view_logits(cut_all(images, masks), batch)

    @torch.no_grad()
    def view_logits(self, views: np.ndarray, batch: int = 128) -> Tensor:
        """The same for views (N, 2, STORED, STORED, 3) that were cut before."""
        rows = []
        for i in range(0, len(views), batch):
            x = _float(torch.from_numpy(views[i : i + batch]).to(self.device))
            edge = (STORED - SEEN) // 2
            x = x[..., edge : edge + SEEN, edge : edge + SEEN]
            rows.append(sum(self.network(*_pair(_turned(x, k))) for k in range(8)) / 8)
        return torch.cat(rows).float().cpu() if rows else torch.zeros(0, len(self.types))

    def save(self, path: Path) -> None:
        state = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_safetensors(state, path, {"word_types": json.dumps(self.types)})

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Classifier:
        """Raises `UserError` for a file that holds no classifier."""
        types = read_metadata(path).get("word_types")
        if types is None:
            raise UserError(f"{path} holds no classifier of defect types; train one with fast.quality.words")
        network = WordNet(len(json.loads(types)))
        try:
            network.load_state_dict(load_file(path))
        except RuntimeError:
            raise UserError(f"{path} holds a classifier of another make; train it again") from None
        return cls(network.to(device), json.loads(types))


def train_on_views(
    views: np.ndarray,
    labels: np.ndarray,
    device: str = "cpu",
    minutes: float = 8.0,
    seed: int = 0,
    progress: Callable[[float, float], None] | None = None,
    steps: int | None = None,
    batch: int | None = None,
) -> Classifier:
    """Train on views (N, 2, STORED, STORED, 3) uint8 and labels (N,), numbers of `DEFECTS` or -1 for no type, for so
    many minutes of wall time on "cpu" or "cuda", or for `steps` of them. Every type is seen equally often."""
    generator = torch.Generator(device).manual_seed(seed)
    torch.manual_seed(seed)
    network = WordNet(len(DEFECTS)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rate: float = RATE[device]
    size: int = batch or BATCH[device]
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    data, targets = torch.from_numpy(views).to(device), torch.from_numpy(labels).to(device)
    chances = _chances(labels).to(device)
    start, done, step = time.perf_counter(), 0.0, 0
    network.train()
    while done < 1:
        optimizer.param_groups[0]["lr"] = rate * min(1.0, done / 0.05 + 0.02) * (1 - done)
        rows = torch.multinomial(chances, size, replacement=True, generator=generator)
        near, far = augmented(data[rows], generator)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            scores = network(near, far)
        loss = _loss(scores.float(), targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if progress:
            progress(done, float(loss.detach()))
        step += 1
        done = step / steps if steps else (time.perf_counter() - start) / (60 * minutes)
    return Classifier(network)


def _chances(labels: np.ndarray) -> Tensor:
    """How often each example (N,) is drawn: all types equally often, those of no type `UNTYPED_SHARE` of the time."""
    counts = np.bincount(labels + 1, minlength=2)
    shares = np.full(len(counts), 1.0 / max(int((counts[1:] > 0).sum()), 1))
    shares[0] = UNTYPED_SHARE / (1 - UNTYPED_SHARE)
    return torch.from_numpy(shares[labels + 1] / counts[labels + 1])


def _loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy, for what is of no type against all types alike."""
    types = scores.shape[1]
    wanted = F.one_hot(targets.clamp(min=0), types).float() * (1 - SMOOTHING) + SMOOTHING / types
    wanted = torch.where((targets == UNTYPED)[:, None], torch.full_like(wanted, 1 / types), wanted)
    return -(wanted * F.log_softmax(scores, 1)).sum(1).mean()


def _float(views: Tensor) -> Tensor:
    """(B,2,h,w,3) uint8 -> (B,2,3,h,w), -2 to 2."""
    return views.permute(0, 1, 4, 2, 3).float() / 64 - 2


def _turned(x: Tensor, k: int) -> Tensor:
    x = torch.rot90(x, k % 4, (-2, -1))
    return x.flip(-1) if k >= 4 else x


def _pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """The views (B,2,3,h,w) as the network takes them."""
    near, far = x[:, 0], F.avg_pool2d(x[:, 1], 2)
    return near.contiguous(memory_format=torch.channels_last), far.contiguous(memory_format=torch.channels_last)


def augmented(views: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turned, mirrored, shifted, with other light, colours, sharpness and noise, which no type depends on.

    `views` (B,2,STORED,STORED,3) uint8 -> what `WordNet` takes, in the same order.
    """
    spare = STORED - SEEN + 1
    numbers = torch.randint(0, spare, (8, 2), generator=generator, device=views.device).tolist()
    order = torch.cat([torch.arange(k, len(views), 8) for k in range(8)])
    back = torch.argsort(order).to(views.device)
    parts = [_turned(_float(views[k::8, :, y : y + SEEN, x : x + SEEN]), k) for k, (y, x) in enumerate(numbers)]
    near, far = _pair(torch.cat(parts)[back])

    def some(low: float, high: float, channels: int = 1) -> Tensor:
        shape = (len(near), channels, 1, 1)
        return low + (high - low) * torch.rand(shape, generator=generator, device=near.device)

    grey = (some(0, 1) < 0.2).float()
    gain = some(0.75, 1.25) * some(0.93, 1.07, 3)
    lift = some(-0.4, 0.4) + some(-0.08, 0.08, 3)
    soften, noise = some(-0.8, 0.8).clamp(min=0), some(-0.08, 0.12).clamp(min=0)
    seen = []
    for x, share in ((near, 1.0), (far, 0.3)):  # a small picture is sharp and free of noise
        x = torch.lerp(x, x.mean(1, keepdim=True), grey) * gain + lift
        softer = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = torch.lerp(x, softer, share * soften)
        seen.append(x + share * noise * torch.randn(x.shape, generator=generator, device=x.device))
    return seen[0], seen[1]
