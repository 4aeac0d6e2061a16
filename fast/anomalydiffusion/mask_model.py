"""Learned masks (AnomalyDiffusion): textual inversion of a type's masks as pictures on the same frozen base."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from fast.artifact import find_artifact, load_model
from fast.latent.prompted import PromptedDiffusion, SamplingInputs
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.models.diffusion import samplers
from ldm.models.diffusion.ddim import bind
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.models.diffusion.samplers import Noise
from ldm.rng import PairNoise, generator

THRESHOLD = 0.8  # of a decoded picture's channel mean in [-1, 1]
BORDER = 1 / 3  # share of one border's pixels above which a mask is rejected
TRIES = 50


class MaskModel(PromptedDiffusion):
    """AnomalyDiffusion's mask model: textual inversion of each type's masks, as pictures, on a frozen base.

    Batches need `mask` (B,1,H,W) in {0,1} and `type` (B,). Their images are not looked at. Adapters (`lora`) help a
    base that has seen no binary pictures.

    Args:
        prompt_tokens: learned vectors per type.
        steps: sampling steps, capped at T.
        guidance: scale of the guidance against the empty prompt.
        base: the other parameters of `PromptedDiffusion`.
    """

    name = "maskmodel"
    samplers = ("ddim",)

    def __init__(
        self,
        prompt_tokens: int = 16,
        steps: int = 100,
        guidance: float = 5.0,
        **base: Any,
    ):
        super().__init__(prompt_tokens=prompt_tokens, **base)
        self.steps, self.guidance = steps, guidance

    # training

    def latents(self, batch: Mapping[str, Any]) -> Tensor:
        """Scaled latents (B,C,h,w) of the masks as pictures, -1 around the defect and 1 in it."""
        picture = (2 * batch["mask"].float() - 1).expand(-1, 3, -1, -1)
        with torch.no_grad():
            return self.scale_factor * self.first_stage_mean(picture)

    def placed(self, batch: Mapping[str, Any], context: Any, x0: Tensor) -> Any:
        """For a hybrid base: the place to draw is the whole picture, and nothing is known of it."""
        return self.with_place(context, torch.ones_like(x0[:, :1]), torch.zeros_like(x0))

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The base's own objective on the mask pictures."""
        return LatentDiffusion.loss(self, batch)

    # sampling

    def fill(self, place: SamplingInputs) -> Tensor:
        raise UserError("a maskmodel draws masks and fills none; give another method's weights")

    @torch.no_grad()
    def sample(self, types: Tensor, like: Tensor, noise: Noise, steps: int | None = None) -> Tensor:
        """Draw mask pictures by DDIM with eta 1 and guidance against the empty prompt.

        Args:
            types: the numbers of the types to draw (B,).
            like: a tensor (B,C,h,w) of the latents' shape.
            noise: `noise(x)` returns standard normal noise like x.
            steps: sampling steps. None: those of the model.

        Returns:
            Channel means (B,H,W), about [-1, 1], of the decoded pictures.
        """
        cond = self.placed({}, self.prompts(self.cond_stage_model, types).to(like), like)
        empty = self.placed({}, self.empty_prompt(len(types)).to(like), like)
        if not isinstance(cond, dict):
            cond, empty = [cond], [empty]
        denoise = bind(self, cond, self.guidance, empty)
        steps = min(steps or self.steps, self.schedule.timesteps)
        z = samplers.ddim(denoise, self.schedule, noise(like), steps=steps, eta=1.0, noise=noise)
        return self.decode_first_stage(z).float().mean(dim=1)

    @torch.no_grad()
    def log_images(self, batch: Mapping[str, Any], steps: int = 20) -> dict[str, Tensor]:
        """Pictures for a sample grid: real masks, drawn ones, and what is left of those above the threshold."""
        x0 = self.latents(batch)
        noise = PairNoise([generator(0, i) for i in range(len(x0))])
        drawn = self.sample(batch["type"], x0, noise, steps)[:, None].expand(-1, 3, -1, -1)
        real = (2 * batch["mask"].to(drawn) - 1).expand_as(drawn)
        return {"real": real, "drawn": drawn, "mask": 2 * (drawn > THRESHOLD).to(drawn) - 1}


def acceptable(mask: np.ndarray) -> bool:
    """Whether a mask (H,W) in {0,1} is kept: it marks something, and on no border more than a third of the pixels.

    The authors keep empty masks.
    """
    borders = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return bool(mask.any()) and all(border.mean() <= BORDER for border in borders)


class LearnedMasks:
    """Draw masks with a trained mask model.

    `drawn` counts the masks that it drew so far, and `rejected` those among them that it did not keep.

    Args:
        weights: the folder of a run, or one artifact.
        step: the step of the artifact. None: the last.
        device: where to sample.
        steps: network evaluations for each mask. None: as in the recipe.
        flag: what messages call `weights`.

    Raises:
        UserError: when `weights` hold no mask model.
    """

    def __init__(
        self,
        weights: str | Path,
        step: int | None = None,
        device: str = "cpu",
        steps: int | None = None,
        flag: str = "weights",
    ):
        artifact = find_artifact(weights, step, MaskModel.name, flag)
        model = load_model(artifact)
        if not isinstance(model, MaskModel):
            raise UserError(f"{artifact.path} holds a {type(model).__name__}, not a mask model; give a maskmodel's run")
        model.merge_adapters()
        self.model, self.steps, self.device = model.to(device), steps, device
        self.hash = file_hash(artifact.path)
        size = int(artifact.config.get("data", {}).get("params", {}).get("size", 256))
        with torch.no_grad():
            self._like = torch.zeros_like(model.first_stage_mean(torch.zeros(1, 3, size, size, device=device)))
        self.drawn = self.rejected = 0
        self._lock = Lock()

    @property
    def types(self) -> list[str]:
        return self.model.prompts.types

    def draw(self, rng: np.random.Generator, anomaly: str | None, shape: tuple[int, int]) -> np.ndarray:
        """Draw a mask that is never empty; it is a function of the arguments.

        Args:
            rng: everything random about the mask is drawn from it.
            anomaly: a learned type "category/anomaly". None: any.
            shape: height and width of the mask.

        Returns:
            The mask (H,W) uint8 in {0,1}.

        Raises:
            UserError: when the type was not learned, or when 50 masks in a row are not acceptable.
        """
        if anomaly is None:
            anomaly = self.types[int(rng.integers(len(self.types)))]
        if anomaly not in self.types:
            raise UserError(f"the mask model does not know the type {anomaly!r}; it has {', '.join(self.types)}")
        index = torch.tensor([self.types.index(anomaly)], device=self.device)
        for _ in range(TRIES):
            noise = PairNoise([torch.Generator().manual_seed(int(rng.integers(2**63)))])
            picture = self.model.sample(index, self._like, noise, self.steps)[0].cpu().numpy()
            small = (picture > THRESHOLD).astype(np.uint8)
            mask = _resized(small, shape)
            kept = acceptable(small) and bool(mask.any())
            with self._lock:
                self.drawn, self.rejected = self.drawn + 1, self.rejected + (not kept)
            if kept:
                return mask
        raise UserError(f"{TRIES} masks in a row for {anomaly} were empty or on a border; train the mask model longer")


def _resized(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask (h,w) in {0,1} at another size, its outline smooth."""
    shrinks = shape[0] * shape[1] < mask.size
    rule = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return (cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=rule) >= 0.5).astype(np.uint8)
