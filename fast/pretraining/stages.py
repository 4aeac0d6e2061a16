"""The stages of the shipped base: first stage, latent diffusion with its text encoder, FARM with the words' vectors."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from fast.pretraining.captions import Captions
from fast.pretraining.drawing import DEFECTS, TYPES, Drawing
from fast.pretraining.graphs import replayed
from fast.pretraining.loop import Deadline, Interrupted, TimedTraining
from fast.pretraining.pool import SheetPool, latent_statistics, to_float
from fast.pretraining.settings import Settings
from fast.training.config import load_recipe
from ldm.checkpoint import read_state_dict, save_safetensors
from ldm.errors import UserError
from ldm.models.autoencoder import AutoencoderTiny
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.util import instantiate_from_config

CATEGORY = "surface"  # of the learned vectors: a type's words without any one material
SHARES = {"first_stage": 0.2, "base": 0.64, "farm": 0.12}  # of the minutes; the rest loads and writes
STARTED = {"base": 0.82, "farm": 0.14}  # where first stage and base start from weights
TAKE_EVERY, TAKEN = 8, 32  # steps between new sheets, and how many come at once at most
WHOLE_EVERY, WHOLE_AT_END = 8, 0.1  # one batch in so many is of whole images, and all in the last part of the time


class Pretraining:
    """All stages in turn, each from where it was. `run` raises `Interrupted` on Ctrl-C, with everything saved."""

    def __init__(self, settings: Settings, report: Callable[[str], None] = print):
        self.settings, self.report, self.device = settings, report, settings.device
        torch.manual_seed(settings.seed)
        settings.out.mkdir(parents=True, exist_ok=True)
        self.deadline = Deadline()
        self.seen = 0  # windows taken from the pool in this sitting, since it holds latents
        self.latest = -1  # number of the last sheet taken

    def _recipe(self, name: str) -> Any:
        config = load_recipe(self.settings.recipes / f"{name}.yaml")
        overrides = self.settings.overrides
        if name != "autoencoder":
            config = OmegaConf.merge(config, OmegaConf.from_dotlist(overrides))  # type: ignore[assignment]
        return OmegaConf.to_container(config, resolve=True)

    def run(self) -> None:
        with self.deadline.watched():
            first = self._next_sheet()
            self.latest = first - 1
            with Drawing(self.settings.recipe, first, self.settings.workers) as drawing:
                self.drawing = drawing
                try:
                    pool = self._filled()
                    first_stage = self._first_stage(pool)
                    self.use(pool, first_stage)
                    self._base(first_stage)
                    self._farm()
                    self.report(f"{self.latest + 1} sheets of {DEFECTS} defects drawn in all")
                finally:
                    self._note()

    # the pool

    def _next_sheet(self) -> int:
        """The first number that no earlier sitting has taken."""
        note = self.settings.out / "sheets.json"
        return int(json.loads(note.read_text())["next"]) if note.is_file() else 0

    def _note(self) -> None:
        path = self.settings.out / "sheets.json"
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps({"next": self.latest + 1}))
        part.replace(path)

    def _filled(self) -> SheetPool:
        """A pool of images with as many sheets as the first stage begins with."""
        s = self.settings
        pool = SheetPool(s.first_capacity, s.recipe.size, self.device)
        while pool.count < min(s.first_sheets, s.first_capacity):
            self._take(pool, wait=True)
            if self.deadline.stopping:
                raise Interrupted("interrupted while the first sheets were drawn; run the same command to go on")
        self.report(f"{pool.count} sheets drawn")
        return pool

    def _take(self, pool: SheetPool, wait: bool = False) -> None:
        with self.drawing.taken(min(TAKEN, pool.capacity), wait) as found:
            if found:
                self.latest = max(self.latest, *(number for number, _ in found))
                pool.add([sheet for _, sheet in found])

    def _between(self, step: int) -> None:
        """Now and then new sheets, a defect for `reuse` windows at most; the oldest give way where the pool is full."""
        if step % TAKE_EVERY == 0 and self.seen > self.settings.reuse * DEFECTS * (self.pool.added - self.begun):
            self._take(self.pool)
        if step % 200 == 0:
            self._note()

    # stages

    def _seconds(self, stage: str) -> float:
        return 60 * self.settings.minutes * (STARTED if self.settings.start else SHARES)[stage]

    def _training(
        self, stage: str, parts: dict[str, torch.nn.Module], seconds: float, lr: float, averaged: str | None, kept: bool
    ) -> TimedTraining:
        s = self.settings
        path = s.out / f"{stage}.train.safetensors" if kept else None
        return TimedTraining(path, parts, seconds, lr, self.device, s.bf16, averaged)

    def _first_stage(self, pool: SheetPool) -> AutoencoderTiny:
        if self.settings.start:
            started: AutoencoderTiny = self._new_base().first_stage_model
            return started.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        finished = self.settings.out / "first_stage.safetensors"
        if not finished.is_file():
            model = self.train_first_stage(pool, self._seconds("first_stage"), kept=True)
            save_safetensors(model.state_dict(), finished, {})
        model = self._new_first_stage()
        model.load_state_dict(read_state_dict(finished))
        return model.eval().requires_grad_(False)

    def _new_first_stage(self) -> AutoencoderTiny:
        section, channels = self._recipe("autoencoder")["model"], self.settings.channels
        if channels:
            section["params"]["embed_dim"] = section["params"]["ddconfig"]["z_channels"] = channels
        model: AutoencoderTiny = instantiate_from_config(section)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train_first_stage(self, pool: SheetPool, seconds: float, kept: bool = False) -> AutoencoderTiny:
        """Trained on the images of the pool; its latents then have mean 0 and variance 1 in every channel. `kept`: on
        disk, to be gone on with."""
        model, s = self._new_first_stage(), self.settings
        training = self._training("first_stage", {"model": model}, seconds, model.learning_rate, "model", kept)

        def loss(step: int) -> Tensor:
            images = pool.crops(max(1, s.batch // 4), 64).contiguous(memory_format=torch.channels_last)
            again, posterior = model(images)
            return model.loss(images, again.float(), posterior, step, model.get_last_layer())[0] / images[0].numel()

        def between(step: int) -> None:
            if kept and step % TAKE_EVERY == 0 and pool.added < pool.capacity:
                self._take(pool)

        training.run(loss, between, self.deadline, report=self.report)
        model.load_state_dict({k.removeprefix("model."): v for k, v in training.weights().items()})
        _standardize(model, pool)
        return model.eval().requires_grad_(False)

    def use(self, pool: SheetPool, first_stage: AutoencoderTiny) -> None:
        """Train on this pool from now on, in latents of `first_stage`."""
        pool.encode(_encoder(first_stage, self.settings.bf16), self.settings.capacity)
        self.pool, self.begun = pool, pool.added

    def _base(self, first_stage: AutoencoderTiny) -> None:
        """The base as it ships: in bfloat16, but for the tables of the noise schedule."""
        s = self.settings
        finished, note = s.ship / "base.safetensors", s.out / "base.done"
        if note.is_file() and finished.is_file():
            return
        model, training = self.train_base(first_stage, self._seconds("base"), kept=True)
        low = ("model.", "first_stage_model.", "cond_stage_model.")
        state = {k: v.to(torch.bfloat16) if k.startswith(low) else v for k, v in model.state_dict().items()}
        save_safetensors(state, finished, {"step": str(training.step), "windows": str(training.windows)})
        note.write_text(str(training.step))

    def train_base(
        self, first_stage: AutoencoderTiny, seconds: float, kept: bool = False
    ) -> tuple[LatentDiffusion, TimedTraining]:
        """The U-Net, with averaged weights, and the text encoder, on a first stage; and their training, which is over.
        `kept`: on disk, to be gone on with, and with new sheets meanwhile."""
        model = self._new_base()
        state = {k: v for k, v in first_stage.state_dict().items() if not k.startswith("loss.")}
        model.first_stage_model.load_state_dict(state)
        model.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parts = {"model": model.model, "cond_stage_model": model.cond_stage_model}
        training = self._training("base", parts, seconds, model.lr, "model", kept)
        captions = Captions(model.cond_stage_model.tokenizer, self.device)  # type: ignore[union-attr, arg-type]

        def loss(step: int) -> Tensor:
            batch = self._windows(captions, step, training.spent / seconds)
            training.windows += len(batch["latent"])
            return model.loss(batch)[0]

        with self._fast(model, lambda step: self._windows(captions, step, 0.0)):
            training.run(loss, self._between if kept else lambda _: None, self.deadline, report=self.report)
        model.load_state_dict(training.weights(), strict=False)
        return model, training

    def _new_base(self) -> LatentDiffusion:
        """With the weights of `start`, if there are any, but with the recipe's own noise schedule."""
        section = self._recipe("base")["model"]
        model: LatentDiffusion = instantiate_from_config(section).to(self.device)
        if self.settings.start:
            buffers = set(dict(model.named_buffers(recurse=False)))
            own = {k: v for k, v in read_state_dict(self.settings.start).items() if k not in buffers}
            try:
                missing, unexpected = model.load_state_dict(own, strict=False)
            except RuntimeError:
                missing, unexpected = ["shapes"], []
            if unexpected or set(missing) - buffers:
                raise UserError(f"--start {self.settings.start} is of another network than the recipe; leave it out")
        return model

    @contextmanager
    def _fast(self, model: LatentDiffusion, batch_of: Callable[[int], dict[str, Any]]) -> Iterator[None]:
        """On a GPU the U-Net as CUDA graphs, if asked for, for batches of windows and of whole images; `batch_of(step)`
        makes one. Raises `UserError` where recording fails: the card's generator is not fit to go on with then."""
        with ExitStack() as stack:
            if self.device.type == "cuda" and self.settings.graphs:
                batches = [batch_of(step) for step in (0, WHOLE_EVERY - 1)]
                losses = [partial(lambda batch: model.loss(batch)[0], batch) for batch in batches]
                try:
                    unet, bf16, fuse = model.model.diffusion_model, self.settings.bf16, self.settings.fuse
                    stack.enter_context(replayed(unet, losses, bf16, fuse, self.report))
                except (RuntimeError, ValueError) as error:
                    reason = " ".join(str(error).split())[:160]
                    raise UserError(f"CUDA graphs fail here ({reason}); add --no_graphs to the same command") from None
            model.zero_grad(set_to_none=True)
            yield

    def _windows(self, captions: Captions | None, step: int, spent: float) -> dict[str, Any]:
        """A batch of windows, or a quarter as many whole images; `spent`: the share of the time."""
        s = self.settings
        whole = step % WHOLE_EVERY == WHOLE_EVERY - 1 or spent > 1 - WHOLE_AT_END
        count, side = (max(1, s.batch // 4), s.recipe.size) if whole else (s.batch, s.window)
        self.seen += count
        batch: dict[str, Any] = self.pool.windows(count, side)
        if captions is not None:
            batch["caption"] = captions.ids(batch["material"], batch["type"])
        return batch

    def _farm(self) -> None:
        """FARM and the vectors of the drawn types on the base as it ships, in bfloat16 too."""
        s, config = self.settings, self._recipe("farm")
        params = config["model"]["params"]
        own = {"ckpt_path": str(s.ship / "base.safetensors"), "types": [f"{CATEGORY}/{name}" for name in TYPES]}
        model = instantiate_from_config({**config["model"], "params": {**params, **own}}).to(self.device)
        model.on_fit_start()
        for beside in sorted(s.start.parent.glob("fast-*.safetensors"))[-1:] if s.start else ():
            model.load_state_dict(read_state_dict(beside), strict=False)
        training = self._training("farm", model.trainable_modules(), self._seconds("farm"), model.lr, None, kept=True)

        def loss(step: int) -> Tensor:
            batch = self._windows(None, step, training.spent / training.seconds)
            training.windows += len(batch["latent"])
            total: Tensor = model.loss(batch)[0]
            return total

        training.run(loss, self._between, self.deadline, report=self.report)
        metadata = {
            "step": str(training.step), "minutes": f"{training.spent / 60:.2f}", "split": "drawn",
            "config": json.dumps(config), **model.artifact_metadata(),
        }  # fmt: skip
        state = {k: v.detach().to(torch.bfloat16) for k, v in model.adapter_state().items()}
        target = s.ship / f"fast-{training.step}.safetensors"
        save_safetensors(state, target, {**metadata, "base": "models/mini/base.safetensors"})
        for old in set(s.ship.glob("fast-*.safetensors")) - {target}:
            old.unlink()


@torch.no_grad()
def _standardize(model: AutoencoderTiny, pool: SheetPool) -> None:
    assert pool.images is not None
    images = to_float(pool.images[: min(pool.count, 256), 0])
    latents = torch.cat([model.encode(part).mean for part in images.split(16)])
    model.standardize(*latent_statistics(latents))


def _encoder(model: AutoencoderTiny, bf16: bool) -> Callable[[Tensor], Tensor]:
    def mean(images: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            return model.encode(images.contiguous(memory_format=torch.channels_last)).mean.float()

    return mean
