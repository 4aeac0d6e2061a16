"""Training data as a Lightning data module: one dataset type for every layout, its latents encoded once."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from fast.data.content import reading_files
from fast.data.idle import refuse_idle_seed, refuse_idle_views
from fast.data.layouts import DatasetIndex, Sample, check, open_dataset, require_defects
from fast.data.normals import (
    drawn_split,
    normals_notes,
    normals_of_test,
    refuse_foreign,
    shares_parts,
    without_tested,
)
from fast.data.sampler import Extra, SampleIndex, StepSampler
from fast.data.samples import Latents, MadeSample, Pictures
from fast.data.split import Split, make_split, split_file
from fast.data.tensors import to_tensor
from fast.data.transforms import Augment
from fast.runtime.command import leave_interrupts
from fast.runtime.progress import followed
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError
from ldm.rng import seed_of
from ldm.util import check_params


class DefectData(pl.LightningDataModule):
    """Normal images and defects of a dataset, a category or a defect type, as data to train a method on.

    Args:
        path: the dataset, a category of it or a defect type. Needed.
        layout, category, anomaly: see `fast.data.layouts.open_dataset`.
        split: "third" trains on the third of each type that `scripts/prepare_data.py` would draw, "all" on everything,
            and else it is the path of a split file. Normal images of parts that are held out are held out, too.
        split_seed: random seed of the third that is drawn.
        use: "defects", "normals" or "both". What it leaves out is not read.
        size: side in pixels of the square that images are resized to, or with `native` of the window. At least 8.
        crop: side in pixels of a random window of the square, up to `size`, without `cache`. None: no such window.
        crop_until: share of the steps (0..1), from the first on, in which `crop` is taken.
        batch_size: samples in a batch of one process.
        augment: options of `fast.data.transforms.Augment`. None: its defaults.
        views: versions of each image that are encoded and cached, the first without `augment`.
        cache: encode every image once and keep the latents. False: every batch is encoded anew, for a first stage that
            is being trained.
        workers: processes that load batches. 0: none.
        seed: decides the order of the samples and their views.
        cache_folder: keeps the latents on disk as well. None: they are in memory alone.
        native: instead of resizing, take a window of the image at its own resolution, around the defect if there is
            one.

    Raises:
        UserError: when `path` is missing, there is nothing to train on, or an option lies out of range or would have no
            effect.
    """

    def __init__(
        self,
        path: str | None = None,
        layout: str = "auto",
        category: str | None = None,
        anomaly: str | None = None,
        split: str = "third",
        split_seed: int = 0,
        use: str = "both",
        size: int = 256,
        crop: int | None = None,
        crop_until: float = 1.0,
        batch_size: int = 4,
        augment: Mapping[str, Any] | None = None,
        views: int = 1,
        cache: bool = True,
        workers: int = 0,
        seed: int = 0,
        cache_folder: str | None = None,
        native: bool = False,
    ):
        super().__init__()
        if not path:
            raise UserError("no data: give --mvtec_path FOLDER (or data.params.path)")
        if use not in ("defects", "normals", "both"):
            raise UserError(f"data.params.use={use} is unknown; use defects, normals or both")
        if batch_size < 1 or views < 1 or size < 8 or (crop or 8) > size:
            raise UserError(f"data.params: batch_size={batch_size}, views={views}, size={size}, crop={crop} do not fit")
        if not 0 <= crop_until <= 1:
            raise UserError(f"data.params.crop_until={crop_until} must be a share of the steps, from 0 to 1")
        check_params(Augment, augment or {}, "data.params.augment")
        augmented = Augment(**(augment or {}))
        refuse_idle_views(augmented, views, crop, crop_until, cache)
        refuse_idle_seed(split_seed, split, use)
        self.path, self.size, self.batch_size, self.views, self.cache = path, size, batch_size, views, cache
        self.crop_until = crop_until
        self.workers, self.seed, self.cache_folder = workers, seed, cache_folder
        opened = open_dataset(path, layout, category, anomaly)
        self.index, self.problems = self._look(opened, use)
        self.doubts = list(self.index.doubts)
        if use != "normals":
            require_defects(self.index)
        self.split, defects, self.held_out = self._divide(split, split_seed)
        self.defects = defects
        self.held = self.split or self._held_out(opened, split)
        self.notes: list[str] = []
        self.index = self.apart(self.index)
        samples: list[Sample] = [] if use == "normals" else defects
        samples = samples + ([] if use == "defects" else self.index.normals)
        if not samples:
            what = "images" if use == "both" else use
            raise UserError(f"{path}: no {what} to train on; check the layout of the folder")
        self.types = sorted({f"{s.category}/{s.anomaly}" for s in defects})
        self.native = native
        made, made_types = self.made()
        self.pictures = Pictures(samples, self.types, size, augmented, crop, native, made, made_types)
        self._latents: Latents | None = None

    def made(self) -> tuple[Sequence[MadeSample], list[str]]:
        """(samples that are made of the training side beside the real ones, types of theirs that no real one has)."""
        return [], []

    def extras(self) -> list[Extra]:
        """How often the made samples are drawn; numbers of `self.pictures`."""
        return []

    def settings(self) -> list[Any]:
        """What decides the made samples, beside files and seed; plain data."""
        return []

    @staticmethod
    def _look(index: DatasetIndex, use: str) -> tuple[DatasetIndex, list[str]]:
        """(what can be used, what was found wrong) of the part of the dataset that this training reads."""
        index = replace(
            index,
            normals=[] if use == "defects" else index.normals,
            test_normals=[],
            defects=[] if use == "normals" else index.defects,
        )
        report = check(index)
        return report.usable, report.problems

    def _divide(self, split: str, seed: int) -> tuple[Split | None, list[Sample], list[Sample]]:
        """(split, defects to train on, defects held out)."""
        if split == "all" or not self.index.defects:
            return None, self.index.defects, []
        chosen = make_split(self.index, seed=seed) if split == "third" else Split.load(split)
        train, test = chosen.apply(self.index)
        if not train:
            raise UserError(f"split {split} leaves no defect to train on; use data.params.split=all")
        return chosen, train, test

    def apart(self, index: DatasetIndex) -> DatasetIndex:
        """An index whose normals are of no part that is held out, where it has such; of the others it is noted."""
        if self.held is None or not index.normals:
            return index
        shown = {s.image for s in normals_of_test(index.whole, self.held)}  # a part may have defects of other types
        tested = [s for s in index.normals if s.image in shown]
        self.notes = normals_notes(index, tested)
        return without_tested(index, tested)

    @staticmethod
    def _held_out(opened: DatasetIndex, split: str) -> Split | None:
        """The split whose test side a training of normals alone keeps from, where it may show parts of it."""
        file = split_file(split)
        if file is not None:
            refuse_foreign(file, opened.whole)
        return file if file is not None or split == "all" or not shares_parts(opened) else drawn_split(opened)

    @property
    def split_hash(self) -> str:
        """Hash of the split in use, also where only normals are used and it leaves some out; "all" without one."""
        used = self.held if self.index.tested_normals else self.split
        return used.hash if used else "all"

    def describe(self) -> list[str]:
        """Lines for the user: what is trained on, what was left out."""
        count: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for i, part in enumerate((self.pictures.samples, self.held_out)):
            for s in part:
                count[f"{s.category}/{s.anomaly}"][i] += 1
        lines = [
            f"  {key}: {used} to train" + (f", {held} held out" if held else "")
            for key, (used, held) in sorted(count.items())
        ]
        return [
            *lines,
            *(f"  left out: {line}" for line in self.problems),
            *(f"  note: {note}" for note in (*self.doubts, *self.notes)),
        ]

    # batches

    def _groups(self) -> dict[str, list[int]]:
        """Sample numbers by "category/anomaly": normals together and each defect type by itself, so that rare types are
        seen as often as common ones."""
        groups: dict[str, list[int]] = defaultdict(list)
        for i, s in enumerate(self.pictures.samples):
            groups[f"{s.category}/{s.anomaly}"].append(i)
        return {k: groups[k] for k in sorted(groups)}

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        trainer, groups = self.trainer, self._groups()
        options = (list(groups.values()), self.batch_size, self.seed, self.crop_until)
        sampler = StepSampler.of(trainer, *options, groups_at=self._turns(list(groups)), extras=self.extras())
        data = self.latents(trainer.lightning_module) if self.cache else self.pictures
        return DataLoader(data, batch_sampler=sampler, num_workers=self.workers, worker_init_fn=leave_interrupts)  # type: ignore[arg-type]

    def _turns(self, keys: list[str]) -> Callable[[int], list[int]] | None:
        """Which groups take turns at a step, where the module in training chooses: its `groups_at(step, keys)`."""
        assert self.trainer is not None
        choose = getattr(self.trainer.lightning_module, "groups_at", None)
        if choose is None:
            return None

        def turns(step: int) -> list[int]:
            chosen = choose(step, keys)
            found = [i for i, key in enumerate(keys) if key in chosen]
            if not found:
                raise UserError("this training needs normals and defects; set data.params.use=both")
            return found

        return turns

    def examples(self, count: int) -> dict[str, Any]:
        """A fixed batch for sample grids, spread over the types."""
        groups = list(self._groups().values())
        picked = [g[k % len(g)] for k in range(count) for g in groups][:count]
        data = self._latents if self._latents is not None else self.pictures
        items = [data[SampleIndex(i, seed_of(0, i))] for i in picked]
        return torch.utils.data.default_collate(items)

    # the latent cache

    def latents(self, model: Any) -> Latents:
        """Encode every view of every sample once; kept in memory, and on disk where `cache_folder` is set."""
        if self._latents is None:
            file = self._cache_file(model)
            if file is not None and file.is_file():
                stored = load_file(file)
            else:
                stored = self._encode(model)
                if file is not None and model.trainer.is_global_zero:
                    save_safetensors(stored, file, {"what": "first-stage means of the training images, and masks"})
            self._latents = Latents(self.pictures, self.views, stored["latents"], stored["masks"])
        return self._latents

    def _cache_file(self, model: Any) -> Path | None:
        if self.cache_folder is None:
            return None
        paths = [p for s in self.pictures.samples for p in (s.image, s.mask) if p is not None]
        paths += reading_files(paths)
        files = [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in paths]
        weights = sum(float(p.double().sum()) for p in model.first_stage_model.parameters())
        augment = self.pictures.augment
        parts = [files, weights, self.size, self.pictures.crop, self.pictures.native, self.views, asdict(augment)]
        key = json.dumps([*parts, self.seed, *self.settings()])
        return Path(self.cache_folder) / f"latents-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"

    @torch.no_grad()
    def _encode(self, model: Any) -> dict[str, Tensor]:
        latents, masks = [], []
        tickets = [
            (i, seed_of(self.seed, i, view) if view else None)
            for i in range(len(self.pictures))
            for view in self._views(i)
        ]
        hidden = not model.trainer.is_global_zero
        for start in followed(range(0, len(tickets), 8), "encoding images", "batch", hidden=hidden):
            pairs = [self.pictures.view(i, seed) for i, seed in tickets[start : start + 8]]
            images = torch.stack([to_tensor(image) for image, _ in pairs]).to(model.device)
            latents.append(model.first_stage_mean(images).cpu())
            masks += [torch.from_numpy(mask.copy())[None] for _, mask in pairs]
        return {"latents": torch.cat(latents), "masks": torch.stack(masks)}

    def _views(self, index: int) -> range:
        """Numbers of a sample's views: from 0, the plain one, or for a made sample the first random one alone."""
        return range(self.views) if index < len(self.pictures.samples) else range(1, 2)

    def latent_std(self) -> float:
        """Standard deviation of the unscaled training latents."""
        if self._latents is None:
            raise UserError("scale_by_std measures the cached latents; set data.params.cache=true or give scale_factor")
        return float(self._latents.latents.float().std())
