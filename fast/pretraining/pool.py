"""Drawn sheets on the training device: as images for the first stage, then as its latents for all that follows."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fast.pretraining.drawing import DEFECTS, POINTS, TYPES, Sheet
from fast.procedural.traits import TRAITS

ENCODED = 96  # images that are encoded at a time


def to_float(images: Tensor) -> Tensor:
    """uint8 (B,H,W,3) to (B,3,H,W) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


class SheetPool:
    """A ring of `capacity` sheets of `size` pixels on one device; new ones take the place of the oldest.

    Until `encode` is called it holds images, of which `crops` are taken; afterwards latents, of which `windows` are.
    """

    def __init__(self, capacity: int, size: int, device: torch.device):
        self.capacity, self.size, self.device = capacity, size, device
        self.count = self.added = 0
        self.images: Tensor | None = torch.empty(capacity, DEFECTS + 1, size, size, 3, dtype=torch.uint8, device=device)
        self.latents: Tensor | None = None
        self._mean: Callable[[Tensor], Tensor] | None = None
        # Bits of a row as bytes: a mask of 256 pixels takes 8 kB.
        self.masks = torch.empty(capacity, DEFECTS, size, size // 8, dtype=torch.uint8, device=device)
        self.points = torch.empty(capacity, DEFECTS, POINTS, 2, dtype=torch.long, device=device)
        self.types = torch.full((capacity, DEFECTS), -1, dtype=torch.long, device=device)
        self.materials = torch.empty(capacity, dtype=torch.long, device=device)
        self._material = {name: i for i, name in enumerate(sorted(TRAITS))}
        self._bits = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=device)
        self._order: tuple[int, Tensor, Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def add(self, sheets: Sequence[Sheet]) -> None:
        """Take sheets in, no more than the capacity at once; encoded if the pool holds latents."""
        slots = (torch.arange(len(sheets)) + self.added) % self.capacity
        slots = slots.to(self.device)
        images = self._moved([s.images for s in sheets])
        masks, points = self._moved([s.masks for s in sheets]), self._moved([s.points for s in sheets])
        if self.latents is None:
            assert self.images is not None
            self.images[slots] = images
        else:
            self.latents[slots] = self._encoded(images)
        self.masks[slots], self.points[slots] = masks, points.long()
        self.types[slots] = torch.tensor([[TYPES.index(t) for t in s.types] for s in sheets], device=self.device)
        self.materials[slots] = torch.tensor([self._material[s.material] for s in sheets], device=self.device)
        self.added += len(sheets)
        self.count = min(self.added, self.capacity)

    def _moved(self, arrays: list[np.ndarray]) -> Tensor:
        """Stacked on the device; one by one, for a stack in memory would cost more than the copies."""
        return torch.stack([torch.from_numpy(array).to(self.device) for array in arrays])

    def _encoded(self, images: Tensor) -> Tensor:
        """Latents (S,1+N,C,h,w) of images (S,1+N,H,W,3)."""
        assert self._mean is not None
        parts = [self._mean(to_float(part)) for part in images.flatten(0, 1).split(ENCODED)]
        return torch.cat(parts).unflatten(0, images.shape[:2]).half()

    @torch.no_grad()
    def encode(self, mean: Callable[[Tensor], Tensor], capacity: int) -> None:
        """From now on hold latents, `mean(images (B,3,H,W) in [-1, 1]) -> (B,C,h,w)`, of up to `capacity` sheets."""
        assert self.images is not None
        self._mean = mean
        example = self._encoded(self.images[:1])
        kept = min(self.count, capacity)
        latents = torch.empty((capacity, *example.shape[1:]), dtype=example.dtype, device=self.device)
        for start in range(0, kept, 8):
            latents[start : min(start + 8, kept)] = self._encoded(self.images[start : min(start + 8, kept)])
        self.images, self.latents = None, latents
        for name in ("masks", "points", "types", "materials"):
            old = getattr(self, name)
            new = torch.zeros((capacity, *old.shape[1:]), dtype=old.dtype, device=self.device)
            new[:kept] = old[:kept]
            setattr(self, name, new)
        self.capacity, self.count, self.added, self._order = capacity, kept, kept, None

    # samples

    def crops(self, count: int, side: int, defects: float = 0.7) -> Tensor:
        """Windows (count,3,side,side) in [-1, 1], a share `defects` of them with a defect inside, turned at random."""
        assert self.images is not None
        sheet, defect, at = self._places(count, side, 1)
        plain = torch.rand(count, device=self.device) >= defects
        anywhere = torch.randint(self.size - side + 1, (count, 2), device=self.device)
        at = torch.where(plain[:, None], anywhere, at)
        rows, cols = self._cells(at, side)
        picked = self.images[sheet[:, None, None], defect[:, None, None] + 1, rows, cols]
        windows = to_float(picked)
        parts = windows.split(-(-count // 8))  # one turn for each eighth of the batch
        return torch.cat([_turned(part, i) for i, part in enumerate(parts)])

    def windows(self, count: int, side: int) -> dict[str, Tensor]:
        """Training samples of `side` pixels around defects, all types equally often: `latent`, `normal_latent`
        (B,C,h,w), `mask` (B,1,side,side), `type` and `material` (B,), numbers in `TYPES` and the sorted `TRAITS`."""
        assert self.latents is not None
        factor = self.size // self.latents.shape[-1]
        sheet, defect, at = self._places(count, side, factor)
        rows, cols = self._cells(at // factor, side // factor)
        pick = (slice(None), rows[:, None], cols[:, None])
        channels = torch.arange(self.latents.shape[2], device=self.device)[None, :, None, None]
        index = sheet[:, None, None, None]
        latent = self.latents[index, defect[:, None, None, None] + 1, channels, pick[1], pick[2]]
        normal = self.latents[index, torch.zeros_like(index), channels, pick[1], pick[2]]
        rows, cols = self._cells(at, side)
        byte = self.masks[sheet[:, None, None], defect[:, None, None], rows, cols // 8]
        mask = (byte & self._bits[cols % 8]) > 0
        return {
            "latent": latent.float(),
            "normal_latent": normal.float(),
            "mask": mask[:, None].float(),
            "type": self.types[sheet, defect],
            "material": self.materials[sheet],
        }

    def _places(self, count: int, side: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Sheets (B,), defects in them (B,), and upper left corners (B,2), multiples of `step` pixels, of windows that
        have some of the defect inside."""
        order, first, number, present = self._by_type()
        kind = present[torch.randint(len(present), (count,), device=self.device)]
        flat = order[first[kind] + (torch.rand(count, device=self.device) * number[kind]).long()]
        sheet, defect = flat // DEFECTS, flat % DEFECTS
        point = self.points[sheet, defect, torch.randint(POINTS, (count,), device=self.device)]
        # The corner moves by up to step - 1 more to a multiple of step, and the point must stay inside.
        at = point - torch.randint(side - step + 1, (count, 2), device=self.device)
        return sheet, defect, at.clamp(0, self.size - side) // step * step

    def _by_type(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(defects in the order of their types, where each type begins, how many it has, the types there are); renewed
        now and then, for that waits for the device."""
        if self._order is None or self.added >= max(1.1 * self._order[0], self._order[0] + 32):
            types = self.types[: self.count].flatten()
            number = torch.bincount(types, minlength=len(TYPES))
            self._order = self.added, types.argsort(), number.cumsum(0) - number, number, number.nonzero()[:, 0]
        return self._order[1:]

    def _cells(self, at: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Row (B,side,1) and column (B,1,side) indices of windows at `at`."""
        run = torch.arange(side, device=self.device)
        return (at[:, :1] + run)[:, :, None], (at[:, 1:] + run)[:, None, :]


def _turned(images: Tensor, number: int) -> Tensor:
    """One of the eight symmetries of a square."""
    images = torch.rot90(images, number % 4, (2, 3))
    return images.flip(3) if number % 8 >= 4 else images


def latent_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of latents (B,C,h,w)."""
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))
