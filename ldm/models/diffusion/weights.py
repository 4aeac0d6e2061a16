"""A base checkpoint into a `LatentDiffusion`: strict names, the same noise schedule, the averaged weights if any."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoint import load_strict, read_state_dict
from ldm.errors import UserError
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.modules.ema import LitEma

# What a base checkpoint may hold beside the network: averaged copies, a first-stage loss, CLIP's constant positions.
SURPLUS = (
    "model_ema.",
    "first_stage_model.loss.",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "logvar",
)
# How far stored betas may lie from the config's: relative, by their precision.
BETA_TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


def load_base(model: nn.Module, schedule: NoiseSchedule, path: str, ignore_keys: Iterable[str]) -> dict[str, Tensor]:
    """Load a file into a whole base, without its running mean.

    Names have to match strictly, but for those that begin with one of `ignore_keys`.

    Returns:
        The file's tensors by name.

    Raises:
        UserError: the file does not fit, or its betas are not those of `schedule`.
    """
    ignored = tuple(ignore_keys)
    state = {k: v for k, v in read_state_dict(path).items() if not k.startswith(ignored)}
    fresh = {k: v for k, v in model.state_dict().items() if k.startswith(ignored)}
    load_strict(model, {**state, **fresh}, f"checkpoint {path}", ignore=SURPLUS, mapped=path)
    if "betas" in state:
        check_schedule(schedule, state["betas"], path)
    return state


def load_average(network: nn.Module, decay: float, state: Mapping[str, Tensor], path: str) -> LitEma:
    """Make the running mean of a network's weights.

    It is that of a file's tensors `state` where they hold one, else it starts from the network's weights as they are.
    Raises `UserError` for a mean that does not fit; `path` is what the message calls the file.
    """
    average = LitEma(network, decay)
    kept = {k.removeprefix("model_ema."): v for k, v in state.items() if k.startswith("model_ema.")}
    if not kept.keys() <= {"decay", "num_updates"}:  # the two that stay where the average was cut off
        load_strict(average, kept, f"model_ema of checkpoint {path}", mapped=path)
    return average


def check_schedule(schedule: NoiseSchedule, stored: Tensor, path: str) -> None:
    """Raise `UserError` unless the `stored` betas are those of `schedule`."""
    expected = torch.tensor(schedule.betas, dtype=torch.float32)
    rtol = BETA_TOLERANCE.get(stored.dtype, 1e-4)
    if not torch.allclose(stored.float(), expected, rtol=rtol, atol=1e-7 if rtol > 1e-4 else 0.0):
        raise UserError(
            f"checkpoint {path} was trained with another noise schedule (beta_T {float(stored[-1]):.6g}, "
            f"the config says {float(expected[-1]):.6g}); set linear_start, linear_end and timesteps to match it"
        )


def keep_in_bf16(part: nn.Module) -> None:
    """Convert the weights of a frozen first stage or conditioning model to bfloat16.

    Its networks work in bfloat16. What goes in and comes out stays float32, with autocast or without.
    """
    part.to(torch.bfloat16)
    for name, child in part.named_children():
        if name != "quantize":  # a codebook is searched in float32, whatever its precision
            child.register_forward_pre_hook(_lower, with_kwargs=True)
            child.register_forward_hook(_raise)


def _lower(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    dtype = next((p.dtype for p in module.parameters()), None)  # float32 again, should somebody convert it back

    def fit(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(fit, args)), {name: fit(value) for name, value in kwargs.items()}


def _raise(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
    return output.float() if isinstance(output, Tensor) and output.is_floating_point() else output
