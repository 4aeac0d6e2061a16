"""A pool as training data: crops of its pictures for a first stage, its latents with masks and words for a base."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fast.data.pool import Shard, read_shard
from fast.data.sampler import StepSampler, Ticket
from fast.prompts import prompt_text
from ldm.checkpoint import read_metadata
from ldm.errors import UserError
from ldm.rng import seed_of

CATEGORY = "surface"  # of the learned vectors: a type's words without any one material
# A user's part is called anything; the defect's word must do its work beside any other, or alone.
PARTS = ("part", "piece", "sample", "item", "surface", "product", "component", "panel", "sheet", "plate", "bottle",
         "screw", "cable", "tile", "housing", "disc", "strip", "cap", "tube", "ring")  # fmt: skip


def caption(material: str, kind: str, rng: np.random.Generator) -> str:
    """Words for a picture: its material and defect, the defect alone, or the defect of some part."""
    chance = rng.random()
    if chance < 0.5:
        return prompt_text(material, kind)
    return kind if chance < 0.75 else prompt_text(PARTS[rng.integers(len(PARTS))], kind)


class PoolData(pl.LightningDataModule):
    """`path`: a folder of shards, of which the first `shards` are taken. `crop`: side of the windows of pictures to
    train a first stage on; None for latents, which `scripts/train_base.py` puts beside the shards.

    Batches of latents: `latent`, `normal_latent` (B,C,h,w) unscaled, `mask` (B,1,H,W), `caption`, `type`, `seed`; of
    pictures: `image` (B,3,crop,crop), `seed`.
    """

    def __init__(
        self,
        path: str,
        shards: int | None = None,
        crop: int | None = None,
        batch_size: int = 16,
        workers: int = 0,
        seed: int = 0,
        cache_folder: str | None = None,
    ):
        super().__init__()
        self.batch_size, self.workers, self.seed, self.cache_folder = batch_size, workers, seed, cache_folder
        paths = sorted(Path(path).glob("pool-*.safetensors"))[:shards]
        if not paths:
            raise UserError(f"{path} holds no pool-*.safetensors; fill it with scripts/train_base.py")
        shards_read = [read_shard(p) for p in paths]
        told = "".join(f"{p.name} {read_metadata(p).get('recipe')}" for p in paths)
        self.split_hash = "pool-" + hashlib.sha256(told.encode()).hexdigest()[:16]
        names = [pair for shard in shards_read for pair in shard.names]
        kinds = sorted({kind for _, kind in names})
        self.types = [f"{CATEGORY}/{kind}" for kind in kinds]
        self.rows: Dataset[dict[str, Any]]
        if crop:
            self.rows = Crops(shards_read, crop)
            self.groups = [list(range(len(names)))]
        else:
            self.rows = PoolLatents(paths, shards_read, names, self.types)
            self.groups = [[i for i, (_, k) in enumerate(names) if k == kind] for kind in kinds]
        self.pictures = self.rows

    def describe(self) -> list[str]:
        """Lines for the user: what is trained on."""
        return [f"  {sum(map(len, self.groups))} drawn defects of {len(self.types)} types"]

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        sampler = StepSampler.of(self.trainer, self.groups, self.batch_size, self.seed)
        return DataLoader(self.rows, batch_sampler=sampler, num_workers=self.workers)  # type: ignore[arg-type]

    def examples(self, count: int) -> dict[str, Any]:
        """A fixed batch for sample grids, spread over the types."""
        picked = [g[k % len(g)] for k in range(count) for g in self.groups][:count]
        rows = [self.rows[Ticket(i, seed_of(0, i))] for i in picked]  # type: ignore[index]
        return torch.utils.data.default_collate(rows)

    def latent_std(self) -> float:
        """Standard deviation of the unscaled training latents."""
        if not isinstance(self.rows, PoolLatents):
            raise UserError("latents are not read where data.params.crop asks for pictures; leave it out")
        return float(self.rows.normals[:512].float().std())


class Crops(Dataset[dict[str, Any]]):
    """Random windows of pictures with defects, most of them with some of the defect inside, and of normals."""

    def __init__(self, shards: list[Shard], side: int):
        self.side = side
        self.defects = [(s.defects[i], s.masks[i]) for s in shards for i in range(len(s.defects))]
        self.normals = [picture for s in shards for picture in s.normals]

    def __getitem__(self, ticket: Ticket) -> dict[str, Any]:
        rng = np.random.default_rng(ticket.seed)
        picture, mask = self.defects[ticket.sample]
        if rng.random() < 0.3:
            picture, mask = self.normals[int(rng.integers(len(self.normals)))], mask[:0]
        side = min(self.side, *picture.shape[:2])
        at = rng.integers(0, np.array(picture.shape[:2]) - side + 1)
        if mask.size and rng.random() < 0.7:
            point = np.argwhere(mask)[rng.integers(int(mask.sum()))]
            at = np.clip(point - rng.integers(side, size=2), 0, np.array(picture.shape[:2]) - side)
        window = picture[at[0] : at[0] + side, at[1] : at[1] + side]
        window = np.rot90(window, int(rng.integers(4)))
        window = window[:, ::-1] if rng.random() < 0.5 else window
        image = torch.from_numpy(np.ascontiguousarray(window)).permute(2, 0, 1).float() / 127.5 - 1
        return {"image": image, "seed": ticket.seed}

    def __len__(self) -> int:
        return len(self.defects)


class PoolLatents(Dataset[dict[str, Any]]):
    """The latents of a pool's defects and of their normals."""

    def __init__(self, paths: list[Path], shards: list[Shard], names: list[tuple[str, str]], types: list[str]):
        self.names, self.types = names, types
        normals: list[Tensor] = []
        defects, owner, count = [], [], 0
        for path, shard in zip(paths, shards, strict=True):
            file = path.with_name(path.name.replace("pool-", "latents-"))
            if not file.is_file():
                raise UserError(f"{file} is missing: the pool was not encoded; run scripts/train_base.py")
            stored = load_file(file)
            owner.append(torch.from_numpy(shard.owner) + count)
            count += len(stored["normals"])
            normals.append(stored["normals"])
            defects.append(stored["defects"])
        self.normals, self.defects, self.owner = torch.cat(normals), torch.cat(defects), torch.cat(owner)
        self.masks = np.concatenate([np.packbits(s.masks, axis=-1) for s in shards])
        self.side = shards[0].masks.shape[-1]

    def __getitem__(self, ticket: Ticket) -> dict[str, Any]:
        i = ticket.sample
        material, kind = self.names[i]
        mask = np.unpackbits(self.masks[i], axis=-1, count=self.side)
        return {
            "latent": self.defects[i].float(),
            "normal_latent": self.normals[self.owner[i]].float(),
            "mask": torch.from_numpy(mask).float()[None],
            "caption": caption(material, kind, np.random.default_rng(seed_of(ticket.seed, 4))),
            "type": self.types.index(f"{CATEGORY}/{kind}"),
            "seed": ticket.seed,
        }

    def __len__(self) -> int:
        return len(self.names)
