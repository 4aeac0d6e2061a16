"""A base checkpoint into a `LatentDiffusion`: strict names, the same noise schedule, the averaged weights if any."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldm.checkpoint import load_strict, read_state_dict
from ldm.errors import UserError
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.modules.ema import LitEma

if TYPE_CHECKING:
    from ldm.models.diffusion.ddpm import LatentDiffusion

# What a base checkpoint may hold beside the network: averaged copies, a first-stage loss, CLIP's constant positions.
SURPLUS = (
    "model_ema.",
    "first_stage_model.loss.",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "logvar",
)
# How far stored betas may lie from the config's: relative, by their precision.
BETA_TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


def load_base(model: "LatentDiffusion", path: str, ignore_keys: Iterable[str]) -> None:
    """Load a whole base; see `LatentDiffusion.init_from_ckpt`."""
    model.model_ema = None
    ignored = tuple(ignore_keys)
    state = {k: v for k, v in read_state_dict(path).items() if not k.startswith(ignored)}
    fresh = {k: v for k, v in model.state_dict().items() if k.startswith(ignored)}
    load_strict(model, {**state, **fresh}, f"checkpoint {path}", ignore=SURPLUS)
    if "betas" in state:
        check_schedule(model.schedule, state["betas"], path)
    model.register_schedule()  # exact again, should the file hold them in half precision
    if not model.use_ema:
        return
    model.model_ema = LitEma(model.model, model.ema_decay)
    averaged = {k.removeprefix("model_ema."): v for k, v in state.items() if k.startswith("model_ema.")}
    if not averaged.keys() <= {"decay", "num_updates"}:  # the two that stay where the average was cut off
        load_strict(model.model_ema, averaged, f"model_ema of checkpoint {path}")


def check_schedule(schedule: NoiseSchedule, stored: Tensor, path: str) -> None:
    """Raise `UserError` unless the `stored` betas are those of `schedule`."""
    expected = torch.tensor(schedule.betas, dtype=torch.float32)
    rtol = BETA_TOLERANCE.get(stored.dtype, 1e-4)
    if not torch.allclose(stored.float(), expected, rtol=rtol, atol=1e-7 if rtol > 1e-4 else 0.0):
        raise UserError(
            f"checkpoint {path} was trained with another noise schedule (beta_T {float(stored[-1]):.6g}, "
            f"the config says {float(expected[-1]):.6g}); set linear_start, linear_end and timesteps to match it"
        )
